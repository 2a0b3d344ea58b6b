package services

import (
	"math"
	"net/http"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// deployments routes /v2/deployments/...
func (c *call) deployments(rest []string) error {
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

func (c *call) listDeployments() error {
	refusals := map[string]string{}
	for _, w := range c.cfg.Kernel.Queue(marathon.Framework) {
		refusals[w.Owner] = w.Refusal.String()
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := []marathon.DeploymentInfo{}
	for _, d := range c.state.Deployments {
		out = append(out, c.state.describe(d, refusals))
	}
	return c.answer(out)
}

func (s *State) describe(d *Deployment, refusals map[string]string) marathon.DeploymentInfo {
	out := marathon.DeploymentInfo{ID: d.ID, Version: d.Version, AffectedApps: []string{}, AffectedPods: []string{}, Steps: d.Steps,
		CurrentActions: []marathon.CurrentAction{}, CurrentStep: d.Step + 1, TotalSteps: len(d.Steps), Reason: s.Why(d, refusals)}
	for _, c := range d.Changes {
		out.AffectedApps = append(out.AffectedApps, c.App)
	}
	if d.Step < 0 || d.Step >= len(d.Steps) { // it could not be read
		out.Steps = orEmpty(d.Steps)
		return out
	}
	for _, a := range d.Steps[d.Step].Actions {
		out.CurrentActions = append(out.CurrentActions, marathon.CurrentAction{Action: a, Readiness: []marathon.ReadinessCheck{}})
	}
	return out
}

// deleteDeployment cancels with force; without, a deployment back to what was follows.
func (c *call) deleteDeployment(id string) error {
	force := c.flag("force", false)
	var next *Deployment
	err := c.change(func(t *tx) (err error) {
		var d *Deployment
		for _, o := range t.s.state.Deployments {
			if o.ID == id {
				d = o
			}
		}
		if d == nil {
			return problemf(errdefs.ErrNotFound, "DeploymentPlan %s does not exist", id)
		}
		if !force {
			next, err = t.rollback(d)
			return err
		}
		t.forgetDeployment(d, nil)
		t.then(func() { t.s.state.Cancel(d) })
		t.events = append(t.events, deploymentEnd("deployment_failed", d, "cancelled by a request", t.now))
		return nil
	})
	switch {
	case err != nil:
		return err
	case force:
		return c.answerWith(http.StatusAccepted, nil)
	}
	return c.started(http.StatusOK, next, nil)
}

// queue routes /v2/queue and /v2/queue/{id}/delay.
func (c *call) queue(rest []string) error {
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
	id := join(rest[:n-1])
	err := c.change(func(t *tx) error {
		f := t.s.state.fleets[id]
		if t.s.state.Apps[id] == nil || f == nil || f.missing == 0 && len(f.waiting()) == 0 {
			return problemf(errdefs.ErrNotFound, "Application %s not found in tasks queue.", id)
		}
		t.then(func() { t.s.state.ResetBackoff(id) })
		return nil
	})
	if err != nil {
		return err
	}
	return c.answerWith(http.StatusNoContent, nil)
}

func (f *fleet) waiting() (out []*Instance) {
	for _, i := range f.all() {
		if i.Waiting && !i.Stopping {
			out = append(out, i)
		}
	}
	return out
}

func (c *call) listQueue() error {
	waiting := map[string]kernel.Waiting{}
	for _, w := range c.cfg.Kernel.Queue(marathon.Framework) {
		waiting[w.Owner] = w
	}
	offers := false
	for _, v := range c.r.URL.Query()["embed"] {
		offers = offers || v == "lastUnusedOffers"
	}
	now := time.Now()
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := []marathon.QueueItem{}
	for _, id := range sortedKeys(c.state.fleets) {
		f, a := c.state.fleets[id], c.state.Apps[id]
		queued := f.waiting()
		if a == nil || f.missing+len(queued) == 0 {
			continue
		}
		item := marathon.QueueItem{App: a, Count: f.missing + len(queued), Role: a.Role, Since: marathon.Timestamp(f.since),
			Delay: marathon.QueueDelay{Overdue: true}, Processed: summary(waiting[id])}
		if len(queued) > 0 {
			item.Since = marathon.Timestamp(c.state.time(queued[0].since))
		}
		if f.backoff.Version == a.Config() && f.backoff.Until.After(now) {
			item.Delay = marathon.QueueDelay{TimeLeftSeconds: int(math.Ceil(f.backoff.Until.Sub(now).Seconds()))}
		}
		if w, ok := waiting[id]; ok {
			item.Refusal, item.Hold = w.Refusal.String(), w.Hold
		}
		if offers {
			item.Last = []struct{}{}
		}
		out = append(out, item)
	}
	return c.answer(map[string]any{"queue": out})
}

// reasons are Marathon's names of what the kernel's filters reject, in the order in which Marathon asks.
var reasons = []string{"UnfulfilledRole", "UnfulfilledConstraint", "NoCorrespondingReservationFound", "AgentMaintenance",
	"InsufficientCpus", "InsufficientMemory", "InsufficientDisk", "InsufficientGpus", "InsufficientPorts", "DeclinedScarceResources"}

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

// summary puts a refusal in Marathon's terms: machines for offers. A quota that is used up counts as a role that is not met.
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
