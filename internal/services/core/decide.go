package core

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// Decision lists the actions that follow now. Transitions come first: they must be durable, and given to State.Advance,
// before the rest of the datacenter may see them. All else the state takes as done; whoever carries it out reports
// refusals with State.LaunchFailed and State.ForgetRefused.
type Decision struct {
	Transitions []Transition
	Withdraw    []Withdraw
	Stop        []Stop
	Forget      []Ref
	Launch      []Launch
	Events      []marathon.Event
	Aside       []Aside   // what was set aside, to be told in the log
	Wake        time.Time // decide again then at the latest; zero: when something changes
}

// Empty reports whether there is nothing to do.
func (d *Decision) Empty() bool {
	return len(d.Transitions)+len(d.Withdraw)+len(d.Stop)+len(d.Forget)+len(d.Launch)+len(d.Events) == 0
}

// Ref names an instance.
type Ref struct {
	App      string
	Instance kernel.InstanceID
}

// Launch asks for instances of an app.
type Launch struct {
	App    *marathon.App
	Groups []kernel.InstanceID
}

// Withdraw takes an instance out of the kernel's queue.
type Withdraw struct {
	Ref
	Version string
}

// Stop ends an instance.
type Stop struct {
	Ref
	Why string
}

// Key names the kernel's queue entry for the instances of one config version of an app.
func Key(app, config string) string { return app + "@" + config }

// Decide looks at every app that changed or whose time has come and at the running deployments. The same state, time
// and ids give the same decision. mint gives an id for a new instance of an app: GroupPrefix and something never used
// before.
//
// Nothing is killed, given up or called done before the kernel's view is complete. Instances are launched earlier,
// for what is placed is always known.
func Decide(s *State, now time.Time, mint func(app string) kernel.InstanceID) Decision {
	d := Decision{}
	due := []string{}
	for id, f := range s.fleets {
		if f.stale || !f.wake.IsZero() && !f.wake.After(now) {
			due = append(due, id)
		}
	}
	slices.Sort(due)
	for _, id := range due {
		s.decideAlone(id, now, mint, &d)
	}
	for _, dep := range s.Deployments {
		s.advanceAlone(dep, now, &d)
	}
	for _, f := range s.fleets {
		if !f.wake.IsZero() && (d.Wake.IsZero() || f.wake.Before(d.Wake)) {
			d.Wake = f.wake
		}
	}
	d.Events, s.events = s.events, nil
	d.Aside, s.news = append(d.Aside, s.news...), nil
	return d
}

// turn is one app's turn to be decided about: what it should be, what there is of it, and what was decided so far.
type turn struct {
	s *State
	f *fleet
	goal
	census
	id  string
	now time.Time
	d   *Decision
}

// decide decides about the app. mint gives an id for a new instance of it.
func (t *turn) decide(mint func(string) kernel.InstanceID) {
	f := t.f
	f.stale, f.wake, f.why, f.done, f.missing = false, time.Time{}, "", false, 0
	t.goal = t.s.goal(t.id)
	if t.hold {
		f.done = true
		return
	}
	t.count()
	if t.def == nil {
		t.endAll()
		return
	}
	for _, v := range t.victims {
		named := func(i *Instance) bool { return i.ID() == v }
		t.fresh = t.endIf(t.fresh, "asked to go with a change of scale", named)
		t.old = t.endIf(t.old, "asked to go with a change of scale", named)
	}
	limit := max(t.n, int(math.Floor(float64(t.n)*(1+t.def.UpgradeStrategy.MaximumOverCapacity)+rounding)))
	if t.roll {
		limit = t.replaceOld()
	}
	t.endSurplus()
	f.missing = max(0, t.n-len(t.fresh))
	if f.missing == 0 {
		f.since = time.Time{}
	} else if f.since.IsZero() {
		f.since = t.now
	}
	if n := min(f.missing, limit-t.live); n > 0 && !t.backingOff() {
		t.launch(n, mint)
		return
	}
	t.judge()
}

// rounding keeps 0.07*100 from counting as more than 7.
const rounding = 1e-9

// launch asks for n more instances.
func (t *turn) launch(n int, mint func(string) kernel.InstanceID) {
	l := Launch{App: t.def}
	of := &kernel.Origin{Framework: marathon.Framework, Owner: t.id, Version: t.def.Config()}
	for range n {
		id := mint(t.id)
		t.f.add(t.s.waiting(of, id, t.now))
		l.Groups = append(l.Groups, id)
	}
	t.f.missing -= n
	t.d.Launch = append(t.d.Launch, l)
	t.live += n
	t.f.why = fmt.Sprintf("%d instances are being launched", n)
}

// count sorts the instances, stops those that fail their checks or do not start, and gives up those whose machine has
// not answered for long.
func (t *turn) count() {
	t.f.order = t.f.all()
	for _, i := range t.f.order {
		if !i.Away.IsZero() {
			t.judgeAway(i)
		} else if t.s.Complete && t.def != nil && !i.Stopping && !i.Waiting {
			t.judgeHealth(i)
		}
		switch {
		case i.Inactive:
			t.lost = append(t.lost, i)
			continue
		case i.Stopping && (i.Away.IsZero() || i.Goal() != kernel.GoalStop):
			t.ending++
		case i.Stopping:
		case t.roll && i.Version != t.def.Config():
			t.old = append(t.old, i)
		default:
			t.fresh = append(t.fresh, i)
		}
		t.live++
	}
}

// endAll ends every instance of an app that should not be.
func (t *turn) endAll() {
	f, s := t.f, t.s
	t.fresh = t.endIf(t.fresh, "the app was removed", func(*Instance) bool { return true })
	t.endLost()
	f.done = t.live == 0
	if !f.done {
		f.why = fmt.Sprintf("%d instances are stopping", t.live)
	}
	deploys := func(d *Deployment) bool { return d.Change(t.id) != nil }
	if f.instances.Len() == 0 && !slices.ContainsFunc(s.Deployments, deploys) {
		delete(s.fleets, t.id)
	}
}

// backingOff reports whether the app's next launch has to wait, and has it looked at when it need not.
func (t *turn) backingOff() bool {
	f := t.f
	if f.backoff.Version != t.def.Config() || !f.backoff.Until.After(t.now) {
		return false
	}
	f.wakeAt(f.backoff.Until)
	f.why = fmt.Sprintf("%d instances wait until %s to be launched", f.missing, marathon.Timestamp(f.backoff.Until))
	if l := f.lastFailure; l != nil {
		f.why += fmt.Sprintf(": the last one ended with %s (%s)", l.State, l.Message)
	}
	return true
}

// judge notes whether the app is what its goal says, and if not, why.
func (t *turn) judge() {
	f, g, c := t.f, &t.goal, &t.census
	waiting, starting, healthy := 0, 0, 0
	for _, i := range c.fresh {
		switch {
		case i.Waiting:
			waiting++
		case i.healthy(t.s.definition(i.Owner, i.Version)):
			healthy++
		case i.State() < kernel.Running:
			starting++
		}
	}
	f.done = len(c.fresh) == g.n && healthy == g.n && len(c.old) == 0 && c.ending == 0
	if f.done || f.why != "" {
		return
	}
	switch {
	case waiting > 0:
		f.why = fmt.Sprintf("%d of %d instances wait for room", waiting, g.n)
	case starting > 0:
		f.why = fmt.Sprintf("%d of %d instances are starting", starting, g.n)
	case healthy < g.n && len(c.fresh) > 0:
		f.why = fmt.Sprintf("%d of %d instances are healthy", healthy, g.n)
	case c.ending > 0:
		f.why = fmt.Sprintf("%d instances are stopping", c.ending)
	default:
		f.why = fmt.Sprintf("%d instances of other versions are left", len(c.old))
	}
}

// decideAlone decides about one app. A panic sets that app aside: what was decided of it is dropped, and all others
// go on.
func (s *State) decideAlone(id string, now time.Time, mint func(string) kernel.InstanceID, d *Decision) {
	f := s.fleets[id]
	if f.parked != "" {
		f.stale, f.wake = false, time.Time{}
		return
	}
	var one Decision
	var minted []kernel.InstanceID
	p := s.catch(func() {
		t := turn{s: s, f: f, id: id, now: now, d: &one}
		t.decide(func(app string) kernel.InstanceID {
			minted = append(minted, mint(app))
			return minted[len(minted)-1]
		})
	})
	if p != nil {
		s.undo(f, &one, minted)
		d.Aside = append(d.Aside, s.ParkApp(id, "deciding about it", p, now))
		return
	}
	d.Withdraw, d.Stop = append(d.Withdraw, one.Withdraw...), append(d.Stop, one.Stop...)
	d.Forget, d.Launch = append(d.Forget, one.Forget...), append(d.Launch, one.Launch...)
}

// advanceAlone adds the transition of one deployment, if its step is done.
func (s *State) advanceAlone(dep *Deployment, now time.Time, d *Decision) {
	if !s.Complete || dep.Parked != "" {
		return
	}
	done := false
	if p := s.catch(func() { done = s.stepDone(dep) }); p != nil {
		a := s.Park(dep, panicked("deciding about it", p), now)
		a.Stack = p.Stack
		d.Aside = append(d.Aside, a)
	} else if done {
		d.Transitions = append(d.Transitions, Transition{Deployment: dep, Step: dep.Step + 1})
	}
}
