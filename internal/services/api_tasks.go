package services

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// MaxKill is how many tasks one request may name.
const MaxKill = 10_000

// tasksOf describes the tasks of the apps that keep lets through.
func (c *call) tasksOf(keep func(app string) bool, state func(*Instance) bool) []marathon.Task {
	machines := c.machines()
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := []marathon.Task{}
	for _, id := range sortedKeys(c.state.fleets) {
		if !keep(id) {
			continue
		}
		for _, i := range c.state.placedInstances(id) {
			if state(i) {
				out = append(out, c.state.task(i, machines))
			}
		}
	}
	return out
}

func anyState(*Instance) bool { return true }

// appTasks serves /v2/apps/{id}/tasks and /v2/apps/{group}/*/tasks.
func (c *call) appTasks(path []string) error {
	group := path[len(path)-1] == "*"
	id := join(path)
	if group {
		id = join(path[:len(path)-1])
	}
	mine := func(app string) bool { return app == id || group && marathon.Under(app, id) }
	c.mu.RLock()
	found := group || c.state.hasVersions(id)
	c.mu.RUnlock()
	if !found {
		return c.noApp(id)
	}
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		return c.answer(map[string]any{"tasks": c.tasksOf(mine, anyState)})
	case http.MethodDelete:
		host := c.r.URL.Query().Get("host")
		return c.kill(func(s *State) (refs []Ref, _ error) {
			for _, app := range sortedKeys(s.fleets) {
				if !mine(app) {
					continue
				}
				for _, i := range s.placedInstances(app) {
					if host == "" || host == "*" || i.Hostname == host {
						refs = append(refs, Ref{app, i.ID()})
					}
				}
			}
			return refs, nil
		}, func(killed []marathon.Task) any { return map[string]any{"tasks": killed} })
	}
	return errMethod
}

// deleteTask finds the task by its own id: some clients derive the app's from it and get that wrong. An app that does exist must
// be the task's.
func (c *call) deleteTask(app, id string) error {
	return c.kill(func(s *State) ([]Ref, error) {
		i := s.find(id)
		if i == nil || s.Apps[app] != nil && i.Owner != app {
			return nil, problemf(errdefs.ErrNotFound, "Task '%s' does not exist", id)
		}
		return []Ref{{i.Owner, i.ID()}}, nil
	}, func(killed []marathon.Task) any { return map[string]any{"task": killed[0]} })
}

// kill ends the instances that pick names: at once, so that new ones follow, or with scale=true by a deployment that wants as
// many fewer. describe makes the answer of the first kind.
func (c *call) kill(pick func(*State) ([]Ref, error), describe func([]marathon.Task) any) error {
	scale, wipe := c.flag("scale", false), c.flag("wipe", false)
	if scale && wipe {
		return problemf(errdefs.ErrInvalidArgument, "You cannot use scale and wipe at the same time.")
	}
	machines := c.machines()
	killed := []marathon.Task{}
	var d *Deployment
	err := c.change(func(t *tx) (err error) {
		refs, err := pick(t.s.state)
		if err != nil {
			return err
		}
		if scale {
			d, err = t.deploy(t.killAndScale(refs), c.flag("force", false))
			return err
		}
		for _, r := range refs {
			i, _ := t.s.state.fleets[r.App].instances.Get(r.Group) // it was just picked
			killed = append(killed, t.s.state.task(i, machines))
		}
		t.killNow(refs)
		return nil
	})
	if err != nil {
		return err
	}
	if scale {
		return c.started(http.StatusOK, d, nil)
	}
	return c.answer(describe(killed))
}

// allTasks serves /v2/tasks and /v2/tasks/delete.
func (c *call) allTasks(rest []string) error {
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
		wanted := slices.DeleteFunc(append(q["status"], q["status[]"]...), func(s string) bool { return s != "running" && s != "staging" })
		return c.answer(map[string]any{"tasks": c.tasksOf(func(string) bool { return true }, func(i *Instance) bool {
			return len(wanted) == 0 ||
				i.State() == kernel.Running && slices.Contains(wanted, "running") ||
				i.State() < kernel.Running && slices.Contains(wanted, "staging")
		})})
	})
}

func (c *call) deleteTasks() error {
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
			return problemf(errdefs.ErrInvalidArgument, "Invalid task id '%.200s'. [it is not of the form app.instance-UUID._app.N]", id)
		}
		ids = append(ids, id)
	}
	return c.kill(func(s *State) (refs []Ref, _ error) {
		seen := map[kernel.GroupID]bool{}
		for _, id := range ids {
			if i := s.find(id); i != nil && !seen[i.ID()] {
				seen[i.ID()] = true
				refs = append(refs, Ref{i.Owner, i.ID()})
			}
		}
		return refs, nil
	}, func(killed []marathon.Task) any { return map[string]any{"tasks": killed} })
}
