package app

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/marathon"
	"github.com/marinaos/marina/internal/cli/output"
)

func show(e *command.Env) *cobra.Command {
	var address, outside bool
	c := &cobra.Command{Use: "show ID", Short: "Show one service, its tasks and where it is reached",
		Args:              command.Exactly(1),
		ValidArgsFunction: marathon.CompleteApps(e), RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			a, b, err := marathon.GetApp(c.Context(), cl, args[0])
			switch {
			case err != nil:
				return err
			case e.JSON:
				return e.Raw(b)
			case address || outside:
				return printAddress(c.Context(), e, cl, a.ID, outside)
			}
			printApp(c.Context(), e, cl, &a)
			return nil
		}}
	c.Flags().BoolVar(&address, "address", false, "print only its first virtual address, for scripts")
	c.Flags().BoolVar(&outside, "outside", false, "print only the URL that other computers reach it by, for scripts")
	return c
}

// printApp shows an app to people.
func printApp(ctx context.Context, e *command.Env, cl *client.Client, a *marathon.App) {
	e.Fields("id", a.ID, "runs", a.Runs(), "instances", strconv.Itoa(a.Instances),
		"running", strconv.Itoa(a.TasksRunning), "healthy", a.Health(), "cpus", output.Number(a.CPUs), "mem",
		output.Number(a.Mem)+" MiB",
		"version", a.Version)
	for _, d := range a.Deployments {
		e.Fields("deployment", d.ID)
	}
	if f := a.LastFailure; f != nil {
		e.Fields("last failure", fmt.Sprintf("%s %s ago: %s %s", f.TaskID, output.Ago(f.Timestamp), f.State, f.Message))
	}
	printWaiting(ctx, e, cl, a.ID)
	printFrontends(ctx, e, cl, a.ID)
	if len(a.Tasks) > 0 {
		fmt.Fprintln(e.Out)
		marathon.PrintTasks(e, a.Tasks)
	}
}

// printWaiting says how many instances of an app have no room, and why. Nothing when that cannot be had: it is an
// addition.
func printWaiting(ctx context.Context, e *command.Env, cl *client.Client, id string) {
	var answer struct {
		Queue []struct {
			App struct {
				ID string `json:"id"`
			} `json:"app"`
			Count   int    `json:"count"`
			Refusal string `json:"refusal"`
			Hold    string `json:"hold"`
		} `json:"queue"`
	}
	if _, err := cl.Get(ctx, marathon.API+"/queue", &answer); err != nil {
		return
	}
	for _, q := range answer.Queue {
		if q.App.ID != id || q.Refusal == "" {
			continue
		}
		text := fmt.Sprintf("%d instances: %s", q.Count, q.Refusal)
		if q.Hold != "" {
			text += "; room is kept for one on " + q.Hold
		}
		e.Fields("waiting", text)
	}
}

// frontend is one way in to an app: GET /net/v1/vips, DC/OS's shape and what Marina adds to it.
type frontend struct {
	VIP      string `json:"vip"`      // "hello.marathon.l4lb.thisdcos.directory:80"
	Protocol string `json:"protocol"` //
	Address  string `json:"address"`  // "198.18.3.7:80"
	Owner    string `json:"owner"`    // "/hello"
	Publish  []struct {
		URL string `json:"url"` // "http://10.0.0.5:10000"
	} `json:"published"`
}

// frontends are those of one app.
func frontends(ctx context.Context, cl *client.Client, id string) (own []frontend, err error) {
	var all []frontend
	if _, err := cl.Get(ctx, "/net/v1/vips", &all); err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.Owner == id {
			own = append(own, f)
		}
	}
	return own, nil
}

// printFrontends says how an app is reached; a datacenter that cannot tell is no error.
func printFrontends(ctx context.Context, e *command.Env, cl *client.Client, id string) {
	own, err := frontends(ctx, cl, id)
	if err != nil {
		return
	}
	for _, f := range own {
		e.Fields("name", f.VIP, "address", f.Address+" ("+f.Protocol+")")
		for _, p := range f.Publish {
			e.Fields("from outside", p.URL)
		}
	}
}

// printAddress prints one way in, for scripts.
func printAddress(ctx context.Context, e *command.Env, cl *client.Client, id string, outside bool) error {
	own, err := frontends(ctx, cl, id)
	if err != nil {
		return err
	}
	for _, f := range own {
		switch {
		case outside && len(f.Publish) > 0:
			fmt.Fprintln(e.Out, f.Publish[0].URL)
			return nil
		case !outside && f.Address != "":
			fmt.Fprintln(e.Out, f.Address)
			return nil
		}
	}
	if outside {
		return &exit.Error{Code: exit.NotFound, Message: id + " is not published",
			Next: `the label "HAPROXY_GROUP": "external" in its definition`}
	}
	return &exit.Error{Code: exit.NotFound, Message: id + " has no virtual address",
		Next: `a label "VIP_0": "/name:80" on one of its ports`}
}
