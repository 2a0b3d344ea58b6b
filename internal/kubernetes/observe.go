package kubernetes

import (
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/core"
)

// observe takes in what the kernel tells.
func (k *Clusters) observe(c kernel.Changes) {
	k.stale = true
	k.write(func() { k.state.Observe(c) })
	for _, r := range c.Instances {
		i := r.Instance()
		if name, member, ok := core.MemberOf(i.ID); ok {
			_ = k.fenced(name, func() error { k.observeOne(name, member, i); return nil })
		}
	}
}

func (k *Clusters) observeOne(name, member string, i kernel.Instance) {
	known := false
	k.write(func() { known = k.state.ObserveInstance(name, member, i, k.cfg.Now()) })
	if !known && !i.Removed && i.Goal == kernel.GoalRun { // of a cluster that is none: its row was lost
		k.cfg.Log.Error("instance of an unknown cluster", "cluster", name, "instance", i.ID)
	}
}

// look takes in the kernel's reservations, queue and machines.
func (k *Clusters) look() {
	reservations, queue, agents := k.cfg.Kernel.Reservations(Framework), k.cfg.Kernel.Queue(Framework), k.cfg.Kernel.Agents()
	k.write(func() { k.state.ObserveKernel(reservations, queue, agents) })
	k.stale = false
}
