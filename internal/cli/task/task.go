package task

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/marathon"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kernel"
)

// Command is the noun with its verbs.
func Command(e *command.Env) *cobra.Command {
	return command.Group("task", "Running containers", list(e), show(e), log(e), exec(e))
}

func list(e *command.Env) *cobra.Command {
	var ids bool
	list := &cobra.Command{Use: "list [APP]", Short: "List tasks", Args: cobra.MaximumNArgs(1), ValidArgsFunction: marathon.CompleteApps(e),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			var answer struct {
				Tasks []marathon.Task `json:"tasks"`
			}
			path := marathon.API + "/tasks"
			if len(args) == 1 {
				path = marathon.AppPath(args[0]) + "/tasks"
			}
			b, err := cl.Get(c.Context(), path, &answer)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			switch {
			case ids:
				for _, t := range answer.Tasks {
					fmt.Fprintln(e.Out, t.ID)
				}
			case len(answer.Tasks) == 0:
				fmt.Fprintln(e.Out, "No tasks.")
			default:
				marathon.PrintTasks(e, answer.Tasks)
			}
			return nil
		}}
	list.Flags().BoolVar(&ids, "ids", false, "print only the ids, for scripts")
	return list
}

// find resolves a task by its id, by a part of it that only one task has, or by its app: then it is one of the app's.
func find(ctx context.Context, cl *client.Client, part string) (marathon.Task, error) {
	all, err := marathon.Tasks(ctx, cl)
	if err != nil {
		return marathon.Task{}, err
	}
	var hits []marathon.Task
	for _, t := range all {
		if t.ID == part {
			return t, nil
		}
		if t.AppID == "/"+strings.Trim(part, "/") && t.State == "TASK_RUNNING" {
			return t, nil
		}
		if strings.Contains(t.ID, part) {
			hits = append(hits, t)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		return marathon.Task{}, &exit.Error{Code: exit.NotFound, Message: fmt.Sprintf("no running task matches %q", part), Next: "marina task list"}
	}
	return marathon.Task{}, exit.Usage("marina task list", "%d tasks match %q: give more of the id", len(hits), part)
}

func show(e *command.Env) *cobra.Command {
	var pid bool
	show := &cobra.Command{Use: "show TASK", Short: "Show one task", Args: command.Exactly(1), ValidArgsFunction: completeTasks(e),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			t, err := find(c.Context(), cl, args[0])
			if err != nil {
				return err
			}
			b, err := cl.Call(c.Context(), http.MethodGet, "/tasks/v1/"+url.PathEscape(t.ID), nil)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			var known struct {
				Status kernel.Status `json:"status"`
			}
			if err := client.Unmarshal(b, &known); err != nil {
				return err
			}
			if pid {
				fmt.Fprintln(e.Out, known.Status.PID)
				return nil
			}
			e.Fields("task", t.ID, "app", t.AppID, "version", t.Version, "state", t.State, "healthy", t.Health(), "machine", t.Host,
				"ports", fmt.Sprint(t.Ports), "process", strconv.Itoa(known.Status.PID), "says", known.Status.Message)
			for _, ip := range t.IPAddresses {
				e.Fields("address", ip.IPAddress)
			}
			if !t.StartedAt.IsZero() {
				e.Fields("started", t.StartedAt.Local().Format(time.DateTime)+" ("+output.Ago(t.StartedAt)+" ago)")
			}
			return nil
		}}
	show.Flags().BoolVar(&pid, "pid", false, "print only its process on the machine, for scripts")
	return show
}

func log(e *command.Env) *cobra.Command {
	var follow, stderr bool
	var lines int
	log := &cobra.Command{Use: "log TASK", Short: "Print what a task wrote", Args: command.Exactly(1), ValidArgsFunction: completeTasks(e),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			id := args[0]
			if t, err := find(c.Context(), cl, id); err == nil {
				id = t.ID // an ended task's log is asked for by its whole id
			} else if !strings.Contains(id, ".instance-") {
				return err
			}
			stream := "stdout"
			if stderr {
				stream = "stderr"
			}
			path := "/tasks/v1/" + url.PathEscape(id) + "/logs/" + stream
			var next int64
			if lines > 0 {
				if next, err = lastLines(c.Context(), e, cl, path, lines); err != nil || !follow {
					return err
				}
			}
			resp, err := cl.Read(c.Context(), fmt.Sprintf("%s?offset=%d&follow=%t", path, next, follow))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(e.Out, resp.Body)
			if c.Context().Err() != nil {
				return nil // Ctrl-C ends following
			}
			return err
		}}
	log.Flags().BoolVarP(&follow, "follow", "f", false, "go on as it writes more")
	log.Flags().BoolVar(&stderr, "stderr", false, "standard error instead of standard output")
	log.Flags().IntVarP(&lines, "lines", "n", 0, "only the last lines")
	return log
}

// lastBytes is how far from its end a log is searched for its last lines.
const lastBytes = 1 << 20

// lastLines prints the last lines of a log and returns the offset after them.
func lastLines(ctx context.Context, e *command.Env, cl *client.Client, path string, n int) (int64, error) {
	resp, err := cl.Read(ctx, fmt.Sprintf("%s?offset=-%d", path, lastBytes))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 2*lastBytes))
	if err != nil {
		return 0, err
	}
	at, err := strconv.ParseInt(resp.Header.Get("Marina-Offset"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the answer is not what this version expects: %w", err)
	}
	from := len(b)
	for ; n > 0 && from > 0; n-- {
		from = bytes.LastIndexByte(b[:from-1], '\n') + 1
	}
	_, err = e.Out.Write(b[from:])
	return at + int64(len(b)), err
}

// completeTasks completes one task's id.
func completeTasks(e *command.Env) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return e.Complete(c, func(ctx context.Context, cl *client.Client) (ids []string) {
			all, err := marathon.Tasks(ctx, cl)
			if err != nil {
				return nil
			}
			for _, t := range all {
				ids = append(ids, t.ID)
			}
			return ids
		})
	}
}
