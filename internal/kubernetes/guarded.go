package kubernetes

import (
	"sync"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/scheduler"
)

// guarded keeps the state of all clusters under its lock. The owner goroutine is the only writer, and reads it without
// the lock; everybody else reads values of their own that were made under it.
type guarded struct {
	agents func() []kernel.AgentView // of the kernel, for releases of clusters that have yet to tell theirs

	mu    sync.RWMutex
	state *core.State   // guarded by mu
	moved chan struct{} // closed and replaced when something changed; guarded by mu
}

// write calls f under the lock. The owner goroutine calls it.
func (g *guarded) write(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// then has f take a change in once it is durable.
func (g *guarded) then(change *scheduler.Change, f func()) { change.Then(func() { g.write(f) }) }

// announce wakes those who wait for something else to see.
func (g *guarded) announce() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.moved)
	g.moved = make(chan struct{})
}

// read calls f with a cluster, under the lock. One that is not there is an errdefs.ErrNotFound.
func (g *guarded) read(name string, f func(*core.Cluster)) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	c, err := g.state.Find(name)
	if err == nil {
		f(c)
	}
	return err
}

// living is read of a cluster that can be changed.
func (g *guarded) living(name string, f func(*core.Cluster)) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	c, err := g.state.Living(name)
	if err == nil {
		f(c)
	}
	return err
}

// List shows all clusters by name.
func (g *guarded) List() []View {
	agents := sync.OnceValue(g.agents)
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.state.List(agents)
}

// Get shows one cluster; changed is closed when there may be something else to see.
func (g *guarded) Get(name string) (v View, changed <-chan struct{}, err error) {
	err = g.read(name, func(c *core.Cluster) { v, changed = c.View(g.agents), g.moved })
	return v, changed, err
}

// Events lists what happened to a cluster, oldest first.
func (g *guarded) Events(name string) (out []Event, err error) {
	err = g.read(name, func(c *core.Cluster) { out = c.Events() })
	return out, err
}

// Alarms lists the clusters that are parked, by name.
func (g *guarded) Alarms() []kernel.Alarm {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.state.Alarms()
}
