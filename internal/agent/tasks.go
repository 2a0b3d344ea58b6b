package agent

import (
	"github.com/marinaos/marina/internal/kernel"
)

// sight is a task as it was told last.
type sight struct {
	group     *group
	index     int // in its group
	container string
	status    kernel.Status // zero before anything was told
}

// up reports whether its process was told to run, and not to have ended.
func (s *sight) up() bool {
	return s.status.State == kernel.Running || s.status.State == kernel.Killing
}

// tasks are those of all groups there are, or those that are up.
func (a *Agent) tasks(up bool) map[kernel.TaskID]sight {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[kernel.TaskID]sight{}
	for _, g := range a.groups {
		for i, t := range g.tasks {
			if s := g.sightLocked(i); !up || s.up() {
				out[t] = s
			}
		}
	}
	return out
}

// task is one of those; ok is false if no group here has it.
func (a *Agent) task(id kernel.TaskID) (s sight, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range a.groups {
		for i, t := range g.tasks {
			if t == id {
				return g.sightLocked(i), true
			}
		}
	}
	return sight{}, false
}

func (g *group) sightLocked(i int) sight {
	s := sight{group: g, index: i, container: g.containers[i]}
	if i < len(g.shown) {
		s.status = g.shown[i]
	}
	return s
}

// sizeOf is what a task may use now.
func (a *Agent) sizeOf(s sight) kernel.Size {
	a.mu.Lock()
	defer a.mu.Unlock()
	return (&kernel.Group{Sizes: s.group.sizes}).Size(s.group.spec, s.index)
}
