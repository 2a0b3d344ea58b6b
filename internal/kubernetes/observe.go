package kubernetes

import (
	"context"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/kubernetes/steward"
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

// hear has the owner goroutine take in what a steward says, unless its control plane is another by then.
func (k *Clusters) hear(ctx context.Context, w steward.Word) {
	k.report(ctx, w.Name, w.ID, func(c *core.Cluster, now time.Time) {
		if k.stewards.Present(w) {
			c.Hear(w.Status, w.Err, now)
		}
	})
}

// look takes in the kernel's reservations, queue and machines.
func (k *Clusters) look() {
	reservations, queue := k.cfg.Kernel.Reservations(Framework), k.cfg.Kernel.Queue(Framework)
	agents := k.cfg.Kernel.Agents()
	k.write(func() { k.state.ObserveKernel(reservations, queue, agents) })
	k.stale = false
}
