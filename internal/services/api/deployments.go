package api

import (
	"net/http"
	"slices"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// deployments answers about running deployments.
type deployments struct{ *call }

// route routes /v2/deployments/...
func (c deployments) route(rest []string) error {
	switch {
	case len(rest) == 0:
		return c.get(c.listDeployments)
	case len(rest) > 1:
		return errNoRoute
	case c.r.Method != http.MethodDelete:
		return errMethod
	}
	return c.deleteDeployment(rest[0])
}

// listDeployments answers with those of which the asker may see every app.
func (c deployments) listDeployments() error {
	return c.answer(slices.DeleteFunc(c.services.Deployments(), func(d marathon.DeploymentInfo) bool {
		return c.rights.check(access.Read, d.AffectedApps...) != nil
	}))
}

// deleteDeployment cancels with force; without, a deployment back to what was follows.
func (c deployments) deleteDeployment(id string) error {
	if err := c.rights.mayTouch(id); err != nil {
		return err
	}
	if c.flag("force", false) {
		if err := c.services.Cancel(c.r.Context(), id); err != nil {
			return err
		}
		return c.answerWith(http.StatusAccepted, nil)
	}
	next, err := c.services.Rollback(c.r.Context(), id)
	if err != nil {
		return err
	}
	return c.started(http.StatusOK, next, nil)
}

// queue answers about apps with instances left to launch.
type queue struct{ *call }

// route routes /v2/queue and /v2/queue/{id}/delay.
func (c queue) route(rest []string) error {
	n := len(rest)
	if n == 0 {
		return c.get(c.listQueue)
	}
	if n < 2 || rest[n-1] != "delay" {
		return errNoRoute
	}
	if c.r.Method != http.MethodDelete {
		return errMethod
	}
	if err := c.rights.check(access.Update, join(rest[:n-1])); err != nil {
		return err
	}
	if err := c.services.ResetDelay(c.r.Context(), join(rest[:n-1])); err != nil {
		return err
	}
	return c.answerWith(http.StatusNoContent, nil)
}

func (c queue) listQueue() error {
	offers := slices.Contains(c.r.URL.Query()["embed"], "lastUnusedOffers")
	out := []marathon.QueueItem{}
	for _, q := range c.services.Queue() {
		if !c.rights.sees(q.App.ID) {
			continue
		}
		q.Processed = summary(q.Waiting)
		if offers {
			q.Last = []struct{}{}
		}
		out = append(out, q.QueueItem)
	}
	return c.answer(map[string]any{"queue": out})
}

// reasons are Marathon's names of what the kernel's filters reject, in the order in which Marathon asks.
var reasons = []string{"UnfulfilledRole", "UnfulfilledConstraint", "NoCorrespondingReservationFound",
	"AgentMaintenance",
	"InsufficientCpus", "InsufficientMemory", "InsufficientDisk", "InsufficientGpus", "InsufficientPorts",
	"DeclinedScarceResources"}

func reasonOf(filter string) string {
	switch filter {
	case "unreachable":
		return "AgentMaintenance"
	case "reservation":
		return "NoCorrespondingReservationFound"
	case "cpus":
		return "InsufficientCpus"
	case "mem":
		return "InsufficientMemory"
	case "disk":
		return "InsufficientDisk"
	case "gpus":
		return "InsufficientGpus"
	case "ports", "address":
		return "InsufficientPorts"
	}
	return "UnfulfilledConstraint"
}

// summary puts a refusal in Marathon's terms: machines for offers. A quota that is used up counts as a role that is
// not met.
func summary(w kernel.Waiting) marathon.QueueSummary {
	declined := map[string]int{}
	for _, r := range w.Refusal.Reasons {
		declined[reasonOf(r.Filter)] += r.Agents
	}
	left := w.Refusal.Agents
	if w.Refusal.Quota != "" {
		left = max(1, left)
		declined["UnfulfilledRole"] = left
	}
	out := marathon.QueueSummary{Processed: left * w.Tries, Unused: left * w.Tries, Offers: []marathon.QueueReject{}}
	for _, name := range reasons {
		out.Offers = append(out.Offers, marathon.QueueReject{Reason: name, Declined: declined[name], Processed: left})
		left -= declined[name]
	}
	out.Attempt = out.Offers
	return out
}
