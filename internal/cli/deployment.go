package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"encoding/json"

	"github.com/spf13/cobra"
)

// deploymentView is what the verbs read of Marathon's DeploymentStepInfo; Reason is Marina's.
type deploymentView struct {
	ID             string   `json:"id"`
	Version        string   `json:"version"`
	AffectedApps   []string `json:"affectedApps"`
	CurrentStep    int      `json:"currentStep"`
	TotalSteps     int      `json:"totalSteps"`
	Reason         string   `json:"reason"`
	CurrentActions []struct {
		Action string `json:"action"`
		App    string `json:"app"`
	} `json:"currentActions"`
}

func (d *deploymentView) doing() string {
	var parts []string
	for _, a := range d.CurrentActions {
		parts = append(parts, strings.TrimSuffix(a.Action, "Application")+" "+a.App)
	}
	return strings.Join(parts, ", ")
}

func (v *invocation) deploymentCommand() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List running deployments", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		var all []deploymentView
		b, err := cl.get(c.Context(), marathon+"/deployments", &all)
		if err != nil {
			return err
		}
		if v.json {
			return v.raw(b)
		}
		if len(all) == 0 {
			fmt.Fprintln(v.out, "Nothing is being deployed.")
			return nil
		}
		rows := [][]string{}
		for _, d := range all {
			rows = append(rows, []string{d.ID, strings.Join(d.AffectedApps, ","), fmt.Sprintf("%d/%d", d.CurrentStep, d.TotalSteps), d.doing(), d.Reason})
		}
		v.table([]string{"ID", "APPS", "STEP", "DOING", "WAITS FOR"}, rows)
		return nil
	}}
	var timeout time.Duration
	follow := &cobra.Command{Use: "follow ID", Short: "Follow a deployment to its end", Args: exactly(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		return v.follow(c.Context(), cl, args[0], timeout)
	}}
	follow.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up after this long")
	var ch change
	rollback := ch.flags(&cobra.Command{Use: "rollback ID", Short: "Undo a running deployment", Args: exactly(1),
		Long: "Starts a deployment that brings back what was before. With --force the deployment is only cancelled, and what it did stays.",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			b, err := cl.call(c.Context(), http.MethodDelete, marathon+"/deployments/"+args[0]+ch.query(), nil)
			if err != nil {
				return err
			}
			if ch.force {
				fmt.Fprintln(v.out, "cancelled deployment", args[0])
				return nil
			}
			return v.finish(c.Context(), cl, &ch, b, "rolled back "+args[0])
		}})
	return group("deployment", "Changes on their way", list, follow, rollback)
}

// follow watches a deployment until it is no longer listed, and tells success from failure by the event stream's word.
func (v *invocation) follow(ctx context.Context, cl *client, id string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errWaited)
	defer cancel()
	p := v.progress()
	defer p.done()
	ends, err := cl.deploymentEnds(ctx, id)
	if err != nil {
		return err
	}
	for {
		d, running, err := cl.deployment(ctx, id)
		if err != nil {
			return v.waited(ctx, id, err)
		}
		if running {
			v.showDeployment(ctx, cl, p, d)
		}
		select {
		case failed := <-ends:
			p.done()
			if failed != "" {
				return &Error{Code: ExitFailed, Message: fmt.Sprintf("deployment %s ended without success: %s", id, failed), Next: "marina app list"}
			}
			return nil
		case <-ctx.Done():
			return v.waited(ctx, id, ctx.Err())
		case <-time.After(300 * time.Millisecond):
			if !running { // it ended before the event stream was attached
				return nil
			}
		}
	}
}

var errWaited = errors.New("waited long enough")

func (v *invocation) waited(ctx context.Context, id string, err error) error {
	if errors.Is(context.Cause(ctx), errWaited) {
		return &Error{Code: ExitTimeout, Message: "deployment " + id + " still runs", Next: "marina deployment list tells what it waits for"}
	}
	return err
}

func (v *invocation) showDeployment(ctx context.Context, cl *client, p *progress, d deploymentView) {
	for _, a := range d.CurrentActions {
		var answer struct {
			App appView `json:"app"`
		}
		if _, err := cl.get(ctx, appPath(a.App), &answer); err != nil {
			continue
		}
		app := answer.App
		line := fmt.Sprintf("%s %s [%s] %d of %d running", strings.ToLower(strings.TrimSuffix(a.Action, "Application")), a.App,
			bar(app.TasksRunning, app.Instances), app.TasksRunning, app.Instances)
		if len(app.HealthChecks) > 0 {
			line += fmt.Sprintf(", %d healthy", app.TasksHealthy)
		}
		if d.Reason != "" {
			line += ", waits: " + d.Reason
		}
		p.show("%s", line)
	}
}

func (c *client) deployment(ctx context.Context, id string) (deploymentView, bool, error) {
	var all []deploymentView
	if _, err := c.get(ctx, marathon+"/deployments", &all); err != nil {
		return deploymentView{}, false, err
	}
	for _, d := range all {
		if d.ID == id {
			return d, true, nil
		}
	}
	return deploymentView{}, false, nil
}

// deploymentEnds listens to the event stream for the end of a deployment: "" is success, else why not.
func (c *client) deploymentEnds(ctx context.Context, id string) (<-chan string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		c.URL+marathon+"/events?event_type=deployment_success&event_type=deployment_failed", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		resp.Body.Close()
		return nil, answerError(resp.StatusCode, b)
	}
	out := make(chan string, 1)
	go func() { // ends with ctx, which the caller cancels
		defer resp.Body.Close()
		scanEvents(resp.Body, func(kind string, data []byte) bool {
			var e struct {
				ID     string `json:"id"`
				Reason string `json:"reason"`
			}
			if json.Unmarshal(data, &e) != nil || e.ID != id {
				return true
			}
			if kind == "deployment_failed" {
				out <- or(e.Reason, "cancelled")
			} else {
				out <- ""
			}
			return false
		})
	}()
	return out, nil
}
