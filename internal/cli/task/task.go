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
	list := &cobra.Command{Use: "list [APP]", Short: "List tasks", Args: command.AtMost(1),
		ValidArgsFunction: marathon.CompleteApps(e),
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

func show(e *command.Env) *cobra.Command {
	var pid bool
	show := &cobra.Command{Use: "show TASK", Short: "Show one task", Args: command.Exactly(1),
		ValidArgsFunction: completeTasks(e),
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
			e.Fields("task", t.ID, "app", t.AppID, "version", t.Version, "state", t.State, "healthy", t.Health(),
				"machine", t.Host,
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
	log := &cobra.Command{Use: "log TASK", Short: "Print what a task wrote", Args: command.Exactly(1),
		ValidArgsFunction: completeTasks(e),
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

// lastBytes bounds the end of a log that is searched for its last lines.
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
