package app

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/marathon"
	"github.com/marinaos/marina/internal/cli/output"
)

// Command is the noun with its verbs.
func Command(e *command.Env) *cobra.Command {
	return command.Group("app", "Services: what should run, and how many of it", list(e), show(e), add(e), update(e),
		scale(e), restart(e), remove(e), wait(e))
}

func list(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the services", Args: command.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			apps, b, err := marathon.Apps(c.Context(), cl)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			if len(apps) == 0 {
				fmt.Fprintln(e.Out, "No services yet. Add one: marina app add examples/hello/app.json")
				return nil
			}
			rows := [][]string{}
			for _, a := range apps {
				state := ""
				if len(a.Deployments) > 0 {
					state = "deploying"
				}
				rows = append(rows, []string{a.ID, fmt.Sprintf("%d/%d", a.TasksRunning, a.Instances), a.Health(),
					output.Number(a.CPUs), output.Number(a.Mem), state, a.Runs()})
			}
			e.Table([]string{"ID", "RUNNING", "HEALTHY", "CPUS", "MEM", "STATE", "RUNS"}, rows)
			return nil
		}}
}

// wait follows an app until it is settled.
func wait(e *command.Env) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{Use: "wait ID", Short: "Wait until a service is as it should be", Args: command.Exactly(1),
		ValidArgsFunction: marathon.CompleteApps(e), RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			return waitForApp(ctx, e, cl, args[0])
		}}
	c.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "give up after this long")
	return c
}

const (
	// settled is for how long a service has to be as it should be before wait believes it: what just died is noticed by
	// then.
	settled = 600 * time.Millisecond
	// pace is the pause between two looks of wait.
	pace = 100 * time.Millisecond
)

func waitForApp(ctx context.Context, e *command.Env, cl *client.Client, id string) error {
	p := e.Progress()
	defer p.Done()
	var since time.Time // it is as it should be
	for {
		a, _, err := marathon.GetApp(ctx, cl, id)
		if err != nil && ctx.Err() == nil {
			return err
		}
		p.Show("%s [%s] %d of %d running %s", id, output.Bar(a.TasksRunning, a.Instances), a.TasksRunning,
			a.Instances, a.Health())
		switch {
		case !a.Settled():
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > settled:
			return nil
		}
		select {
		case <-ctx.Done():
			return &exit.Error{Code: exit.Timeout, Message: id + " is not as it should be yet", Next: "marina app show " + id}
		case <-time.After(pace):
		}
	}
}
