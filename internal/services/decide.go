package services

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// Decision is what is to be done now. Transitions come first: they must be durable, and given to State.Advance,
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
	App   string
	Group kernel.GroupID
}

// Launch asks for instances of an app.
type Launch struct {
	App    *marathon.App
	Groups []kernel.GroupID
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
func Decide(s *State, now time.Time, mint func(app string) kernel.GroupID) Decision {
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

// goal is what an app should be at this moment.
type goal struct {
	def     *marathon.App // of which instances are launched; nil: all are to end
	n       int
	roll    bool // instances of other versions are to be replaced
	hold    bool // leave it as it is
	victims []kernel.GroupID
	policy  marathon.UnreachableStrategy
}

// goal finds the app's goal: what the current step of its deployment says, or the one before or after it; without a
// deployment what the API shows.
func (s *State) goal(id string) goal {
	for _, d := range s.Deployments {
		c := d.change(id)
		if c == nil {
			continue
		}
		if d.unreadable { // what it does to its apps is not known, and they are not to lose by that: see aside.go
			if s.Apps[id] == nil {
				return goal{hold: true}
			}
			continue
		}
		now, later := d.actions(id)
		switch {
		case now == marathon.StopApplication && c.From == nil: // it could not be read when it was removed
			return goal{}
		case now == marathon.StopApplication:
			return goal{policy: c.From.UnreachableStrategy}
		case now == marathon.StartApplication, now == "" && later && c.From == nil:
			return goal{hold: true}
		case now == marathon.ScaleApplication:
			return goal{def: c.To, n: c.To.Instances, victims: c.Victims, policy: c.To.UnreachableStrategy}
		case now == marathon.RestartApplication:
			return goal{def: c.To, n: c.To.Instances, roll: true, victims: c.Victims, policy: c.To.UnreachableStrategy}
		case later:
			return goal{def: c.From, n: c.From.Instances, policy: c.From.UnreachableStrategy}
		}
	}
	a := s.Apps[id]
	if a == nil {
		_, hold := s.unreadable[id]
		return goal{hold: hold}
	}
	return goal{def: a, n: a.Instances, policy: a.UnreachableStrategy}
}

// census is an app's instances, sorted into what they count as.
type census struct {
	fresh, old []*Instance // wanted to go on: of the goal's version, of others. Without roll all are fresh
	lost       []*Instance // on machines that do not answer, given up
	ending     int         // stopping, on machines that answer, or with a stop that is not durable yet
	live       int         // all that may be running: fresh, old, and those that are stopping
}

func (s *State) decideApp(id string, now time.Time, mint func(string) kernel.GroupID, d *Decision) {
	f := s.fleets[id]
	f.stale, f.wake, f.why, f.done, f.missing = false, time.Time{}, "", false, 0
	g := s.goal(id)
	if g.hold {
		f.done = true
		return
	}
	c := s.count(f, g, now, d)
	if g.def == nil {
		s.decideGone(id, f, &c, d)
		return
	}
	for _, v := range g.victims {
		c.fresh = s.endIf(c.fresh, &c, d, "asked to go with a change of scale", func(i *Instance) bool { return i.ID() == v })
		c.old = s.endIf(c.old, &c, d, "asked to go with a change of scale", func(i *Instance) bool { return i.ID() == v })
	}
	limit := max(g.n, int(math.Floor(float64(g.n)*(1+g.def.UpgradeStrategy.MaximumOverCapacity)+rounding)))
	if g.roll {
		limit = s.rollStep(g, &c, d)
	}
	s.endSurplus(g, &c, d)
	f.missing = max(0, g.n-len(c.fresh))
	if f.missing == 0 {
		f.since = time.Time{}
	} else if f.since.IsZero() {
		f.since = now
	}
	if n := min(f.missing, limit-c.live); n > 0 && !s.backingOff(f, g.def, now) {
		l := Launch{App: g.def}
		of := &kernel.Origin{Framework: marathon.Framework, Owner: id, Version: g.def.Config()}
		for range n {
			gid := mint(id)
			f.add(s.waiting(of, gid, now))
			l.Groups = append(l.Groups, gid)
		}
		f.missing -= n
		d.Launch = append(d.Launch, l)
		c.live += n
		f.why = fmt.Sprintf("%d instances are being launched", n)
		return
	}
	s.judge(f, g, &c)
}

// rounding keeps 0.07*100 from counting as more than 7.
const rounding = 1e-9

// count sorts the instances, stops those that fail their checks or do not start, and gives up those whose machine has
// not answered for long.
func (s *State) count(f *fleet, g goal, now time.Time, d *Decision) (c census) {
	f.order = f.all()
	for _, i := range f.order {
		if !i.Away.IsZero() {
			s.judgeAway(f, i, g, now, d)
		} else if s.Complete && g.def != nil && !i.Stopping && !i.Waiting {
			s.judgeHealth(f, i, now, d)
		}
		switch {
		case i.Inactive:
			c.lost = append(c.lost, i)
			continue
		case i.Stopping && (i.Away.IsZero() || i.Goal() != kernel.GoalStop):
			c.ending++
		case i.Stopping:
		case g.roll && i.Version != g.def.Config():
			c.old = append(c.old, i)
		default:
			c.fresh = append(c.fresh, i)
		}
		c.live++
	}
	return c
}

// judgeAway applies the unreachable strategy to an instance.
func (s *State) judgeAway(f *fleet, i *Instance, g goal, now time.Time, d *Decision) {
	if g.policy.Disabled || !s.Complete || i.forgotten {
		return
	}
	if !i.Inactive {
		if at := i.Away.Add(seconds(g.policy.Inactive)); at.After(now) {
			f.wakeAt(at)
			return
		}
		if 2*s.away > s.wanted() && !s.brake(f, &s.given, now) {
			f.why = "most instances are on machines that do not answer: replacements are slowed down"
			return
		}
		i.Inactive = true
	}
	at := i.Away.Add(seconds(g.policy.Expunge))
	if later := s.time(i.forgetAt); i.forgetAt != 0 && later.After(at) {
		at = later
	}
	if at.After(now) {
		f.wakeAt(at)
		return
	}
	i.forgotten = true
	d.Forget = append(d.Forget, Ref{i.Owner, i.ID()})
}

// judgeHealth stops an instance that fails its checks, as the brake allows, or one that does not come to run.
func (s *State) judgeHealth(f *fleet, i *Instance, now time.Time, d *Decision) {
	if i.State() < kernel.Running {
		if at := s.time(i.since).Add(s.Policy.LaunchTimeout); at.After(now) {
			f.wakeAt(at)
		} else {
			s.end(i, "did not run within "+s.Policy.LaunchTimeout.String(), d)
		}
		return
	}
	cause := i.failing(s.definition(i.Owner, i.Version))
	if cause == "" {
		return
	}
	if !s.brake(f, &s.killed, now) {
		f.why = "many instances fail their health checks at once: replacing them is slowed down"
		return
	}
	s.emit(unhealthyKill(i, cause, now))
	s.end(i, cause, d)
}

// brake takes one from the allowance of a window, or says no and has the app looked at when there is one again.
func (s *State) brake(f *fleet, used *[]time.Time, now time.Time) bool {
	*used = slices.DeleteFunc(*used, func(t time.Time) bool { return !t.Add(s.Policy.BrakeWindow).After(now) })
	if len(*used) >= max(s.Policy.BrakeFloor, int(math.Ceil(s.Policy.BrakeShare*float64(s.wanted())))) {
		f.wakeAt((*used)[0].Add(s.Policy.BrakeWindow))
		return false
	}
	*used = append(*used, now)
	return true
}

// wanted is how many instances all apps should have. What exists would be no measure: replacements add to it.
func (s *State) wanted() (n int) {
	for _, a := range s.Apps {
		n += a.Instances
	}
	return n
}

func (f *fleet) wakeAt(t time.Time) {
	if f.wake.IsZero() || t.Before(f.wake) {
		f.wake = t
	}
}

// end withdraws or stops an instance.
func (s *State) end(i *Instance, why string, d *Decision) {
	i.Stopping = true
	if i.Waiting {
		d.Withdraw = append(d.Withdraw, Withdraw{Ref{i.Owner, i.ID()}, i.Version})
		return
	}
	d.Stop = append(d.Stop, Stop{Ref{i.Owner, i.ID()}, why})
}

// endIf ends those of a list that match and returns the others. Running ones are left alone until the view is complete.
func (s *State) endIf(list []*Instance, c *census, d *Decision, why string, match func(*Instance) bool) []*Instance {
	return slices.DeleteFunc(list, func(i *Instance) bool {
		if !match(i) || !s.Complete && !i.Waiting {
			return false
		}
		s.end(i, why, d)
		if !i.Waiting { // one that waits may have been placed in the meantime: it counts until the kernel has been asked
			c.ending++
		}
		return true
	})
}

// decideGone ends every instance of an app that should not be.
func (s *State) decideGone(id string, f *fleet, c *census, d *Decision) {
	always := func(*Instance) bool { return true }
	c.fresh = s.endIf(c.fresh, c, d, "the app was removed", always)
	s.endLost(c, d)
	f.done = c.live == 0
	if !f.done {
		f.why = fmt.Sprintf("%d instances are stopping", c.live)
	}
	if f.instances.Len() == 0 && !slices.ContainsFunc(s.Deployments, func(d *Deployment) bool { return d.change(id) != nil }) {
		delete(s.fleets, id)
	}
}

// endLost tells instances that were given up to stop, should their machines return.
func (s *State) endLost(c *census, d *Decision) {
	for _, i := range c.lost {
		if !i.Stopping {
			s.end(i, "its machine did not answer and it is not wanted any more", d)
		}
	}
}

// rollStep ends instances of old versions as far as enough healthy ones remain, and returns how many may live at once.
//
// With n instances wanted, at least ceil(n*minimumHealthCapacity) stay healthy and at most
// floor(n*(1+maximumOverCapacity)) live; where these are equal nothing could ever move, and one more may live.
func (s *State) rollStep(g goal, c *census, d *Decision) int {
	least, most := bounds(g.n, g.def.UpgradeStrategy)
	c.old = s.endIf(c.old, c, d, "", func(i *Instance) bool { return i.Waiting })
	c.lost = slices.DeleteFunc(c.lost, func(i *Instance) bool {
		if i.Version != g.def.Config() && !i.Stopping {
			s.end(i, "its version is replaced", d)
		}
		return false
	})
	healthyFresh := 0
	for _, i := range c.fresh {
		if i.healthy(g.def) {
			healthyFresh++
		}
	}
	sick := map[*Instance]bool{}
	for _, i := range c.old {
		if !i.healthy(s.definition(i.Owner, i.Version)) {
			sick[i] = true
		}
	}
	// Those that are not healthy go first: a healthy one goes only if enough healthy ones remain.
	s.order(c.old, g, sick)
	spare := len(c.old) + healthyFresh - least
	c.old = s.endIf(c.old, c, d, "replaced by version "+g.def.Config(), func(*Instance) bool {
		spare--
		return spare >= 0
	})
	return most
}

// bounds are the least healthy and the most living instances while n are being replaced.
func bounds(n int, u marathon.UpgradeStrategy) (least, most int) {
	least = int(math.Ceil(float64(n)*u.MinimumHealthCapacity - rounding))
	most = int(math.Floor(float64(n)*(1+u.MaximumOverCapacity) + rounding))
	if least == most {
		most++
	}
	return least, most
}

// endSurplus ends what is above the goal's number: those that do least first.
func (s *State) endSurplus(g goal, c *census, d *Decision) {
	surplus := len(c.fresh) - g.n
	if surplus <= 0 {
		return
	}
	sick := map[*Instance]bool{}
	for _, i := range c.fresh {
		if !i.healthy(s.definition(i.Owner, i.Version)) {
			sick[i] = true
		}
	}
	s.order(c.fresh, g, sick)
	c.fresh = s.endIf(c.fresh, c, d, "surplus", func(*Instance) bool {
		surplus--
		return surplus >= 0
	})
}

// order sorts instances by who goes first: waiting, unreachable, less advanced, not healthy, of another version, and
// then by age as the app's killSelection says. What is not healthy comes before what is, so that nothing done here
// lowers the healthy ones.
func (s *State) order(list []*Instance, g goal, sick map[*Instance]bool) {
	rank := func(i *Instance) int {
		switch {
		case i.Waiting:
			return 0
		case !i.Away.IsZero():
			return 2
		case i.State() < kernel.Running:
			return 3 + int(i.State())
		case sick[i]:
			return 8
		case i.Version != g.def.Config():
			return 9
		}
		return 10
	}
	slices.SortStableFunc(list, func(a, b *Instance) int {
		if c := cmp.Compare(rank(a), rank(b)); c != 0 {
			return c
		}
		age := s.started(b).Compare(s.started(a))
		if g.def.KillSelection == "OLDEST_FIRST" {
			age = -age
		}
		return cmp.Or(age, cmp.Compare(a.ID(), b.ID()))
	})
}

// backingOff reports whether the app's next launch has to wait, and has it looked at when it need not.
func (s *State) backingOff(f *fleet, a *marathon.App, now time.Time) bool {
	if f.backoff.Version != a.Config() || !f.backoff.Until.After(now) {
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
func (s *State) judge(f *fleet, g goal, c *census) {
	waiting, starting, healthy := 0, 0, 0
	for _, i := range c.fresh {
		switch {
		case i.Waiting:
			waiting++
		case i.healthy(s.definition(i.Owner, i.Version)):
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
