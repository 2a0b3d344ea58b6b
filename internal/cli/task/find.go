package task

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/marathon"
)

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
		return marathon.Task{}, &exit.Error{Code: exit.NotFound, Message: fmt.Sprintf("no running task matches %q", part),
			Next: "marina task list"}
	}
	return marathon.Task{}, exit.Usage("marina task list", "%d tasks match %q: give more of the id", len(hits), part)
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
