package agent

import (
	"github.com/marinaos/marina/internal/agent/api"
	"github.com/marinaos/marina/internal/kernel"
)

// sight is a task as it was told last, and whose it is.
type sight struct {
	api.Task
	group *instance
	index int // in its instance
}

func (g *instance) sightLocked(i int) sight {
	s := sight{Task: api.Task{Container: g.containers[i]}, group: g, index: i}
	if i < len(g.shown) {
		s.Status = g.shown[i]
	}
	return s
}

// tasks are those of all instances there are, or those that are up.
func (a *Agent) tasks(up bool) map[kernel.TaskID]sight {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[kernel.TaskID]sight{}
	for _, g := range a.instances {
		for i, t := range g.tasks {
			if s := g.sightLocked(i); !up || s.Up() {
				out[t] = s
			}
		}
	}
	return out
}

// up are the tasks that are up.
func (a *Agent) up() map[kernel.TaskID]api.Task {
	out := map[kernel.TaskID]api.Task{}
	for id, s := range a.tasks(true) {
		out[id] = s.Task
	}
	return out
}

// task is one of those there are; ok is false if no instance here has it.
func (a *Agent) task(id kernel.TaskID) (t api.Task, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range a.instances {
		for i, t := range g.tasks {
			if t == id {
				return g.sightLocked(i).Task, true
			}
		}
	}
	return api.Task{}, false
}

// sizeOf returns a task's present size.
func (a *Agent) sizeOf(s sight) kernel.Size {
	a.mu.Lock()
	defer a.mu.Unlock()
	return (&kernel.Assignment{Sizes: s.group.sizes}).Size(s.group.spec, s.index)
}
