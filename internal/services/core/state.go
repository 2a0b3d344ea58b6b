package core

import (
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// Limits and pauses of deciding. A State's Policy holds them so that tests and simulations may use others.
type Policy struct {
	// LaunchTimeout bounds the time from placed to running; then an instance is replaced.
	LaunchTimeout time.Duration
	// BrakeWindow, BrakeShare and BrakeFloor are the brake on unhealthy instances: in any window at most this share of
	// the instances that all apps should have, and never less than the floor, is killed for failing health checks. The
	// same amounts bound how many instances on machines that do not answer are given up while more than half of what all
	// apps should have are on such machines.
	BrakeWindow time.Duration
	BrakeShare  float64
	BrakeFloor  int
	// MinBackoff is the least pause after an instance ended by itself.
	MinBackoff time.Duration
	// ForgetRetry is the pause after the kernel refused to forget instances.
	ForgetRetry time.Duration
}

// DefaultPolicy is the policy of a datacenter.
var DefaultPolicy = Policy{
	LaunchTimeout: 30 * time.Minute, // DC/OS's task_launch_confirm_timeout
	BrakeWindow:   time.Minute, BrakeShare: 0.2, BrakeFloor: 3,
	MinBackoff: 100 * time.Millisecond, ForgetRetry: 10 * time.Second,
}

// State is everything that decisions are made from: what the store holds (Apps, Deployments), and what was seen and
// done since this leader began. It is made anew from the store and the kernel's instances by the next leader. It is
// not safe for concurrent use.
type State struct {
	Policy      Policy
	Apps        map[string]*marathon.App // what the API shows and the datacenter should come to
	Deployments []*Deployment            // running, oldest first
	Complete    bool                     // every agent has reported since this leader began, as the kernel told

	// Stack tells where a panic was, if it is set: what is pure cannot ask.
	Stack func() []byte

	asides
	clock
	journal

	fleets map[string]*fleet
	away   int         // instances on machines that do not answer, all apps
	killed []time.Time // kills for failing checks within the last BrakeWindow
	given  []time.Time // instances given up within the last BrakeWindow
}

// NewState returns a state without apps.
func NewState() *State {
	return &State{Policy: DefaultPolicy, Apps: map[string]*marathon.App{}, asides: newAsides(),
		fleets: map[string]*fleet{}}
}

func (s *State) fleet(app string) *fleet {
	f := s.fleets[app]
	if f == nil {
		f = &fleet{instances: kernel.NewIndex[*Instance](), stale: true}
		s.fleets[app] = f
	}
	return f
}

// Instances lists an app's instances by id.
func (s *State) Instances(app string) []*Instance {
	f := s.fleets[app]
	if f == nil {
		return nil
	}
	return slices.Clone(f.all())
}

// SetApp writes an app into the state, or removes it with nil. It is called once the change is durable.
func (s *State) SetApp(id string, a *marathon.App) {
	if a == nil {
		delete(s.Apps, id)
	} else {
		s.Apps[id] = a
	}
	s.lift(appSubject(id))
	delete(s.broken, id)
	f := s.fleet(id)
	f.parked, f.stale = "", true
}

// Away counts the instances on machines that do not answer.
func (s *State) Away() int { return s.away }

// Touch has the app looked at by the next Decide.
func (s *State) Touch(id string) { s.fleet(id).stale = true }

// ResetBackoff lets the app's next launch happen now.
func (s *State) ResetBackoff(id string) {
	f := s.fleet(id)
	f.backoff, f.stale = Backoff{}, true
}

// Observe takes in what the kernel says. Instances of unknown owners get stopped by the next Decide.
func (s *State) Observe(c kernel.Changes, now time.Time) {
	if c.Complete != s.Complete {
		s.Complete = c.Complete
		for _, f := range s.fleets {
			f.stale = true
		}
	}
	for _, k := range c.Instances {
		if p := s.catch(func() { s.observe(k, now) }); p != nil {
			s.news = append(s.news, s.ParkApp(k.Owner, "taking in news of its instance "+string(k.ID()), p, now))
		}
	}
}

func (s *State) observe(k *kernel.Record, now time.Time) {
	f := s.fleet(k.Owner)
	f.stale = true
	i, known := f.instances.Get(k.ID())
	if k.Removed() && !known {
		return
	}
	if !known {
		i = s.waiting(k.Origin, k.ID(), now)
		f.add(i)
	}
	old := *i
	if i.Waiting {
		i.since = s.moment(now)
	}
	if !i.Away.IsZero() {
		s.away--
	}
	i.Record, i.Waiting = k, false
	i.Stopping = i.Stopping || k.Goal() == kernel.GoalStop
	if k.Away.IsZero() {
		i.Inactive, i.forgotten = false, false
	} else {
		s.away++
	}
	s.changed(&old, i, now)
	if k.Removed() {
		s.ended(f, i, now)
	}
}

// ended drops an instance that is no more and lengthens the app's pause if it ended by itself.
func (s *State) ended(f *fleet, i *Instance, now time.Time) {
	if !i.Away.IsZero() {
		s.away--
	}
	f.drop(i.ID())
	state := i.State()
	switch {
	case i.Stopping, state == kernel.Killed, state == kernel.Gone, !state.Terminal():
		return
	}
	f.lastFailure = failureOf(i, now)
	if a := s.definition(i.Owner, i.Version); a != nil && a == s.goal(i.Owner).def {
		f.backoff.raise(a, now, s.Policy.MinBackoff)
	}
}

// Withdrawn takes in which of the instances that were to be withdrawn the kernel took out of its queue. The others
// were placed before, and are to be stopped: until the kernel's news tell of them they count.
func (s *State) Withdrawn(list []Withdraw, out []kernel.InstanceID) (placed []Stop) {
	gone := make(map[kernel.InstanceID]bool, len(out))
	for _, id := range out {
		gone[id] = true
	}
	for _, w := range list {
		f := s.fleet(w.App)
		if f.stale = true; gone[w.Instance] {
			f.drop(w.Instance)
		} else {
			placed = append(placed, Stop{w.Ref, "it was placed while it was to be withdrawn"})
		}
	}
	return placed
}

// LaunchFailed takes back instances that the kernel refused to take, with its reason.
func (s *State) LaunchFailed(l Launch, reason string, now time.Time) {
	f := s.fleet(l.App.ID)
	for _, id := range l.Groups {
		f.drop(id)
	}
	f.backoff.raise(l.App, now, s.Policy.MinBackoff)
	f.lastFailure = &marathon.TaskFailure{AppID: l.App.ID, Message: reason, State: kernel.Error.String(),
		TaskID:    string(l.Groups[0]) + marathon.TaskSuffix,
		Timestamp: marathon.Timestamp(now), Version: l.App.Config()}
	f.stale = true
}

// ForgetRefused has the instances kept for a while longer.
func (s *State) ForgetRefused(groups []Ref, now time.Time) {
	for _, r := range groups {
		f := s.fleet(r.App)
		if i, ok := f.instances.Get(r.Instance); ok {
			i.forgotten, i.forgetAt = false, s.moment(now.Add(s.Policy.ForgetRetry))
			f.stale = true
		}
	}
}

// Kill marks instances as stopping because somebody asked for it, and returns those that exist: running ones to be
// stopped and waiting ones to be withdrawn. The caller tells the kernel.
func (s *State) Kill(refs []Ref, why string) (d Decision) {
	for _, r := range refs {
		f := s.fleet(r.App)
		if i, ok := f.instances.Get(r.Instance); ok && !i.Stopping {
			d.end(i, why)
			f.stale = true
		}
	}
	return d
}

// definition is the app of the given config version, as far as it still matters: nil if it is neither wanted nor part
// of a running deployment.
func (s *State) definition(id, config string) *marathon.App {
	if a := s.Apps[id]; a != nil && a.Config() == config {
		return a
	}
	for _, d := range s.Deployments {
		if c := d.Change(id); c != nil {
			for _, a := range []*marathon.App{c.To, c.From} {
				if a != nil && a.Config() == config {
					return a
				}
			}
		}
	}
	return nil
}
