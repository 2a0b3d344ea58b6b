package core

import (
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/placement"
)

type entryKey struct{ framework, key string }

// entry is instances of one spec that wait for room.
type entry struct {
	entryKey
	spec      *spec.Spec
	instances []kernel.InstanceID
	since     time.Time
	queued    bool // in the queue
	fresh     bool // among the step's fresh ones
	refusal   kernel.Refusal
	unfit     bool      // no machine fits: the refusal is what the pool last said
	asked     time.Time // when the pool said so
	tries     int

	hold   *hold     // room that is kept for one of the instances
	attend time.Time // when to look next for room to make or to keep
	from   int       // number of the agent from which on to look for what could make way
}

// launched is a request to launch that is to be answered at the end of the step.
type launched struct {
	reply     int // in the step's effects
	instances []kernel.InstanceID
	entry     *entry
}

// enqueue has an entry tried: with the queue, or as what is fresh.
func (s *State) enqueue(e *entry) {
	s.entries[e.entryKey] = e
	if !e.fresh {
		e.fresh = true
		s.step.fresh = append(s.step.fresh, e)
	}
}

// serveQueue tries to place what waits: everything if room appeared, else what is fresh. Roles take turns as the
// quota tree says; within one, the higher priority is first, then what waits longest. None is in another's way.
func (s *State) serveQueue() {
	for more := true; more; more = s.step.retry {
		s.serveOnce()
	}
}

// serveOnce is one round. One that ends a hold has others to be tried again, for which that was in the way.
func (s *State) serveOnce() {
	all := s.step.retry
	s.step.retry = false
	var tried []*entry
	try := func(e *entry) {
		if len(e.instances) > 0 {
			e.tries++
			tried = append(tried, e)
		}
	}
	if all {
		for _, e := range s.queue {
			try(e)
		}
	}
	for _, e := range s.step.fresh {
		if !all || !e.queued {
			try(e)
		}
	}
	if oneRole(tried) {
		s.serveLine(line{entries: tried})
	} else {
		s.serveFairly(tried)
	}
	if all && !s.step.retry {
		s.pool.Settled()
	}
	for _, e := range s.step.fresh {
		e.fresh = false
		switch {
		case e.queued:
		case len(e.instances) == 0:
			s.leave(e)
		default:
			e.queued = true
			s.queue = append(s.queue, e)
			if e.attend = e.since.Add(s.cfg.HoldAfter); s.mayEnd(e) {
				e.attend = s.now
			}
			s.attendAt(e.attend)
		}
	}
	s.step.fresh = s.step.fresh[:0]
	s.compactQueue()
}

func oneRole(entries []*entry) bool {
	return !slices.ContainsFunc(entries, func(e *entry) bool { return e.spec.Role != entries[0].spec.Role })
}

// line is what waits of one role, in the order in which it is tried.
type line struct{ entries []*entry }

// order puts the higher priority first and leaves the rest as it is, longest waiting first.
func (l *line) order() {
	slices.SortStableFunc(l.entries, func(a, b *entry) int { return b.spec.Priority - a.spec.Priority })
}

// serveLine places all it can of one role.
func (s *State) serveLine(l line) {
	l.order()
	for _, e := range l.entries {
		s.place(e, len(e.instances))
	}
}

// serveFairly lets roles take turns, an instance at a time.
func (s *State) serveFairly(tried []*entry) {
	lines := map[string]*line{}
	for _, e := range tried {
		l := lines[e.spec.Role]
		if l == nil {
			l = &line{}
			lines[e.spec.Role] = l
		}
		l.entries = append(l.entries, e)
	}
	waiting := make(map[string]kernel.Resources, len(lines))
	for role, l := range lines {
		l.order()
		waiting[role] = l.next()
	}
	s.quota.Machines(s.pool.Total()) // shares are of what there is now
	round := s.quota.Round(waiting)
	for role, ok := round.Next(); ok; role, ok = round.Next() {
		l := lines[role]
		if e := l.entries[0]; len(s.place(e, 1)) == 0 || len(e.instances) == 0 {
			l.entries = l.entries[1:]
		}
		if len(l.entries) == 0 {
			round.Done(role)
		} else {
			round.Served(role, l.next())
		}
	}
}

// next is what the next instance of a line needs for itself.
func (l *line) next() kernel.Resources {
	if sp := l.entries[0].spec; !sp.Preemptible() {
		return sp.Need
	}
	return kernel.Resources{}
}

// place tries to place up to n of the instances that wait in an entry, under the quota first, then on machines.
func (s *State) place(e *entry, n int) []*instance {
	kept := s.unhold(e)
	placed := s.placeKept(e, n, kept)
	switch {
	case kept == nil:
	case len(placed) == 0 && len(e.instances) > 0:
		s.keep(e, kept)
	default:
		s.step.retry = true
		if len(e.instances) > 0 && !kept.longest { // others make way for its next one too
			e.attend = s.now
			s.attendAt(e.attend)
		}
	}
	return placed
}

func (s *State) placeKept(e *entry, n int, kept *hold) []*instance {
	sp := e.spec
	if sp.Reservation != nil {
		return s.placeReserved(e)
	}
	k, why, _ := s.quotaRoom(sp, sp.Need, n)
	var places []placement.Placement
	if kept != nil && k > 0 {
		if at, ok := s.pool.PlaceAt(sp.Request, kept.agent.info.ID); ok {
			places = append(places, at)
		}
	}
	places = append(places, s.places(e, k-len(places))...)
	if short := len(places) < k; short {
		e.unfit = true
	} else {
		e.refuse(kernel.Refusal{Quota: why})
	}
	if len(places) == 0 {
		return nil
	}
	return s.settle(e, places)
}

// places finds machines for k instances of an entry. One that no machine took before is tried on those only of which
// something became free.
func (s *State) places(e *entry, k int) []placement.Placement {
	if e.unfit && e.queued {
		return s.pool.PlaceFreed(e.spec.Request, k)
	}
	return s.pool.Place(e.spec.Request, k)
}

// quotaRoom asks the quota tree, which is told before what machines have now, for n times each of what instances of a
// spec take.
func (s *State) quotaRoom(sp *spec.Spec, each kernel.Resources, n int) (k int, why, limiting string) {
	s.quota.Machines(s.pool.Total())
	return s.quota.Admit(sp.Role, each, n, sp.Preemptible())
}

// affords reports whether the quota tree lets the next group of an entry be placed, and why not.
func (s *State) affords(e *entry) (bool, kernel.Refusal) {
	_, why, _ := s.quotaRoom(e.spec, e.spec.Need, 1)
	return why == "", kernel.Refusal{Quota: why}
}

// refuse notes why the instances of an entry wait, where the pool need not be asked.
func (e *entry) refuse(r kernel.Refusal) { e.refusal, e.unfit, e.asked = r, false, time.Time{} }

// refusal is why the instances of an entry wait. The pool looks at every machine to say so, and is asked again only
// after a while, about a few entries in one step.
func (s *State) refusal(e *entry) kernel.Refusal {
	switch {
	case !e.unfit || !e.asked.IsZero() && s.now.Sub(e.asked) < explainEvery:
	case s.step.explained < explainMost:
		e.refusal, e.asked = s.pool.Explain(e.spec.Request), s.now
		s.step.explained++
	case e.asked.IsZero():
		return kernel.Refusal{Agents: len(s.order), Reasons: []kernel.Rejected{{Filter: "its needs", Agents: len(s.order), Detail: "which lacks what is counted for a few at a time: ask again"}}}
	}
	return e.refusal
}

// settle makes instances of the first instances of an entry, where places say.
func (s *State) settle(e *entry, places []placement.Placement) []*instance {
	sp := e.spec
	placed := make([]*instance, len(places))
	stamp := s.now.UTC().Round(0)
	for n, at := range places {
		a := s.agents[at.Agent]
		g := kernel.Assignment{ID: e.instances[n], Spec: sp.ID, Address: at.Address, HostPorts: at.HostPorts, Placed: stamp, Goal: kernel.GoalRun}
		delete(s.waiting, g.ID)
		i := s.newInstance(g, sp, a, a.room(), true)
		s.charge(Charge{Placement: i.placement(), Begins: true})
		s.touch(i)
		s.change(i)
		placed[n] = i
	}
	s.specs.Unuse(sp, len(places), s.now) // they were counted as waiting
	s.waits[e.framework] -= len(places)
	e.instances = e.instances[len(places):]
	return placed
}

// compactQueue takes out entries in which nothing waits any more.
func (s *State) compactQueue() {
	gone := func(e *entry) bool { return len(e.instances) == 0 }
	if !slices.ContainsFunc(s.queue, gone) {
		return
	}
	s.queue = slices.DeleteFunc(s.queue, func(e *entry) bool {
		if gone(e) {
			s.leave(e)
		}
		return gone(e)
	})
}

// leave forgets an entry in which nothing waits any more.
func (s *State) leave(e *entry) {
	if s.unhold(e) != nil {
		s.capacityAppeared()
	}
	e.queued = false
	delete(s.entries, e.entryKey)
}

// withdraw takes instances out of an entry, all with nil, and returns those that were in it.
func (s *State) withdraw(framework, key string, groups []kernel.InstanceID) []kernel.InstanceID {
	e := s.entries[entryKey{framework, key}]
	if e == nil {
		return nil
	}
	if groups == nil {
		groups = e.instances
	}
	out := slices.DeleteFunc(slices.Clone(groups), func(id kernel.InstanceID) bool { return s.waiting[id] != e })
	s.unqueue(e, out)
	s.compactQueue()
	return out
}

// unqueue takes instances out of an entry; those that are not in it are ignored.
func (s *State) unqueue(e *entry, groups []kernel.InstanceID) {
	for _, id := range groups {
		if s.waiting[id] == e {
			delete(s.waiting, id)
		}
	}
	before := len(e.instances)
	e.instances = slices.DeleteFunc(e.instances, func(id kernel.InstanceID) bool { return s.waiting[id] != e })
	gone := before - len(e.instances)
	s.waits[e.framework] -= gone
	s.specs.Unuse(e.spec, gone, s.now)
}
