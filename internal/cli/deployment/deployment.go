package deployment

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/marathon"
)

// Command is the noun with its verbs.
func Command(e *command.Env) *cobra.Command {
	return command.Group("deployment", "Changes on their way", list(e), follow(e), rollback(e))
}

func list(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List running deployments", Args: command.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			all, b, err := marathon.Deployments(c.Context(), cl)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			if len(all) == 0 {
				fmt.Fprintln(e.Out, "Nothing is being deployed.")
				return nil
			}
			rows := [][]string{}
			for _, d := range all {
				step := fmt.Sprintf("%d/%d", d.CurrentStep, d.TotalSteps)
				rows = append(rows, []string{d.ID, strings.Join(d.AffectedApps, ","), step, d.Doing(), d.Reason})
			}
			e.Table([]string{"ID", "APPS", "STEP", "DOING", "WAITS FOR"}, rows)
			return nil
		}}
}

func follow(e *command.Env) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{Use: "follow ID", Short: "Follow a deployment to its end", Args: command.Exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			return marathon.Follow(c.Context(), e, cl, args[0], timeout)
		}}
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up after this long")
	return c
}

func rollback(e *command.Env) *cobra.Command {
	var ch marathon.Change
	return ch.Flags(&cobra.Command{Use: "rollback ID", Short: "Undo a running deployment", Args: command.Exactly(1),
		Long: "Starts a deployment that brings back what was before. With --force the deployment is only cancelled, and " +
			"what it did stays.",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			b, err := cl.Call(c.Context(), http.MethodDelete, marathon.API+"/deployments/"+args[0]+ch.Query(), nil)
			if err != nil {
				return err
			}
			if ch.Forced() {
				fmt.Fprintln(e.Out, "cancelled deployment", args[0])
				return nil
			}
			return ch.Finish(c.Context(), e, cl, b, "rolled back "+args[0])
		}})
}
