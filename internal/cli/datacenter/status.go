package datacenter

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/marathon"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kernel"
)

// health lists the state of the datacenter's parts: GET /system/health/v1.
type health struct {
	Units []struct {
		ID     string `json:"id"`
		Name   string `json:"name"`
		Health int    `json:"health"` // 0 is well
		Output string `json:"output"` // what is wrong; of a scheduler its alarms, one a line
	} `json:"units"`
}

// status is `marina status`.
func status(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Tell how the datacenter is", Args: command.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			var h health
			b, err := cl.Get(c.Context(), "/system/health/v1", &h)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			fmt.Fprintln(e.Out, cl.URL)
			sick := printUnits(e, &h)
			printCounts(c.Context(), e, cl)
			if sick > 0 {
				return &exit.Error{Code: exit.Failed, Message: fmt.Sprintf("%d parts of the datacenter are not well", sick),
					Next: "less " + daemonLog(e.State)}
			}
			return nil
		}}
}

// maxSays bounds a unit's message in the table; what is longer, or has several lines, stands below it.
const maxSays = 52

// printUnits prints how each unit is and returns how many are not well. The table fits 80 columns; what does not fit
// into it follows, one line for each alarm, with what to do.
func printUnits(e *command.Env, h *health) (sick int) {
	var rows [][]string
	var below []string
	for _, u := range h.Units {
		state, name := "well", cmp.Or(u.Name, u.ID)
		if u.Health != 0 {
			state = "NOT WELL"
			sick++
		}
		says := strings.TrimSpace(u.Output)
		if strings.Contains(says, "\n") || len([]rune(says)) > maxSays {
			for line := range strings.Lines(says) {
				below = append(below, name+": "+strings.TrimSpace(line))
			}
			says = "see below"
		}
		rows = append(rows, []string{name, state, says})
	}
	e.Fitted([]string{"UNIT", "STATE", "SAYS"}, rows, 0)
	if len(below) > 0 {
		fmt.Fprintln(e.Out)
	}
	for _, line := range below {
		fmt.Fprintln(e.Out, output.Clean(line))
	}
	return sick
}

// printCounts prints what runs, in one line.
func printCounts(ctx context.Context, e *command.Env, cl *client.Client) {
	apps, _, err := marathon.Apps(ctx, cl)
	if err != nil {
		return
	}
	var machines struct {
		Machines []kernel.AgentView `json:"machines"`
	}
	if _, err := cl.Get(ctx, "/machines/v1", &machines); err != nil {
		return
	}
	running, want := 0, 0
	for _, a := range apps {
		running, want = running+a.TasksRunning, want+a.Instances
	}
	var used, total kernel.Resources
	for _, m := range machines.Machines {
		used, total = used.Add(m.Used), total.Add(m.Total)
	}
	fmt.Fprintf(e.Out, "\n%d machines, %d services, %d of %d tasks running; promised %s of %s\n",
		len(machines.Machines), len(apps),
		running, want, used, total)
}
