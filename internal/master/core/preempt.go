package core

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// What waits gets room in two more ways than by others ending. Instances of a lower priority are asked to stop for
// it; and a machine's room is kept for what waits for long, or small instances that fit into every gap would have it
// wait for ever. In both cases the room is held until it is enough, but not for ever.

// hold is room that is kept for one instance of an entry.
type hold struct {
	agent   *agent
	until   time.Time
	charged bool // against the quota as well
	longest bool // for having waited, not because others make way
}

// keep begins a hold, unhold ends it and returns what it was.
func (s *State) keep(e *entry, h *hold) {
	e.hold = h
	s.pool.SetAside(h.agent.info.ID, e.spec.Need)
	if h.charged {
		s.quota.SetAside(e.spec.Role, e.spec.Need)
	}
	if h.longest {
		s.holds++
	}
}

func (s *State) unhold(e *entry) *hold {
	h := e.hold
	if h == nil {
		return nil
	}
	e.hold = nil
	s.pool.SetAside(h.agent.info.ID, kernel.Resources{}.Sub(e.spec.Need))
	if h.charged {
		s.quota.SetAside(e.spec.Role, kernel.Resources{}.Sub(e.spec.Need))
	}
	if h.longest {
		s.holds--
	}
	return h
}

// attendAt has the queue attended to at a time.
func (s *State) attendAt(t time.Time) {
	if s.attend.IsZero() || t.Before(s.attend) {
		s.attend = t
	}
}

func (s *State) attendWake() time.Time {
	if len(s.queue) == 0 {
		return time.Time{}
	}
	return s.attend
}

// attendQueue looks, for what waits and is due, for room that could be made or kept: the higher priority first, then
// what is due longest.
func (s *State) attendQueue() {
	if s.attend.IsZero() || s.now.Before(s.attend) {
		return
	}
	s.attend = time.Time{}
	due := slices.DeleteFunc(slices.Clone(s.queue), func(e *entry) bool {
		if s.now.Before(e.attend) {
			s.attendAt(e.attend)
			return true
		}
		return false
	})
	slices.SortStableFunc(due, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.spec.Priority, a.spec.Priority), a.attend.Compare(b.attend))
	})
	for n, e := range due {
		if n == attendMost {
			s.attendAt(s.now.Add(attendEvery / attendMost))
			break
		}
		e.attend = s.attendTo(e)
		s.attendAt(e.attend)
	}
}

// attendTo looks for room for one instance of an entry, and says when to look again.
func (s *State) attendTo(e *entry) time.Time {
	if h := e.hold; h != nil {
		if s.now.Before(h.until) {
			return h.until
		}
		s.unhold(e)
		s.capacityAppeared()
		return s.now.Add(s.cfg.HoldFor)
	}
	if s.mayEnd(e) && s.makeRoom(e) {
		return e.hold.until
	}
	long := e.since.Add(s.cfg.HoldAfter)
	switch due := !s.now.Before(long); {
	case due && e.unfit && e.spec.Reservation == nil && s.holds < max(1, len(s.order)*s.cfg.HoldPercent/100):
		if id, ok := s.pool.Nearest(e.spec.Request); ok {
			s.keep(e, &hold{agent: s.agents[id], until: s.now.Add(s.cfg.HoldFor), longest: true})
			return e.hold.until
		}
		return s.now.Add(s.cfg.HoldFor)
	case s.mayEnd(e):
		return s.now.Add(attendEvery)
	case due:
		return s.now.Add(s.cfg.HoldAfter)
	}
	return long
}

// mayEnd reports whether there can be anything that makes way for an entry.
func (s *State) mayEnd(e *entry) bool { return e.spec.Priority > 0 || s.lent > 0 }

// yields reports whether an instance makes way for an entry: it has a lower priority, and is of the same top-level
// group or runs on what others do not use. An owner's own versions are its scheduler's affair, and what has a
// reservation makes way only if it runs on loan.
func (e *entry) yields(i *instance) bool {
	if i.spec.Owner == e.spec.Owner && i.spec.Framework == e.framework || i.spec.Reservation != nil && !i.spec.Preemptible() {
		return false
	}
	return i.spec.Priority < e.spec.Priority && (i.spec.Preemptible() && !e.spec.Preemptible() || kernel.Tenant(i.spec.Role) == kernel.Tenant(e.spec.Role))
}

// makeRoom has instances stop that make way for one instance of an entry, if that gives it room, and keeps the room for
// it.
func (s *State) makeRoom(e *entry) bool {
	if c := s.reservations.Of(&e.spec.Spec); c != nil {
		if ok, _ := c.Available(); !ok {
			return false
		}
	}
	victims, ok := s.overLimit(e)
	if !ok {
		return false
	}
	h := &hold{until: s.now.Add(s.cfg.HoldFor), charged: len(victims) > 0}
	if id, fits := s.pool.Best(e.spec.Request); fits && e.spec.Reservation == nil {
		if len(victims) == 0 {
			s.step.retry = true // it fits already
			return false
		}
		h.agent = s.agents[id]
	} else if a, more, ok := s.onMachine(e, victims); ok {
		h.agent, victims = a, append(victims, more...)
	} else {
		return false
	}
	for _, v := range victims {
		s.stopInstance(v, fmt.Sprintf("it makes way for %s, which has priority %d, this %d", e.spec.Owner, e.spec.Priority, v.spec.Priority))
	}
	s.keep(e, h)
	return true
}

// preemptFirst orders candidates for preemption: those that stop already, then the lowest priority, then the youngest.
func preemptFirst(a, b *instance) int {
	return cmp.Or(cmp.Compare(stays(a), stays(b)), cmp.Compare(a.spec.Priority, b.spec.Priority), b.Placed().Compare(a.Placed()), cmp.Compare(a.ID(), b.ID()))
}

func stays(i *instance) int {
	if i.Goal() == kernel.GoalStop {
		return 0
	}
	return 1
}

// someAgents yields agents that may be looked at for an entry, and has the next look go on after them.
func (s *State) someAgents(e *entry) func(func(*agent) bool) {
	return func(yield func(*agent) bool) {
		for range min(len(s.order), attendAgents) {
			a := s.order[e.from%len(s.order)]
			e.from = (e.from + 1) % len(s.order)
			if !yield(a) {
				return
			}
		}
	}
}

// overLimit finds what must make way for the quota to let one instance of an entry in: nothing, when it does already.
func (s *State) overLimit(e *entry) (victims []*instance, ok bool) {
	sp := e.spec
	k, _, limiting := s.quotaRoom(sp, sp.Need, 1)
	if k == 1 {
		return nil, true
	}
	if limiting == "" { // guarantees of others: what is lent counts as free there
		return nil, false
	}
	var found []*instance
	for a := range s.someAgents(e) {
		if !s.pool.IsOpen(a.info.ID) { // nobody knows when what runs there ends
			continue
		}
		for i := range a.each {
			if kernel.Within(i.spec.Role, limiting) && (i.Goal() == kernel.GoalStop || e.yields(i)) {
				found = append(found, i)
			}
		}
	}
	return fewest(found, func(i *instance, by int64) {
		s.quota.Charge(i.spec.Role, i.need().Times(by), i.spec.Preemptible())
	}, func() bool {
		k, _, _ := s.quotaRoom(sp, sp.Need, 1)
		return k == 1
	})
}

// fewest finds how few of some instances must make way for it to be enough, the meekest first. add puts an instance's
// part back by times, or takes it away; in the end all is as it was.
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

// onMachine finds the machine on which the least has to make way for one instance of an entry: of the lowest priority,
// then the fewest. What is in going makes way already.
func (s *State) onMachine(e *entry, going []*instance) (best *agent, victims []*instance, ok bool) {
	look, claimed := s.someAgents(e), false
	if c := s.reservations.Of(&e.spec.Spec); c != nil {
		claimed = true
		look = func(yield func(*agent) bool) { yield(s.agents[c.Agent]) }
	}
	for a := range look {
		if v, fits := s.victimsOn(e, a, going, claimed); fits && (!ok || less(v, victims)) {
			best, victims, ok = a, v, true
		}
	}
	return best, victims, ok
}

// victimsOn is what must make way on an agent. What each gives back is tried out, since some of it may be reserved
// for others.
func (s *State) victimsOn(e *entry, a *agent, going []*instance, claimed bool) (victims []*instance, ok bool) {
	short := func() (kernel.Resources, bool) { return s.pool.Short(e.spec.Request, a.info.ID, claimed) }
	if _, suits := short(); !suits {
		return nil, false
	}
	var found, gone []*instance
	add := func(i *instance, times int64) { s.pool.Adjust(a.info.ID, i.spec.Fills(), i.need().Times(times)) }
	for i := range a.each {
		if i.Goal() == kernel.GoalStop || slices.Contains(going, i) {
			gone = append(gone, i)
			add(i, -1)
		} else if e.yields(i) {
			found = append(found, i)
		}
	}
	victims, ok = fewest(found, add, func() bool {
		left, suits := short()
		return suits && left.IsZero()
	})
	for _, i := range gone {
		add(i, 1)
	}
	return victims, ok
}

// less compares what would make way on two machines.
func less(a, b []*instance) bool {
	highest := func(v []*instance) int {
		most := -kernel.MaxPriority - 1
		for _, i := range v {
			most = max(most, i.spec.Priority)
		}
		return most
	}
	return cmp.Or(cmp.Compare(highest(a), highest(b)), cmp.Compare(len(a), len(b))) < 0
}
