package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
	services "github.com/marinaos/marina/internal/services/core"
	"github.com/marinaos/marina/internal/sim/rare"
	"github.com/marinaos/marina/internal/store"
)

// intents are the rows of services in the store: apps as they should be, and the deployments under way. It changes only
// at the moment at which a fenced write takes effect. Its values are never changed in place.
type intents struct {
	apps        map[string]*marathon.App
	deployments []*services.Deployment
}

// servicesLoop drives the pure core of services as its real loop does: observe, decide, carry out, again. It lives and
// dies with its leader.
type servicesLoop struct {
	m     *master
	state *services.State
	busy  bool // a decision or a change is being carried out
	news  []*kernel.Record
	done  bool // of the news: Complete
	asks  []func()
	wake  time.Duration
	away  bool // some instance has been away
}

func newServicesLoop(m *master) *servicesLoop {
	s := &servicesLoop{m: m, state: services.NewState()}
	s.state.Policy.ForgetRetry = 2 * time.Second
	for _, id := range slices.Sorted(maps.Keys(m.w.intents.apps)) {
		s.state.SetApp(id, m.w.intents.apps[id])
	}
	for _, d := range m.w.intents.deployments {
		own := *d
		s.state.Deployments = append(s.state.Deployments, &own)
	}
	return s
}

// hear takes news of the kernel. While a decision is being carried out, later news of an instance take the place of
// earlier.
func (s *servicesLoop) hear(changes []*kernel.Record, complete bool) {
	for _, c := range changes {
		if c.Framework != marathon.Framework {
			continue
		}
		s.away = s.away || !c.Away.IsZero()
		if at := slices.IndexFunc(s.news, func(n *kernel.Record) bool { return n.ID() == c.ID() }); at >= 0 {
			s.news[at] = c
		} else {
			s.news = append(s.news, c)
		}
	}
	if s.done = complete; len(s.news) > 0 || complete != s.state.Complete {
		s.later(0, s.turn)
	}
}

func (s *servicesLoop) later(d time.Duration, do func()) {
	s.m.w.After(d, &s.m.Actor, func() {
		if s.m.marathon == s {
			do()
		}
	})
}

// turn goes once round the loop.
func (s *servicesLoop) turn() {
	if s.busy {
		return
	}
	w := s.m.w
	s.state.Observe(kernel.Changes{Instances: s.news, Complete: s.done}, s.m.clock())
	s.news = nil
	if len(s.asks) > 0 {
		ask := s.asks[0]
		s.asks = s.asks[1:]
		s.busy = true
		ask()
		return
	}
	d := services.Decide(s.state, s.m.clock(), func(app string) kernel.InstanceID {
		return kernel.InstanceID(fmt.Sprint(marathon.GroupPrefix(app), w.Serial()))
	})
	s.excuse()
	if len(d.Transitions)+len(d.Withdraw)+len(d.Stop)+len(d.Forget)+len(d.Launch) == 0 {
		s.wakeAt(d.Wake)
		return
	}
	s.busy = true
	s.advance(d.Transitions, func() { s.carryOut(&d) })
}

func (s *servicesLoop) idle() {
	s.busy = false
	s.later(0, s.turn)
}

func (s *servicesLoop) wakeAt(t time.Time) {
	if t.IsZero() {
		return
	}
	at := s.m.due(t)
	if s.wake > s.m.w.Now && s.wake <= at {
		return
	}
	s.wake = at
	s.later(at-s.m.w.Now, func() {
		if s.wake == at {
			s.wake = 0
			s.turn()
		}
	})
}

// excuse tells the judge which instances were given up because their machines are away.
func (s *servicesLoop) excuse() {
	if !s.away || s.m.w.judge.leader != s.m.Epoch() {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(s.state.Apps)) {
		for _, i := range s.state.Instances(id) {
			if i.Inactive && !s.m.w.judge.of(i.ID()).excused {
				s.m.w.judge.replaced(i.ID())
			}
		}
	}
}

// carryOut does what was decided, one thing after the other.
func (s *servicesLoop) carryOut(d *services.Decision) {
	switch {
	case len(d.Withdraw) > 0:
		x := d.Withdraw[0]
		d.Withdraw = d.Withdraw[1:]
		s.ask(d, func(r event.RequestID) event.Event {
			return event.Withdraw{Request: r, Framework: marathon.Framework, Key: services.Key(x.App, x.Version),
				Instances: []kernel.InstanceID{x.Instance}}
		}, nil, func(r brain.Reply) {
			d.Stop = append(s.state.Withdrawn([]services.Withdraw{x}, r.Withdrawn), d.Stop...)
		})
	case len(d.Stop) > 0:
		x := d.Stop[0]
		d.Stop = d.Stop[1:]
		s.m.note("stops: "+x.Why+":", string(x.Instance), 0, 0)
		s.ask(d, func(r event.RequestID) event.Event {
			return event.Stop{Request: r, Framework: marathon.Framework, Instances: []kernel.InstanceID{x.Instance}, Why: x.Why}
		}, nil)
	case len(d.Forget) > 0:
		x := d.Forget[0]
		d.Forget = d.Forget[1:]
		s.ask(d, func(r event.RequestID) event.Event {
			return event.Forget{Request: r, Framework: marathon.Framework, Instances: []kernel.InstanceID{x.Instance}}
		}, func(err error) bool {
			s.state.ForgetRefused([]services.Ref{x}, s.m.clock())
			return errdefs.IsFailedPrecondition(err)
		})
	case len(d.Launch) > 0:
		x := d.Launch[0]
		d.Launch = d.Launch[1:]
		spec, err := marathon.Spec(x.App)
		if err != nil {
			s.m.w.Fail("spec of %s: %v", x.App.ID, err)
			return
		}
		s.m.note("launches %d of", x.App.ID, int64(len(x.Groups)), 0)
		s.ask(d, func(r event.RequestID) event.Event {
			return event.Launch{Request: r, LaunchRequest: kernel.LaunchRequest{
				Key: services.Key(x.App.ID, x.App.Config()), Spec: spec, Instances: x.Groups}}
		}, nil)
	default:
		s.idle()
	}
}

// ask makes one request of the kernel and goes on with the rest of the decision. A refusal that refused does not take
// is an end of the simulation.
func (s *servicesLoop) ask(
	rest *services.Decision, event func(event.RequestID) event.Event, refused func(error) bool, took ...func(brain.Reply),
) {
	s.m.request(event, func(r brain.Reply) {
		if r.Err != nil && (refused == nil || !refused(r.Err)) {
			s.m.w.Fail("request of services: %v", r.Err)
			return
		}
		for _, take := range took {
			take(r)
		}
		s.later(0, func() { s.carryOut(rest) })
	})
}

// write makes a change of the intents durable and then goes on.
func (s *servicesLoop) write(change func(*intents), then func()) {
	w := s.m.w
	serial := fmt.Sprint(w.Serial())
	txn := store.Txn{Guards: []store.Guard{s.m.lead.Fence()}, Ops: []store.Op{store.Put(intentsKey, []byte(serial))}}
	w.commit(s.m, txn, func() {
		if item, err := w.store.Get(w.ctx, intentsKey); err == nil && string(item.Value) == serial {
			change(&w.intents)
		}
	}, func(err error) {
		if s.m.marathon != s {
			return
		}
		if err != nil {
			s.m.abdicate(err)
			return
		}
		then()
	})
}

var intentsKey = store.Key("sim", "intents")

// advance makes transitions durable.
func (s *servicesLoop) advance(list []services.Transition, then func()) {
	if len(list) == 0 {
		then()
		return
	}
	s.write(func(in *intents) {
		for _, t := range list {
			in.advance(t)
		}
	}, func() {
		for _, t := range list {
			s.m.note("comes to step %d of", t.Deployment.ID, int64(t.Step), 0)
			s.state.Advance(t, s.m.clock())
			if t.Finished() && s.m.Epoch() == s.m.w.judge.leader {
				s.m.w.Reach(rare.DeploymentFinished)
				for _, c := range t.Deployment.Changes {
					s.m.w.judge.deployed(c.App, c.To)
				}
			}
		}
		then()
	})
}

func (in *intents) advance(t services.Transition) {
	for i, d := range in.deployments {
		if d.ID != t.Deployment.ID {
			continue
		}
		if t.Finished() {
			in.deployments = slices.Delete(slices.Clone(in.deployments), i, i+1)
			return
		}
		next := *d
		next.Step = t.Step
		in.deployments[i] = &next
		return
	}
}

// deploy asks for a change of one app; to makes the next version out of the present one, nil if there is none.
func (s *servicesLoop) deploy(app string, force bool, to func(*marathon.App) *marathon.App) {
	s.asks = append(s.asks, func() {
		from := s.state.Apps[app]
		next := to(from)
		var locked []*services.Deployment
		for _, d := range s.state.Deployments {
			if slices.ContainsFunc(d.Changes, func(c services.Change) bool { return c.App == app }) {
				locked = append(locked, d)
			}
		}
		if next == from || len(locked) > 0 && !force {
			s.idle()
			return
		}
		root := maps.Clone(s.state.Apps)
		if root[app] = next; next == nil {
			delete(root, app)
		}
		id := fmt.Sprint("deployment-", s.m.w.Serial())
		d := services.NewDeployment(id, id, []services.Change{{App: app, From: from, To: next}}, root, s.state.Mixed)
		if len(locked) > 0 {
			s.m.w.Reach(rare.DeploymentForced)
		}
		s.m.note("begins "+id+" of %d steps for", app, int64(len(d.Steps)), 0)
		s.write(func(in *intents) { in.begin(d, locked) }, func() {
			s.state.Begin(d, locked)
			s.idle()
		})
		s.m.w.judge.deploys(app, next)
	})
	s.later(0, s.turn)
}

func (in *intents) begin(d *services.Deployment, locked []*services.Deployment) {
	in.deployments = slices.DeleteFunc(slices.Clone(in.deployments), func(o *services.Deployment) bool {
		return slices.ContainsFunc(locked, func(l *services.Deployment) bool { return l.ID == o.ID })
	})
	for _, c := range d.Changes {
		if in.apps[c.App] = c.To; c.To == nil {
			delete(in.apps, c.App)
		}
	}
	if len(d.Steps) > 0 {
		own := *d
		in.deployments = append(in.deployments, &own)
	}
}
