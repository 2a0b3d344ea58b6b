package core

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/queue"
	"github.com/marinaos/marina/internal/master/reservation"
	"github.com/marinaos/marina/internal/placement"
)

// placer places what waits in the queue.
type placer struct{ *tables }

// serve tries to place what waits: everything if capacity appeared, else what is fresh.
func (t placer) serve() {
	for more := true; more; more = t.step.retry {
		t.serveOnce()
	}
}

// serveOnce is one turn. One that ends a backfill makes others be tried again, for which that was in the way.
func (t placer) serveOnce() {
	all := t.step.retry
	t.step.retry = false
	if tried := t.queue.Turn(all); len(tried) > 0 {
		queue.ServeFairly(tried, t.capacity.tree(), func(e *queue.Entry, n int) int { return len(t.place(e, n)) })
	}
	if all && !t.step.retry {
		t.capacity.pool.Settled()
	}
	t.queue.EndTurn(t.attendFirst)
	t.compact()
}

// attendFirst says when to look for the first time for something to preempt for an entry, or a machine to keep.
func (t placer) attendFirst(e *queue.Entry) time.Time {
	if t.mayPreempt(e) {
		return t.now
	}
	return e.Since.Add(t.cfg.BackfillAfter)
}

// compact takes entries in which nothing waits any more out of the queue.
func (t placer) compact() {
	for _, e := range t.queue.Compact() {
		if t.endBackfill(e) != nil {
			t.step.capacityAppeared()
		}
	}
}

// withdraw takes instances, nil for all, out of an entry and returns those that were in it.
func (t placer) withdraw(e *queue.Entry, ids []kernel.InstanceID) []kernel.InstanceID {
	before := len(e.Instances)
	out := t.queue.Withdraw(e, ids)
	t.specs.Unuse(e.Spec, before-len(e.Instances), t.now)
	return out
}

// place tries to place up to n of the instances that wait in an entry, under the quota first, then on machines.
func (t placer) place(e *queue.Entry, n int) []*instance {
	kept := t.endBackfill(e)
	placed := t.placeWithout(e, n, kept)
	switch {
	case kept == nil:
	case len(placed) == 0 && len(e.Instances) > 0:
		t.keep(e, kept)
	default:
		t.step.retry = true
		if len(e.Instances) > 0 && !kept.Long { // others make way for its next one too
			t.queue.AttendTo(e, t.now)
		}
	}
	return placed
}

// placeWithout places what had a backfill, if kept is one, on its machine first.
func (t placer) placeWithout(e *queue.Entry, n int, kept *queue.Backfill) []*instance {
	sp := e.Spec
	if sp.Reservation != nil {
		return t.placeReserved(e)
	}
	k, why, _ := t.capacity.admit(sp, sp.Need, n)
	var places []placement.Placement
	if kept != nil && k > 0 {
		if at, ok := t.capacity.pool.PlaceAt(sp.Request, kept.Agent); ok {
			places = append(places, at)
		}
	}
	places = append(places, t.places(e, k-len(places))...)
	if short := len(places) < k; short {
		e.FitNowhere()
	} else {
		e.Refuse(kernel.Refusal{Quota: why})
	}
	if len(places) == 0 {
		return nil
	}
	return t.settle(e, places)
}

// places finds machines for k instances of an entry. One that no machine took before is tried on those only of which
// something became free.
func (t placer) places(e *queue.Entry, k int) []placement.Placement {
	if e.TriedEverywhere() {
		return t.capacity.pool.PlaceFreed(e.Spec.Request, k)
	}
	return t.capacity.pool.Place(e.Spec.Request, k)
}

// settle makes instances of the first instances of an entry, where places say.
func (t placer) settle(e *queue.Entry, places []placement.Placement) []*instance {
	sp := e.Spec
	placed := make([]*instance, len(places))
	stamp := t.now.UTC().Round(0)
	for n, id := range t.queue.Place(e, len(places)) {
		at, a := places[n], t.fleet.get(places[n].Agent)
		g := kernel.Assignment{ID: id, Spec: sp.ID, Address: at.Address, HostPorts: at.HostPorts, Placed: stamp,
			Goal: kernel.GoalRun}
		i := t.tables.place(g, sp, a, a.openChunk(), true)
		t.step.charge(Charge{Placement: i.placement(), Begins: true})
		t.touch(i)
		t.change(i)
		placed[n] = i
	}
	t.specs.Unuse(sp, len(places), t.now) // they were counted as waiting
	return placed
}

// placeReserved places the first instance of an entry, if nobody holds the reservation: where the reservation is, or
// anywhere if there is none.
func (t placer) placeReserved(e *queue.Entry) []*instance {
	sp := e.Spec
	c := t.reservations.Of(&sp.Spec)
	if c == nil {
		return t.placeFirst(e)
	}
	if ok, refusal := c.Available(); !ok {
		e.Refuse(refusal)
		return nil
	}
	t.capacity.free(c)
	ok, refusal := t.capacity.affords(sp)
	if ok {
		ok, refusal = t.capacity.pool.PlaceOn(sp.Request, c.Agent)
	}
	if e.Refuse(refusal); !ok {
		t.capacity.hold(c)
		return nil
	}
	return t.settleReserved(e, c, c.At())
}

// placeFirst places an instance whose reservation does not exist, and makes it.
func (t placer) placeFirst(e *queue.Entry) []*instance {
	if ok, refusal := t.capacity.affords(e.Spec); !ok {
		e.Refuse(refusal)
		return nil
	}
	places := t.places(e, 1)
	if len(places) == 0 {
		e.FitNowhere()
		return nil
	}
	e.Refuse(kernel.Refusal{})
	return t.settleReserved(e, t.reservations.Add(&e.Spec.Spec, places[0]), places[0])
}

func (t placer) settleReserved(e *queue.Entry, c *reservation.Reservation, at placement.Placement) []*instance {
	placed := t.settle(e, []placement.Placement{at})
	t.reservations.Place(c, &e.Spec.Spec, placed[0].ID())
	return placed
}
