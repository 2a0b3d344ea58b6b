package marathon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/output"
)

// Change is the tail of a verb that starts a deployment: tell, and follow it if asked.
type Change struct {
	wait    bool
	force   bool
	timeout time.Duration
}

// Flags gives a command the flags of a change.
func (ch *Change) Flags(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&ch.wait, "wait", false, "follow the deployment to its end")
	c.Flags().BoolVar(&ch.force, "force", false, "override a running deployment")
	c.Flags().DurationVar(&ch.timeout, "timeout", 10*time.Minute, "how long --wait waits")
	return c
}

// Forced reports whether --force was said.
func (ch *Change) Forced() bool { return ch.force }

// Query returns the query that --force adds to a path.
func (ch *Change) Query() string {
	if ch.force {
		return "?force=true"
	}
	return ""
}

// Finish prints what a change answered and follows its deployment. done says what was done: "scaled /x to 3".
func (ch *Change) Finish(ctx context.Context, e *command.Env, cl *client.Client, answer []byte, done string) error {
	if e.JSON {
		if err := e.Raw(answer); err != nil {
			return err
		}
	}
	var d struct {
		DeploymentID string `json:"deploymentId"`
		Deployments  []struct {
			ID string `json:"id"`
		} `json:"deployments"`
	}
	if err := client.Unmarshal(answer, &d); err != nil {
		return err
	}
	if d.DeploymentID == "" && len(d.Deployments) > 0 {
		d.DeploymentID = d.Deployments[0].ID
	}
	if ch.wait {
		if err := Follow(ctx, e, cl, d.DeploymentID, ch.timeout); err != nil {
			return err
		}
	} else {
		done += fmt.Sprintf(", deployment %s (follow it: marina deployment follow %s)", d.DeploymentID, d.DeploymentID)
	}
	if !e.JSON && !e.Quiet {
		fmt.Fprintln(e.Out, done)
	}
	return nil
}

// pace is the pause between two looks at a deployment.
const pace = 300 * time.Millisecond

// Follow watches a deployment until it is no longer listed, and tells success from failure by the event stream's word.
func Follow(ctx context.Context, e *command.Env, cl *client.Client, id string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errWaited)
	defer cancel()
	p := e.Progress()
	defer p.Done()
	ends, err := deploymentEnds(ctx, cl, id)
	if err != nil {
		return err
	}
	for {
		d, running, err := findDeployment(ctx, cl, id)
		if err != nil {
			return waited(ctx, id, err)
		}
		if running {
			show(ctx, cl, p, &d)
		}
		select {
		case failed := <-ends:
			p.Done()
			if failed != "" {
				return &exit.Error{Code: exit.Failed, Message: fmt.Sprintf("deployment %s ended without success: %s", id, failed),
					Next: "marina app list"}
			}
			return nil
		case <-ctx.Done():
			return waited(ctx, id, ctx.Err())
		case <-time.After(pace):
			if !running { // it ended before the event stream was attached
				return nil
			}
		}
	}
}

var errWaited = errors.New("waited long enough")

// waited turns the error of a context that ran out into words.
func waited(ctx context.Context, id string, err error) error {
	if errors.Is(context.Cause(ctx), errWaited) {
		return &exit.Error{Code: exit.Timeout, Message: "deployment " + id + " still runs",
			Next: "marina deployment list tells what it waits for"}
	}
	return err
}

// show tells how far the apps of a deployment's present step are.
func show(ctx context.Context, cl *client.Client, p *output.Progress, d *Deployment) {
	for _, a := range d.CurrentActions {
		app, _, err := GetApp(ctx, cl, a.App)
		if err != nil {
			continue
		}
		line := fmt.Sprintf("%s %s [%s] %d of %d running", strings.ToLower(strings.TrimSuffix(a.Action, "Application")),
			a.App,
			output.Bar(app.TasksRunning, app.Instances), app.TasksRunning, app.Instances)
		if len(app.HealthChecks) > 0 {
			line += fmt.Sprintf(", %d healthy", app.TasksHealthy)
		}
		if d.Reason != "" {
			line += ", waits: " + d.Reason
		}
		p.Show("%s", line)
	}
}
