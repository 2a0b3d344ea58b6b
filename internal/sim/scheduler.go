package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/sim/rare"
)

// framework is the name under which the simulation's scheduler works.
const framework = "counter"

// Times of the scheduler's unreachable strategy.
const (
	inactiveAfter = 5 * time.Second
	expungeAfter  = 10 * time.Second
	relaunchMin   = 100 * time.Millisecond
	relaunchMax   = time.Second
)

// app is somebody's request for a number of instances of a spec. It is durable.
type app struct {
	owner  string
	spec   kernel.Spec
	target int
}

// scheduler keeps counts: for every app it launches what is missing and stops what is too much. It lives and dies
// with its leader and learns everything anew from the kernel.
type scheduler struct {
	m         *master
	instances map[kernel.InstanceID]*kernel.Instance
	order     map[string][]kernel.InstanceID // of instances, by owner, as they came
	waiting   map[string][]kernel.InstanceID // launched and not placed
	busy      map[string]bool                // a request of the owner is under way
	keys      map[kernel.InstanceID]string   // under which they wait
	replaced  map[kernel.InstanceID]bool     // away for too long: counts no more
	stopping  map[kernel.InstanceID]bool
	complete  bool
}

func newScheduler(m *master) *scheduler {
	return &scheduler{m: m, instances: map[kernel.InstanceID]*kernel.Instance{}, order: map[string][]kernel.InstanceID{},
		waiting: map[string][]kernel.InstanceID{}, busy: map[string]bool{}, keys: map[kernel.InstanceID]string{},
		replaced: map[kernel.InstanceID]bool{},
		stopping: map[kernel.InstanceID]bool{}}
}

// hear takes news of the kernel and looks at the apps they are about.
func (s *scheduler) hear(changes []*kernel.Record, complete bool) {
	var touched []string
	for _, r := range changes {
		c := new(r.Instance())
		if c.Framework != framework {
			continue
		}
		if !slices.Contains(touched, c.Owner) {
			touched = append(touched, c.Owner)
		}
		_, known := s.instances[c.ID]
		switch {
		case c.Removed:
			delete(s.instances, c.ID)
			delete(s.replaced, c.ID)
			delete(s.stopping, c.ID)
			s.order[c.Owner] = without(s.order[c.Owner], c.ID)
		default:
			s.instances[c.ID] = c
			if !known {
				s.order[c.Owner] = append(s.order[c.Owner], c.ID)
			}
			s.watchAway(c)
		}
		s.waiting[c.Owner] = without(s.waiting[c.Owner], c.ID)
	}
	if early := s.m.w.Plant.On(bug.CountOnlyKnown) && len(s.instances) == 0; (complete || early) && !s.complete {
		s.complete = true
		for _, a := range s.m.w.apps {
			s.soon(a, 0)
		}
		return
	}
	for _, owner := range touched {
		if a := s.m.w.app(owner); a != nil {
			s.soon(a, s.m.w.Dice.Between(0, relaunchMin))
		}
	}
}

func without(ids []kernel.InstanceID, id kernel.InstanceID) []kernel.InstanceID {
	if i := slices.Index(ids, id); i >= 0 {
		return slices.Delete(ids, i, i+1)
	}
	return ids
}

// later does something as long as the same leader leads.
func (s *scheduler) later(d time.Duration, do func()) {
	s.m.w.After(d, &s.m.Actor, func() {
		if s.m.scheduler == s {
			do()
		}
	})
}

func (s *scheduler) soon(a *app, d time.Duration) { s.later(d, func() { s.reconcile(a) }) }

// watchAway starts the clocks of the unreachable strategy.
func (s *scheduler) watchAway(c *kernel.Instance) {
	if c.Away.IsZero() {
		delete(s.replaced, c.ID)
		return
	}
	away, id, owner := c.Away, c.ID, c.Owner
	still := func() bool {
		now := s.instances[id]
		return now != nil && now.Away.Equal(away)
	}
	left := func(d time.Duration) time.Duration { return away.Add(s.m.w.Slow(d)).Sub(s.m.clock()) }
	s.later(left(inactiveAfter), func() {
		if a := s.m.w.app(owner); still() && !s.replaced[id] && a != nil {
			s.replaced[id] = true
			if s.m.w.judge.leader == s.m.Epoch() {
				s.m.w.judge.replaced(id)
			}
			s.m.w.Reach(rare.Replaced)
			s.reconcile(a)
		}
	})
	s.later(left(expungeAfter), func() { s.forget(id, still) })
}

// forget gives an instance up for good, again and again while the brake holds.
func (s *scheduler) forget(id kernel.InstanceID, still func() bool) {
	if !still() {
		return
	}
	s.m.request(func(r event.RequestID) event.Event {
		return event.Forget{Request: r, Framework: framework, Instances: []kernel.InstanceID{id}}
	}, func(r brain.Reply) {
		if r.Err == nil {
			s.m.w.Reach(rare.Forgotten)
			return
		}
		s.m.w.Reach(rare.ForgetRefused)
		s.later(2*time.Second, func() { s.forget(id, still) })
	})
}

// counted lists the instances of an app that count.
func (s *scheduler) counted(owner string) (out []kernel.InstanceID) {
	for _, id := range s.order[owner] {
		i := s.instances[id]
		if s.m.w.Plant.On(bug.CountOnlyKnown) && !i.Known {
			continue
		}
		if i.Goal == kernel.GoalRun && !s.stopping[id] && !s.replaced[id] && !i.State().Terminal() {
			out = append(out, id)
		}
	}
	return out
}

// reconcile brings an app nearer to its target by one request.
func (s *scheduler) reconcile(a *app) {
	if !s.complete || s.busy[a.owner] {
		return
	}
	s.beginAnew(a)
	leads := s.m.w.judge.leader == s.m.Epoch()
	counted, waiting := s.counted(a.owner), s.waiting[a.owner]
	switch surplus := len(counted) + len(waiting) - a.target; {
	case surplus == 0 && leads:
		s.m.w.judge.exact(a)
	case surplus < 0:
		s.launch(a, -surplus)
	case surplus > 0 && len(waiting) > 0:
		s.withdraw(a, waiting[max(0, len(waiting)-surplus):])
	case surplus > 0:
		slices.SortStableFunc(counted, func(x, y kernel.InstanceID) int { // the least useful first
			return int(s.instances[x].State()) - int(s.instances[y].State())
		})
		s.stop(a, counted[:surplus])
	}
}

// beginAnew gives up the reservation of an app whose machine was removed with what it kept.
func (s *scheduler) beginAnew(a *app) {
	if a.spec.Reservation == nil {
		return
	}
	for _, c := range s.m.state.Reservations(framework) {
		if c.Name == a.spec.Reservation.Name && c.Lost {
			s.m.w.Reach(rare.ReservationBegunAnew)
			s.m.step(event.Release{Framework: framework, Reservations: []string{c.Name}})
		}
	}
}

func (s *scheduler) begin(a *app) func() {
	s.busy[a.owner] = true
	return func() {
		s.busy[a.owner] = false
		s.soon(a, s.m.w.Dice.Between(relaunchMin, relaunchMax))
	}
}

func (s *scheduler) launch(a *app, n int) {
	w := s.m.w
	var ids []kernel.InstanceID
	for range n {
		ids = append(ids, kernel.InstanceID(fmt.Sprint(a.owner[1:], ".instance-", w.Serial())))
	}
	s.waiting[a.owner] = append(s.waiting[a.owner], ids...)
	key := a.owner + "@" + a.spec.Version
	for _, id := range ids {
		s.keys[id] = key
	}
	s.m.note("launches %d of", a.owner, int64(n), 0)
	done := s.begin(a)
	spec := a.spec
	if w.Plant.On(bug.PrioritiesReversed) {
		spec.Priority = -spec.Priority
	}
	s.m.request(func(r event.RequestID) event.Event {
		return event.Launch{Request: r, LaunchRequest: kernel.LaunchRequest{Key: key, Spec: spec, Instances: ids}}
	}, func(r brain.Reply) {
		done()
		if r.Err != nil {
			w.Fail("launch of %s: %v", a.owner, r.Err)
			return
		}
		if r.Launch.Waiting > 0 && w.Plant.On(bug.ForgetQueue) {
			s.m.step(event.Withdraw{Framework: framework, Key: key})
		}
		if r.Launch.Waiting > 0 {
			w.Reach(rare.LaunchWaits)
			if r.Launch.Refusal == nil || r.Launch.Refusal.String() == "" {
				w.Fail("launch of %s: %d wait and nobody says why", a.owner, r.Launch.Waiting)
			}
		}
	})
}

func (s *scheduler) withdraw(a *app, groups []kernel.InstanceID) {
	key := s.keys[groups[len(groups)-1]] // one entry of the queue at a time
	groups = slices.DeleteFunc(slices.Clone(groups), func(g kernel.InstanceID) bool { return s.keys[g] != key })
	s.m.note("withdraws %d of", a.owner, int64(len(groups)), 0)
	done := s.begin(a)
	s.m.request(func(r event.RequestID) event.Event {
		return event.Withdraw{Request: r, Framework: framework, Key: key, Instances: groups}
	}, func(r brain.Reply) {
		done()
		if r.Err != nil {
			s.m.w.Fail("withdraw of %s: %v", a.owner, r.Err)
		}
		s.m.w.Reach(rare.Withdrawn)
		for _, g := range r.Withdrawn { // the others were placed: the kernel's news tell
			s.waiting[a.owner] = without(s.waiting[a.owner], g)
		}
	})
}

func (s *scheduler) stop(a *app, groups []kernel.InstanceID) {
	groups = slices.Clone(groups)
	s.m.note("stops %d of", a.owner, int64(len(groups)), 0)
	for _, g := range groups {
		s.stopping[g] = true
	}
	done := s.begin(a)
	s.m.request(func(r event.RequestID) event.Event {
		return event.Stop{Request: r, Framework: framework, Instances: groups, Why: "too many"}
	}, func(r brain.Reply) {
		done()
		if r.Err != nil {
			s.m.w.Fail("stop of %s: %v", a.owner, r.Err)
		}
	})
}

// app finds an app by its owner.
func (w *World) app(owner string) *app {
	for _, a := range w.apps {
		if a.owner == owner {
			return a
		}
	}
	return nil
}
