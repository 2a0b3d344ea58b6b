package core

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Step applies events in order, all at the time now, and returns what follows. It has no other input: the same state,
// times and events give the same effects. Time must not run backwards; if it does, the latest seen counts.
//
// The state is ahead of the store until the effects' writes are durable. Should they fail, or should nobody know
// whether they did, the state is worthless and the next leader loads what is durable.
func (s *State) Step(now time.Time, events ...Event) Effects {
	s.begin(now)
	for _, ev := range events {
		s.apply(ev)
	}
	s.checkAgents()
	s.vips.Expire(s.now)
	s.attendQueue()
	s.serveQueue()
	s.answerLaunches()
	s.flushEndpoints()
	return s.finish()
}

// Steps cuts events into the parts that are to be steps: as few as can be, but an event that changes what placements
// are judged by is one of its own, so that whoever judges a step does so by what held when it was decided.
func Steps(events []Event) iter.Seq[[]Event] {
	return func(yield func([]Event) bool) {
		from := 0
		for k, ev := range events {
			if !alone(ev) {
				continue
			}
			if from < k && !yield(events[from:k]) || !yield(events[k:k+1]) {
				return
			}
			from = k + 1
		}
		if from < len(events) {
			yield(events[from:])
		}
	}
}

// alone reports whether an event is a step of its own.
func alone(ev Event) bool {
	switch ev.(type) {
	case AgentUp, SetQuota, RemoveAgent:
		return true
	}
	return false
}

func (s *State) begin(now time.Time) {
	if s.began.IsZero() {
		s.began, s.now = now, now
		for _, a := range s.order {
			a.heard, a.since = now, now
			s.altered(a)
		}
		s.vips.Begin(now)
	}
	if now.After(s.now) {
		s.now = now
	}
	if late := s.now.Sub(s.wakeAt); !s.wakeAt.IsZero() && late > lateTick {
		s.excuse(late)
	}
}

// excuse does not count silence while this process itself was not listening: it was paused, or starved, and what
// agents said meanwhile has yet to be read.
func (s *State) excuse(late time.Duration) {
	for _, a := range s.order {
		if a.away.IsZero() {
			a.heard = a.heard.Add(late)
		}
	}
	if !s.complete {
		s.began = s.began.Add(late)
	}
}

func (s *State) apply(ev Event) {
	switch ev.(type) {
	case AgentUp, Frame, AgentDown, Launch, Tick:
	default: // other requests find what was launched before them placed, if it can be
		s.serveQueue()
	}
	switch ev := ev.(type) {
	case AgentUp:
		s.agentUp(ev)
	case Frame:
		s.frame(ev)
	case AgentDown:
		s.agentDown(ev)
	case Launch:
		if err := s.launch(ev); err != nil {
			s.reply(Reply{Request: ev.Request, Err: err})
		}
	case Withdraw:
		s.reply(Reply{Request: ev.Request, Withdrawn: s.withdraw(ev.Framework, ev.Key, ev.Instances)})
	case Stop:
		s.stop(ev.Framework, ev.Instances, ev.Why)
		s.reply(Reply{Request: ev.Request})
	case Forget:
		s.reply(Reply{Request: ev.Request, Err: s.forget(ev.Framework, ev.Instances)})
	case Resize:
		s.reply(Reply{Request: ev.Request, Err: s.resize(ev)})
	case Release:
		s.reply(Reply{Request: ev.Request, Err: s.release(ev.Framework, ev.Reservations)})
	case Expose:
		ports, err := s.expose(ev)
		s.reply(Reply{Request: ev.Request, Exposed: ports, Err: err})
	case SetQuota:
		s.reply(Reply{Request: ev.Request, Err: s.setQuota(ev)})
	case Reserve:
		s.reply(Reply{Request: ev.Request, Err: s.reserve(ev)})
	case RemoveAgent:
		what, err := s.removeAgent(ev)
		s.reply(Reply{Request: ev.Request, Removal: what, Err: err})
	case SetPool:
		s.reply(Reply{Request: ev.Request, Err: s.setPool(ev)})
	case Tick:
	default:
		panic(fmt.Sprintf("core: unknown event %T", ev))
	}
}

func (s *State) reply(r Reply) { s.step.fx.Replies = append(s.step.fx.Replies, r) }

// finish turns what gathered during the step into effects and makes ready for the next.
func (s *State) finish() Effects {
	fx := s.step.fx
	for _, a := range s.step.touched {
		if a.session != 0 && a.broken == "" {
			fx.Sends = s.frames(fx.Sends, a)
		}
		a.empty()
		a.out = nil
	}
	for _, i := range s.step.changed {
		i.changed = false
		fx.Changes = append(fx.Changes, i.Record)
	}
	fx.Writes = slices.SortedFunc(maps.Keys(s.step.dirty), Row.Compare)
	fx.Complete = s.complete
	fx.Wake = s.Wake()
	s.wakeAt = fx.Wake
	s.endpoints.Done()
	clear(s.step.dirty)
	s.step = step{dirty: s.step.dirty, changed: s.step.changed[:0], touched: s.step.touched[:0],
		fresh: s.step.fresh[:0], launched: s.step.launched[:0]}
	return fx
}

// Wake is when the next Tick is due.
func (s *State) Wake() time.Time {
	at := s.nextCheck
	for _, t := range []time.Time{s.vips.Wake(), s.endpointsWake(), s.attendWake()} {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at
}

// roomAppeared tells watchers and has the queue tried at the end of the step.
func (s *State) capacityAppeared() {
	s.step.fx.Room = true
	s.step.retry = true
}

// frames appends what an agent's outbox says, as one frame or, when specs are many, several.
func (s *State) frames(sends []Send, a *agent) []Send {
	emit := func(d kernel.Down) {
		a.downSeq++
		d.Epoch, d.Seq = s.cfg.Epoch, a.downSeq
		sends = append(sends, Send{Session: a.session, Down: d})
	}
	d := kernel.Down{Drop: a.out.drops, Acks: a.out.acks, Release: a.out.releases}
	instances := a.out.groups
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
	if s.complete {
		deltas = s.endpoints.For(&a.reader, s.all)
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
	return sends
}
