package core

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/queue"
)

// What waits gets a machine in two more ways than by others ending. Instances of a lower priority are preempted: asked
// to stop for it. And a machine is kept for what waits for long (backfill), or small instances that fit into every gap
// would make it wait for ever. In both cases the machine is kept until it is enough, but not for ever.

// preemptor finds what makes way for an entry, and a machine to keep for it.
type preemptor struct{ *tables }

// attend looks, for what waits and is due, for something to preempt or a machine to keep.
func (t preemptor) attend() {
	for _, e := range t.queue.Due(t.now, attendMost, attendEvery/attendMost) {
		t.queue.AttendTo(e, t.attendTo(e))
	}
}

// attendTo looks for a machine for one instance of an entry, and says when to look again.
func (t preemptor) attendTo(e *queue.Entry) time.Time {
	if b := e.Backfill(); b != nil {
		if t.now.Before(b.Until) {
			return b.Until
		}
		t.endBackfill(e)
		t.step.capacityAppeared()
		return t.now.Add(t.cfg.BackfillFor)
	}
	if t.mayPreempt(e) && t.preempt(e) {
		return e.Backfill().Until
	}
	long := e.Since.Add(t.cfg.BackfillAfter)
	most := max(1, len(t.fleet.order)*t.cfg.BackfillPercent/100)
	switch due := !t.now.Before(long); {
	case due && e.Unfit() && e.Spec.Reservation == nil && t.queue.LongBackfills() < most:
		if id, ok := t.capacity.pool.Nearest(e.Spec.Request); ok {
			t.keep(e, &queue.Backfill{Agent: id, Until: t.now.Add(t.cfg.BackfillFor), Long: true})
			return e.Backfill().Until
		}
		return t.now.Add(t.cfg.BackfillFor)
	case t.mayPreempt(e):
		return t.now.Add(attendEvery)
	case due:
		return t.now.Add(t.cfg.BackfillAfter)
	}
	return long
}

// mayPreempt reports whether there can be anything that makes way for an entry.
func (t *tables) mayPreempt(e *queue.Entry) bool {
	return e.Spec.Priority > 0 || t.capacity.preemptible > 0
}

// yields reports whether an instance makes way for an entry: it has a lower priority, and is of the same top-level role
// or preemptible. An owner's own versions are its scheduler's affair, and what has a
// reservation makes way only if it is preemptible.
func (i *instance) yields(e *queue.Entry) bool {
	of, to := i.spec, e.Spec
	if of.Owner == to.Owner && of.Framework == to.Framework || of.Reservation != nil && !of.Preemptible() {
		return false
	}
	mayTake := of.Preemptible() && !to.Preemptible() || kernel.Tenant(of.Role) == kernel.Tenant(to.Role)
	return mayTake && of.Priority < to.Priority
}

// preempt stops instances that make way for one instance of an entry, if that is enough for it, and keeps their machine
// for it.
func (t preemptor) preempt(e *queue.Entry) bool {
	if c := t.reservations.Of(&e.Spec.Spec); c != nil {
		if ok, _ := c.Available(); !ok {
			return false
		}
	}
	victims, ok := t.overLimit(e)
	if !ok {
		return false
	}
	b := &queue.Backfill{Until: t.now.Add(t.cfg.BackfillFor), Charged: len(victims) > 0}
	if id, fits := t.capacity.pool.Best(e.Spec.Request); fits && e.Spec.Reservation == nil {
		if len(victims) == 0 {
			t.step.retry = true // it fits already
			return false
		}
		b.Agent = id
	} else if a, more, ok := t.onSomeMachine(e, victims); ok {
		b.Agent, victims = a.info.ID, append(victims, more...)
	} else {
		return false
	}
	for _, v := range victims {
		t.stop(v, fmt.Sprintf("it makes way for %s, which has priority %d, this %d", e.Spec.Owner, e.Spec.Priority,
			v.spec.Priority))
	}
	t.keep(e, b)
	return true
}

// someAgents yields agents to look at for an entry, a bounded number; the next look goes on after them.
func (t preemptor) someAgents(e *queue.Entry) func(func(*agent) bool) {
	order := t.fleet.order
	return func(yield func(*agent) bool) {
		for range min(len(order), attendAgents) {
			a := order[e.From%len(order)]
			e.From = (e.From + 1) % len(order)
			if !yield(a) {
				return
			}
		}
	}
}

// overLimit finds what must make way for the quota to let one instance of an entry in: nothing, when it does already.
func (t preemptor) overLimit(e *queue.Entry) (victims []*instance, ok bool) {
	sp := e.Spec
	k, _, limiting := t.capacity.admit(sp, sp.Need, 1)
	if k == 1 {
		return nil, true
	}
	if limiting == "" { // guarantees of others: what preemptible instances use counts as free there
		return nil, false
	}
	var found []*instance
	for a := range t.someAgents(e) {
		if !t.capacity.pool.IsOpen(a.info.ID) { // nobody knows when what runs there ends
			continue
		}
		for i := range a.each {
			if kernel.Within(i.spec.Role, limiting) && (i.Goal() == kernel.GoalStop || i.yields(e)) {
				found = append(found, i)
			}
		}
	}
	return fewest(found, func(i *instance, times int64) {
		t.capacity.charge(i, i.need().Times(times))
	}, func() bool {
		k, _, _ := t.capacity.admit(sp, sp.Need, 1)
		return k == 1
	})
}

// onSomeMachine finds the machine on which the least has to make way for one instance of an entry: of the lowest
// priority, then the fewest. What is in going makes way already.
func (t preemptor) onSomeMachine(e *queue.Entry, going []*instance) (best *agent, victims []*instance, ok bool) {
	look, reserved := t.someAgents(e), false
	if c := t.reservations.Of(&e.Spec.Spec); c != nil {
		reserved = true
		look = func(yield func(*agent) bool) { yield(t.fleet.get(c.Agent)) }
	}
	for a := range look {
		if v, fits := t.onMachine(e, a, going, reserved); fits && (!ok || lessToPreempt(v, victims)) {
			best, victims, ok = a, v, true
		}
	}
	return best, victims, ok
}

// onMachine finds what must make way on an agent. What each gives back is tried out, since some of it may be reserved
// for others.
func (t preemptor) onMachine(e *queue.Entry, a *agent, going []*instance, reserved bool) ([]*instance, bool) {
	pool := t.capacity.pool
	short := func() (kernel.Resources, bool) { return pool.Short(e.Spec.Request, a.info.ID, reserved) }
	if _, suits := short(); !suits {
		return nil, false
	}
	var found, gone []*instance
	add := func(i *instance, times int64) { pool.Adjust(a.info.ID, i.spec.Fills(), i.need().Times(times)) }
	for i := range a.each {
		if i.Goal() == kernel.GoalStop || slices.Contains(going, i) {
			gone = append(gone, i)
			add(i, -1)
		} else if i.yields(e) {
			found = append(found, i)
		}
	}
	victims, ok := fewest(found, add, func() bool {
		left, suits := short()
		return suits && left.IsZero()
	})
	for _, i := range gone {
		add(i, 1)
	}
	return victims, ok
}

// preemptFirst orders candidates for preemption: those that stop already, then the lowest priority, then the youngest.
func preemptFirst(a, b *instance) int {
	stays := func(i *instance) int {
		if i.Goal() == kernel.GoalStop {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(stays(a), stays(b)), cmp.Compare(a.spec.Priority, b.spec.Priority),
		b.Placed().Compare(a.Placed()), cmp.Compare(a.ID(), b.ID()))
}

// fewest finds how few of some instances must make way for it to be enough, in the order of preemptFirst. add puts an
// instance's part back by times, or takes it away; in the end all is as it was.
func fewest(found []*instance, add func(i *instance, times int64), enough func() bool) (victims []*instance, ok bool) {
	slices.SortFunc(found, preemptFirst)
	ok = enough()
	for _, i := range found {
		if ok || len(victims) == victimsMost {
			break
		}
		add(i, -1)
		victims, ok = append(victims, i), enough()
	}
	for k := len(victims) - 1; ok && k >= 0; k-- { // those that need not go, the highest priority first
		if add(victims[k], 1); enough() {
			victims = slices.Delete(victims, k, k+1)
		} else {
			add(victims[k], -1)
		}
	}
	for _, i := range victims {
		add(i, 1)
	}
	return victims, ok
}

// lessToPreempt compares what would make way on two machines.
func lessToPreempt(a, b []*instance) bool {
	highest := func(v []*instance) int {
		most := -kernel.MaxPriority - 1
		for _, i := range v {
			most = max(most, i.spec.Priority)
		}
		return most
	}
	return cmp.Or(cmp.Compare(highest(a), highest(b)), cmp.Compare(len(a), len(b))) < 0
}
