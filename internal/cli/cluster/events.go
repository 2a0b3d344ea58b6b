package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kubernetes"
)

func events(e *command.Env) *cobra.Command {
	var follow bool
	c := &cobra.Command{Use: "events NAME", Short: "Tell what happened to a cluster", Args: command.Exactly(1),
		ValidArgsFunction: kube.CompleteOne(e),
		RunE: func(c *cobra.Command, args []string) error {
			if err := kube.CheckName(args[0]); err != nil {
				return err
			}
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			if follow {
				return followClusterEvents(c.Context(), e, cl, args[0])
			}
			all, b, err := kube.Events(c.Context(), cl, args[0])
			switch {
			case err != nil:
				return err
			case e.JSON:
				return e.Raw(b)
			case len(all) == 0:
				fmt.Fprintln(e.Out, "Nothing is remembered; events are kept until the datacenter's daemon restarts.")
			}
			return printEvents(e, all)
		}}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as more happens")
	return c
}

// printEvents writes one line for each event; with --json one document a line.
func printEvents(e *command.Env, all []kubernetes.Event) error {
	for _, ev := range all {
		if e.JSON {
			if err := json.NewEncoder(e.Out).Encode(ev); err != nil {
				return err
			}
			continue
		}
		text := output.Clean(strings.ReplaceAll(ev.Message, "\n", " "))
		fmt.Fprintf(e.Out, "%s  %s\n", ev.Time.Local().Format(time.DateTime), text)
	}
	return nil
}

// followClusterEvents prints events as they come, until it is interrupted or the cluster is gone.
func followClusterEvents(ctx context.Context, e *command.Env, cl *client.Client, name string) error {
	var last kubernetes.Event
	for first := true; ; first = false {
		all, _, err := kube.Events(ctx, cl, name)
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C ends following
		case err == nil:
			if all = after(all, last); len(all) > 0 {
				last = all[len(all)-1]
			}
			if err := printEvents(e, all); err != nil {
				return err
			}
		case !first && exit.Is(err, exit.NotFound):
			return nil // it is gone, as its last event says
		case first || !exit.Is(err, exit.Unreachable): // who does not answer now may do so soon
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pace):
		}
	}
}

// after is the events that follow the last one that was printed; a new leader of the datacenter remembers none of the
// old ones.
func after(all []kubernetes.Event, last kubernetes.Event) []kubernetes.Event {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Time.Equal(last.Time) && all[i].Message == last.Message {
			return all[i+1:]
		}
	}
	return slices.DeleteFunc(all, func(e kubernetes.Event) bool { return e.Time.Before(last.Time) })
}
