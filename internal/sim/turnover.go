package sim

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/sim/machine"
	"github.com/marinaos/marina/internal/sim/rare"
	"github.com/marinaos/marina/internal/store"
)

// turnover is machines that leave for good, and others that come in their place.
type turnover struct {
	w        *World
	removals int
}

// stay is the number of machines that have not been removed.
func (v *turnover) stay() int { return len(v.w.agents) - v.removals }

// brakeHolds is a brake that counts machines that were removed. Planted.
func (v *turnover) brakeHolds() bool { return (v.w.gone()+v.removals)*100 > 34*len(v.w.agents) }

// retire has somebody take a machine out of the datacenter: one that never comes back, if there is one, else any.
func (v *turnover) retire(a *machine.Agent) {
	w := v.w
	m := w.leader()
	away := func(a *machine.Agent) bool { return a.Gone && !a.Removed }
	if gone := slices.IndexFunc(w.agents, away); gone >= 0 && w.Dice.Chance(0.15) {
		a = w.agents[gone]
	}
	if m == nil || a.Removed || v.stay() < len(w.agents[:w.cfg.Agents])-2 {
		return
	}
	force := w.Dice.Chance(0.5)
	w.Note("user", "removes machine", a.Name, 0, 0)
	m.request(func(r event.RequestID) event.Event {
		return event.RemoveAgent{Request: r, Agent: a.ID, Force: force}
	}, func(r brain.Reply) {
		switch {
		case r.Err == nil:
			w.judge.Hold(w.judge.members.Answered(a.ID))
		case errdefs.IsFailedPrecondition(r.Err) && !force:
			w.Reach(rare.RemovalRefused)
		case !errdefs.IsNotFound(r.Err): // it has yet to join, or was removed before
			w.Fail("removal of %s: %v", a.Name, r.Err)
		}
	})
}

// left takes that a machine is no member any more. It runs on, and dials, until somebody switches it off; another
// comes in its place.
func (v *turnover) left(id kernel.AgentID) {
	w := v.w
	for _, a := range w.agents {
		if a.ID != id || a.Removed {
			continue
		}
		w.Reach(rare.MachineRemoved)
		a.Removed = true
		v.removals++
		if a.Link != nil {
			w.Reach(rare.RemovedWhileConnected)
		}
		w.After(w.Slow(w.Dice.Between(20*time.Second, 200*time.Second)), &w.nature, func() {
			if a.Gone = true; a.On {
				a.PowerOff()
			}
		})
		another := machine.New(&w.Env, len(w.agents))
		w.agents = append(w.agents, another)
		w.After(w.Slow(w.Dice.Between(time.Second, 30*time.Second)), &w.nature, another.PowerOn)
		return
	}
}

// spoil lets the bugs of removing machines change the rows that are written.
func (v *turnover) spoil(ops []store.Op) []store.Op {
	w := v.w
	under := func(op *store.Op, table string) bool { return strings.HasPrefix(op.Key, store.Prefix("kernel", table)) }
	switch {
	case w.Plant.On(bug.LoseRemoval):
		return slices.DeleteFunc(ops, func(op store.Op) bool {
			return op.Kind == store.OpDelete && under(&op, "agents") || under(&op, "removed")
		})
	case w.Plant.On(bug.SubnetKept) && v.removals > 0:
		for i := range ops {
			if under(&ops[i], "agents") && ops[i].Kind == store.OpPut {
				ops[i].Value = changed(ops[i].Value, "subnet", netip.Prefix{})
			}
		}
	case w.Plant.On(bug.ReservationForgotten):
		for i := range ops {
			if under(&ops[i], "claims") && ops[i].Kind == store.OpPut {
				ops[i].Value = changed(ops[i].Value, "lost", false)
			}
		}
	}
	return ops
}

func (w *World) gone() (n int) {
	for _, a := range w.agents {
		if a.Gone && !a.Removed {
			n++
		}
	}
	return n
}
