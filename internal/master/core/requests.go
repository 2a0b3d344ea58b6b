package core

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/expose"
	"github.com/marinaos/marina/internal/master/queue"
	"github.com/marinaos/marina/internal/master/row"
)

// launched is a request to launch that is to be answered at the end of the step.
type launched struct {
	reply     int // in the step's effects
	instances []kernel.InstanceID
	entry     *queue.Entry
}

// launch makes instances wait, and answers at the end of the step, when it is known which of them are placed.
func (s *State) launch(ev event.Launch) error {
	r := &ev.LaunchRequest
	if err := s.checkLaunch(r); err != nil {
		return err
	}
	key := queue.Key{Framework: r.Spec.Framework, Key: r.Key}
	e := s.queue.Get(key)
	if e != nil && e.Spec.ID != r.Spec.ID {
		placer{&s.tables}.serve()
		e = s.queue.Get(key)
	}
	if e != nil && e.Spec.ID != r.Spec.ID {
		return fmt.Errorf("launch %s: other groups wait under this key with another spec: withdraw them first: %w", r.Key,
			errdefs.ErrAlreadyExists)
	}
	if err := s.vips.Check(&r.Spec); err != nil {
		return err
	}
	if err := s.reservations.Check(&r.Spec); err != nil {
		return err
	}
	sp, err := s.specs.Add(r.Spec, s.now)
	if err != nil {
		return err
	}
	if e == nil {
		e = &queue.Entry{Key: key, Spec: sp, Since: s.now}
	}
	for _, id := range r.Instances {
		if s.instance(id) == nil && !s.ended.Has(key.Framework, id) && s.queue.Add(e, id) {
			s.specs.Wait(sp, 1)
		}
	}
	s.specs.FreeUnused(sp, s.now)
	s.step.launched = append(s.step.launched, launched{reply: len(s.step.fx.Replies), instances: r.Instances, entry: e})
	s.step.reply(Reply{Request: ev.Request})
	return nil
}

// answerLaunches says what became of the instances that were to be launched in this step.
func (s *State) answerLaunches() {
	for _, l := range s.step.launched {
		result := &kernel.LaunchResult{Waiting: len(l.entry.Instances)}
		for _, id := range l.instances {
			if i := s.instance(id); i != nil && i.Framework == l.entry.Framework {
				result.Placed = append(result.Placed, i.Record)
			}
		}
		if result.Waiting > 0 {
			result.Refusal = new(s.refusal(l.entry))
		}
		s.step.fx.Replies[l.reply].Launch = result
	}
}

func (s *State) checkLaunch(r *kernel.LaunchRequest) error {
	bad := func(format string, args ...any) error {
		args = append(append([]any{r.Key}, args...), errdefs.ErrInvalidArgument)
		return fmt.Errorf("launch %.64s: "+format+": %w", args...)
	}
	switch {
	case r.Key == "" || len(r.Key) > MaxKeyBytes:
		return bad("a key has 1 to %d bytes", MaxKeyBytes)
	case r.Spec.ID == "":
		return bad("the spec is not sealed")
	case len(r.Instances) == 0 || len(r.Instances) > kernel.MaxLaunchInstances:
		return bad("%d groups, expected 1 to %d", len(r.Instances), kernel.MaxLaunchInstances)
	}
	for _, id := range r.Instances {
		if id == "" || len(id) > MaxInstanceIDBytes {
			return bad("a group's id has 1 to %d bytes", MaxInstanceIDBytes)
		}
	}
	if n := s.queue.Waits(r.Spec.Framework); n+len(r.Instances) > s.cfg.MaxWaiting {
		return fmt.Errorf("launch %s: %d groups wait already, at most %d may: %w", r.Key, n, s.cfg.MaxWaiting,
			errdefs.ErrResourceExhausted)
	}
	return nil
}

// withdraw takes instances out of an entry of the queue, and returns those that were in it.
func (s *State) withdraw(ev event.Withdraw) []kernel.InstanceID {
	e := s.queue.Get(queue.Key{Framework: ev.Framework, Key: ev.Key})
	if e == nil {
		return nil
	}
	p := placer{&s.tables}
	out := p.withdraw(e, ev.Instances)
	p.compact()
	return out
}

// stopAll stops instances that are placed, and withdraws those that wait.
func (s *State) stopAll(ev event.Stop) {
	p := placer{&s.tables}
	for _, id := range ev.Instances {
		if i := s.instance(id); i != nil && i.Framework == ev.Framework {
			s.stop(i, ev.Why)
		} else if e := s.queue.Of(id); e != nil && e.Framework == ev.Framework {
			p.withdraw(e, []kernel.InstanceID{id})
		}
	}
	p.compact()
}

// forget gives up instances of agents that are away; all of them or, with an error, none.
func (s *State) forget(ev event.Forget) error {
	var found []*instance
	for _, id := range ev.Instances {
		i := s.instance(id)
		if i == nil || i.Framework != ev.Framework || slices.Contains(found, i) {
			continue
		}
		if i.agent.away.IsZero() {
			return fmt.Errorf("group %s: its agent %s is not away: stop it instead: %w", id, i.agent.info.ID,
				errdefs.ErrFailedPrecondition)
		}
		found = append(found, i)
	}
	if len(found) == 0 {
		return nil
	}
	if err := s.fleet.checkBrake(s.cfg.ForgetPercent); err != nil {
		return err
	}
	for _, i := range found {
		s.giveUp(i, "its agent was given up")
	}
	return nil
}

// resize changes what an instance's tasks have, when its machine and the quota have as much.
func (s *State) resize(ev event.Resize) error {
	i := s.instance(ev.Instance)
	if i == nil || i.Framework != ev.Framework || i.Goal() != kernel.GoalRun {
		return fmt.Errorf("group %s: it does not run: %w", ev.Instance, errdefs.ErrNotFound)
	}
	if len(ev.Sizes) != len(i.spec.Tasks) {
		return fmt.Errorf("group %s: %d sizes for %d tasks: %w", ev.Instance, len(ev.Sizes), len(i.spec.Tasks),
			errdefs.ErrInvalidArgument)
	}
	g := i.Assignment()
	had := g.Sizes
	g.Sizes = slices.Clone(ev.Sizes)
	for k := range g.Sizes {
		if !g.Sizes[k].Guarantee.Valid() {
			return fmt.Errorf("group %s: task %s would be guaranteed less than nothing: %w", ev.Instance, i.spec.Tasks[k].Name,
				errdefs.ErrInvalidArgument)
		}
	}
	if slices.Equal(g.Sizes, had) {
		return nil
	}
	need := g.Guarantee(&i.spec.Spec)
	more := need.Sub(i.need())
	if lacks := s.capacity.lacks(i, more); lacks != "" {
		return fmt.Errorf("group %s: %s: %w", ev.Instance, lacks, errdefs.ErrResourceExhausted)
	}
	s.capacity.resize(i, need)
	grown := invariant.Placement{Instance: g.ID, Agent: i.agent.info.ID, Role: i.spec.Role, Guarantee: more}
	s.step.charge(Charge{Placement: grown})
	i.resized = true
	s.reassign(i, &g)
	s.step.capacityAppeared()
	return nil
}

// release gives reservations up; all of them or, with an error, none.
func (s *State) release(ev event.Release) error {
	found, err := s.reservations.GiveUp(ev.Framework, ev.Reservations)
	if err != nil {
		return err
	}
	for e := range s.queue.All {
		k := &e.Spec.Spec
		if c := s.reservations.Of(k); c != nil && c.Lost { // nothing is taken from who waits for it
			continue
		}
		if e.Framework == ev.Framework && k.Reservation != nil && slices.Contains(ev.Reservations, k.Reservation.Name) {
			return fmt.Errorf("claim %s: group %s waits to be placed with it: withdraw it first: %w", k.Reservation.Name,
				e.Instances[0], errdefs.ErrFailedPrecondition)
		}
	}
	for _, c := range found {
		if c.Lost {
			s.dropReservation(c)
			continue
		}
		s.reservations.MarkReleased(c)
		if a := s.fleet.get(c.Agent); a != nil {
			out := s.step.outbox(a)
			out.releases = append(out.releases, c.ID())
		}
	}
	return nil
}

// expose gives an owner's instances other further ports than before. What is refused changes nothing.
func (s *State) expose(ev event.Expose) ([]kernel.EndpointPort, error) {
	ask := expose.Row{Framework: ev.Framework, Owner: ev.Owner, Ports: ev.Ports}
	if s.exposed.Has(&ask) { // nobody is told that nothing changes
		return s.exposed.Given(ev.Framework, ev.Owner), nil
	}
	if len(ev.Ports) > kernel.MaxExposed {
		return nil, fmt.Errorf("%s: %d ports to expose, at most %d may be: %w", ev.Owner, len(ev.Ports), kernel.MaxExposed,
			errdefs.ErrResourceExhausted)
	}
	if err := s.checkPublished(&ask); err != nil {
		return nil, err
	}
	ports, err := s.exposed.Make(ask, s.now)
	if err != nil {
		return nil, err
	}
	s.setExposed(&ask, ports)
	s.step.dirty(row.Row{Kind: row.Exposed, ID: ask.ID()})
	return s.exposed.Given(ev.Framework, ev.Owner), nil
}

// checkPublished refuses ports of the machines' own addresses that somebody else publishes.
func (s *State) checkPublished(ask *expose.Row) error {
	for _, p := range ask.Ports {
		if !p.Publish {
			continue
		}
		owner := s.exposed.Publisher(ask, p.Service)
		if other := s.specs.Publisher(ask, p.Service); owner == "" || other != "" && other < owner {
			owner = other
		}
		if owner != "" {
			return fmt.Errorf("port %d of the machines is published by %s: %w", p.Service, owner, errdefs.ErrAlreadyExists)
		}
	}
	return nil
}

// setQuota gives a role a quota, or takes it away.
func (s *State) setQuota(ev event.SetQuota) error {
	tree := s.capacity.tree()
	if ev.Remove {
		if _, ok := tree.Quota(ev.Quota.Role); !ok {
			return fmt.Errorf("quota of %.64s: %w", ev.Quota.Role, errdefs.ErrNotFound)
		}
		tree.Remove(ev.Quota.Role)
	} else {
		if err := tree.Check(ev.Quota, ev.Force); err != nil {
			return err
		}
		tree.Set(ev.Quota)
	}
	s.step.dirty(row.Row{Kind: row.Quota, ID: ev.Quota.Role})
	s.step.capacityAppeared()
	return nil
}
