package api

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/services"
	"github.com/marinaos/marina/internal/services/core"
)

// MaxKill bounds the tasks that one request names.
const MaxKill = 10_000

// tasks answers about tasks, one of each instance.
type tasks struct{ *call }

// appTasks serves /v2/apps/{id}/tasks and /v2/apps/{group}/*/tasks.
func (c tasks) appTasks(path []string) error {
	f := core.Filter{App: join(path)}
	if n := len(path) - 1; path[n] == "*" {
		f = core.Filter{Below: join(path[:n])}
	} else if _, err := c.services.Versions(f.App); err != nil {
		return err
	}
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		return c.answer(map[string]any{"tasks": c.rights.tasks(f)})
	case http.MethodDelete:
		if host := c.r.URL.Query().Get("host"); host != "*" {
			f.Host = host
		}
		return c.kill(services.Victims{Filter: f},
			func(killed []marathon.Task) any { return map[string]any{"tasks": killed} })
	}
	return errMethod
}

// deleteTask finds the task by its own id: some clients derive the app's from it and get that wrong. An app that does
// exist must be the task's.
func (c tasks) deleteTask(app, id string) error {
	return c.kill(services.Victims{Filter: core.Filter{App: app}, Tasks: []string{id}, Must: true},
		func(killed []marathon.Task) any { return map[string]any{"task": killed[0]} })
}

// kill ends instances: at once, so that new ones follow, or with scale=true by a deployment that wants as many fewer.
// describe makes the answer of the first kind.
func (c tasks) kill(v services.Victims, describe func([]marathon.Task) any) error {
	if err := c.rights.mayEnd(v); err != nil {
		return err
	}
	scale, wipe := c.flag("scale", false), c.flag("wipe", false)
	if scale && wipe {
		return marathon.Problemf(errdefs.ErrInvalidArgument, "You cannot use scale and wipe at the same time.")
	}
	if scale {
		d, err := c.services.KillAndScale(c.r.Context(), v, c.flag("force", false))
		if err != nil {
			return err
		}
		return c.started(http.StatusOK, d, nil)
	}
	killed, err := c.services.Kill(c.r.Context(), v)
	if err != nil {
		return err
	}
	return c.answer(describe(killed))
}

// route routes /v2/tasks and /v2/tasks/delete.
func (c tasks) route(rest []string) error {
	if len(rest) == 1 && rest[0] == "delete" {
		if c.r.Method != http.MethodPost {
			return errMethod
		}
		return c.deleteTasks()
	}
	if len(rest) > 0 {
		return errNoRoute
	}
	return c.get(func() error {
		q := c.r.URL.Query()
		wanted := append(q["status"], q["status[]"]...)
		return c.answer(map[string]any{"tasks": c.rights.tasks(core.Filter{
			Running: slices.Contains(wanted, "running"), Staging: slices.Contains(wanted, "staging")})})
	})
}

func (c tasks) deleteTasks() error {
	v, err := c.object()
	if err != nil {
		return err
	}
	list, ok := v["ids"].([]any)
	if !ok || len(list) > MaxKill {
		return marathon.ShapeError(marathon.Bad("/ids", fmt.Sprintf("expected a list of at most %d task ids", MaxKill)))
	}
	ids := []string{}
	for i, e := range list {
		id, ok := e.(string)
		if !ok {
			return marathon.ShapeError(marathon.Bad(fmt.Sprintf("/ids(%d)", i), "error.expected.jsstring"))
		}
		if _, ok := marathon.GroupOfTask(id); !ok {
			return marathon.Problemf(errdefs.ErrInvalidArgument,
				"Invalid task id '%.200s'. [it is not of the form app.instance-UUID._app.N]", id)
		}
		ids = append(ids, id)
	}
	return c.kill(services.Victims{Tasks: ids},
		func(killed []marathon.Task) any { return map[string]any{"tasks": killed} })
}
