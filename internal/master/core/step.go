package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
)

// Step applies events in order, all at the time now, and returns what follows. It has no other input: the same state,
// times and events give the same effects. Time must not run backwards; if it does, the latest seen counts.
//
// The state is ahead of the store until the effects' writes are durable. Should they fail, or should nobody know
// whether they did, the state is worthless and the next leader loads what is durable.
func (s *State) Step(now time.Time, events ...event.Event) Effects {
	s.begin(now)
	for _, ev := range events {
		s.apply(ev)
	}
	sessions{&s.tables}.check()
	s.vips.Expire(s.now)
	preemptor{&s.tables}.attend()
	placer{&s.tables}.serve()
	s.answerLaunches()
	s.flushEndpoints()
	return s.finish()
}

func (s *State) begin(now time.Time) {
	if s.fleet.began.IsZero() {
		s.now = now
		s.fleet.begin(now)
		for _, a := range s.fleet.order {
			s.views.alter(a)
		}
		s.vips.Begin(now)
	}
	if now.After(s.now) {
		s.now = now
	}
	if late := s.now.Sub(s.wakeAt); !s.wakeAt.IsZero() && late > lateTick {
		s.fleet.excuse(late)
	}
}

func (s *State) apply(ev event.Event) {
	switch ev.(type) {
	case event.AgentUp, event.Frame, event.AgentDown, event.Launch, event.Tick:
	default: // other requests find what was launched before them placed, if it can be
		placer{&s.tables}.serve()
	}
	switch ev := ev.(type) {
	case event.AgentUp:
		sessions{&s.tables}.up(ev)
	case event.Frame:
		sessions{&s.tables}.frame(ev)
	case event.AgentDown:
		sessions{&s.tables}.down(ev)
	case event.Launch:
		if err := s.launch(ev); err != nil {
			s.step.reply(Reply{Request: ev.Request, Err: err})
		}
	case event.Withdraw:
		s.step.reply(Reply{Request: ev.Request, Withdrawn: s.withdraw(ev)})
	case event.Stop:
		s.stopAll(ev)
		s.step.reply(Reply{Request: ev.Request})
	case event.Forget:
		s.step.reply(Reply{Request: ev.Request, Err: s.forget(ev)})
	case event.Resize:
		s.step.reply(Reply{Request: ev.Request, Err: s.resize(ev)})
	case event.Release:
		s.step.reply(Reply{Request: ev.Request, Err: s.release(ev)})
	case event.Expose:
		ports, err := s.expose(ev)
		s.step.reply(Reply{Request: ev.Request, Exposed: ports, Err: err})
	case event.SetQuota:
		s.step.reply(Reply{Request: ev.Request, Err: s.setQuota(ev)})
	case event.Reserve:
		s.step.reply(Reply{Request: ev.Request, Err: machines{&s.tables}.reserve(ev)})
	case event.RemoveAgent:
		what, err := machines{&s.tables}.remove(ev)
		s.step.reply(Reply{Request: ev.Request, Removal: what, Err: err})
	case event.SetPool:
		s.step.reply(Reply{Request: ev.Request, Err: machines{&s.tables}.setPool(ev)})
	case event.Tick:
	default:
		panic(fmt.Sprintf("core: unknown event %T", ev))
	}
}

// finish turns what gathered during the step into effects and makes ready for the next.
func (s *State) finish() Effects {
	for _, a := range s.step.touched {
		if a.session != 0 && a.broken == "" {
			s.sendFrames(a)
		}
		a.empty()
	}
	s.endpoints.Done()
	s.queue.Done()
	fx := s.step.finish()
	fx.Complete = s.fleet.complete
	fx.Wake = s.Wake()
	s.wakeAt = fx.Wake
	return fx
}

// Wake returns when the next Tick is due, zero for never.
func (s *State) Wake() time.Time {
	at := s.fleet.nextCheck
	for _, t := range []time.Time{s.vips.Wake(), s.endpointsWake(), s.queue.Wake()} {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at
}

// sendFrames sends what an agent's outbox says, as one frame or, when specs are many, several.
func (s *State) sendFrames(a *agent) {
	emit := func(d kernel.Down) {
		a.downSeq++
		d.Epoch, d.Seq = s.cfg.Epoch, a.downSeq
		s.step.send(Send{Session: a.session, Down: d})
	}
	d := kernel.Down{Drop: a.out.drops, Acks: a.out.acks, Release: a.out.releases}
	instances := a.out.instances
	if a.out.sync {
		d.Sync, d.Subnet = true, a.subnet
		d.Network = &kernel.NetworkInfo{Pool: s.subnets.Prefix(), VIPs: s.cfg.VIPs}
		instances = slices.Collect(a.each)
		d.Drop = nil
		d.Release = s.reservations.ReleasedOn(a.info.ID)
	}
	size := 0
	for _, i := range instances {
		if i.Removed() {
			continue
		}
		d.Assignments = append(d.Assignments, i.Assignment())
		if slices.Contains(a.sent, i.spec) {
			continue
		}
		if size += i.spec.Size; size > specBytesFrame && len(d.Specs) > 0 {
			emit(kernel.Down{Specs: d.Specs})
			d.Specs, size = nil, i.spec.Size
		}
		a.sent = append(a.sent, i.spec)
		d.Specs = append(d.Specs, i.spec.Spec)
	}
	var deltas []*kernel.EndpointDelta
	if s.fleet.complete {
		deltas = s.endpoints.For(&a.reader, s.fleet.instances)
	}
	if len(deltas) > 0 {
		d.Endpoints, deltas = deltas[0], deltas[1:]
	}
	if d.Sync || d.Assignments != nil || d.Drop != nil || d.Acks != nil || d.Release != nil || d.Endpoints != nil {
		emit(d)
	}
	for _, delta := range deltas {
		emit(kernel.Down{Endpoints: delta})
	}
}
