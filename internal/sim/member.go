package sim

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/sim/machine"
	"github.com/marinaos/marina/internal/sim/rare"
	"github.com/marinaos/marina/internal/store"
)

// Times of the masters and of their store.
const (
	election     = "master"
	lease        = 3 * time.Second
	electionMin  = 100 * time.Millisecond
	electionMax  = 1500 * time.Millisecond
	commitMin    = 500 * time.Microsecond
	commitMax    = 10 * time.Millisecond
	commitSlow   = 800 * time.Millisecond
	replyTimeout = 2 * time.Second
)

// jump sets the clock. What is scheduled by it is looked at again, as a timer would be.
func (m *master) jump(d time.Duration) {
	m.note("clock jumps by %d ms", "", d.Milliseconds(), 0)
	m.skew += d
	m.w.After(0, &m.Actor, func() { m.step(event.Tick{}) })
}

// campaign takes the leadership if it is free.
func (m *master) campaign() {
	if !m.up || m.state != nil {
		return
	}
	m.w.After(m.w.Slow(m.w.Dice.Between(electionMin, electionMax)), &m.Actor, m.campaign)
	if m.w.led() {
		return
	}
	lead, err := m.w.store.Campaign(context.Background(), election, m.name)
	if err != nil {
		m.w.Fail("campaign: %v", err)
		return
	}
	m.lead = lead
	m.w.judge.elected(lead.Epoch())
	m.note("leads with epoch %d", "", lead.Epoch(), 0)
	m.state = brain.NewState(m.w.policy(lead.Epoch()))
	for _, problem := range m.state.Load(m.w.rows().Items) {
		m.w.Fail("load: %v", problem)
	}
	m.missing = map[kernel.AgentID]bool{}
	for _, id := range m.w.judge.members.All() {
		m.missing[id] = true
	}
	m.requests, m.wake = map[event.RequestID]func(brain.Reply){}, 0
	m.scheduler = newScheduler(m)
	m.marathon = newServicesLoop(m)
	m.news, m.telling = nil, false
	m.deliver(m.state.Instances(""), m.state.Complete()) // schedulers begin with it
	m.step(event.Tick{})
}

// step feeds one event. Like the real loop it gathers events while a commit is under way and takes them all in one step
// after it; in some simulations it steps on at once, which the contract of Step allows as well.
func (m *master) step(e event.Event) {
	if m.state == nil {
		return
	}
	if m.releasing || m.committing && !m.w.climate.ahead {
		m.inbox = append(m.inbox, e)
		return
	}
	m.feed(e)
	m.flush()
}

// feed takes events through one step. A leader to which all members have reported waits for nobody.
func (m *master) feed(events ...event.Event) {
	fx := m.state.Step(m.clock(), events...)
	for _, e := range events {
		up, ok := e.(event.AgentUp)
		ended := func(end brain.SessionEnd) bool { return end.Session == up.Session }
		if ok && !slices.ContainsFunc(fx.Ends, ended) {
			delete(m.missing, up.Registration.Agent.ID)
		}
	}
	for id := range m.missing { // one that was removed since
		if !m.w.judge.members.Has(id) {
			delete(m.missing, id)
		}
	}
	if m.Epoch() == m.w.judge.leader {
		m.w.judge.Hold(m.w.judge.members.Awaited(fx.Complete, slices.Sorted(maps.Keys(m.missing))))
	}
	m.hold(fx)
}

// drain takes what gathered during a commit, in the steps in which the real loop would.
func (m *master) drain() {
	events := m.inbox
	m.inbox = nil
	for part := range event.Steps(events) {
		m.feed(part...)
	}
	m.flush()
}

func (m *master) hold(e brain.Effects) {
	m.held = append(m.held, m.spoil(e))
	m.tickAt(e.Wake)
}

// tickAt schedules the tick that is due at a time, unless an earlier one is scheduled.
func (m *master) tickAt(at time.Time) {
	if at.IsZero() {
		return
	}
	d := m.due(at)
	if m.wake != 0 && m.wake <= d {
		return
	}
	m.wake = d
	life := m.Epoch()
	m.w.After(d-m.w.Now, &m.Actor, func() {
		if m.Epoch() == life && m.wake == d {
			m.wake = 0
			m.step(event.Tick{})
		}
	})
}

// flush commits what is held, or releases it if nothing of it needs to be durable.
func (m *master) flush() {
	if m.committing || len(m.held) == 0 {
		return
	}
	batch := m.held
	m.held = nil
	rows := gather(batch)
	if len(rows) == 0 {
		m.release(batch)
		return
	}
	ops, err := m.state.Ops(rows)
	if err != nil {
		m.w.Fail("encode rows: %v", err)
		return
	}
	ops = m.w.turnover.spoil(ops)
	m.w.spoilOps(ops)
	m.committing = true
	if m.doomed {
		m.w.After(0, &m.w.nature, func() { m.w.killLeader(m) })
	}
	txn := store.Txn{Ops: ops}
	if !m.w.Plant.On(bug.SkipFence) {
		txn.Guards = []store.Guard{m.lead.Fence()}
	}
	m.w.commit(m, txn, nil, func(err error) {
		m.committing = false
		if errors.Is(err, store.ErrUnknownOutcome) && m.w.Plant.On(bug.TrustUnknownOutcome) {
			err = nil
		}
		if err != nil {
			m.abdicate(err)
			return
		}
		m.release(batch)
	})
}

// gather lists the rows that effects wrote, each once, in the order in which they may be written.
func gather(batch []brain.Effects) (rows []row.Row) {
	for i := range batch {
		rows = append(rows, batch[i].Writes...)
	}
	if len(batch) == 1 {
		return rows
	}
	slices.SortFunc(rows, func(a, b row.Row) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Chunk, b.Chunk))
	})
	return slices.Compact(rows)
}

// release lets effects out: frames, ends of sessions, answers, and news for the scheduler.
func (m *master) release(batch []brain.Effects) {
	life := m.Epoch()
	m.releasing = true
	for i := range batch {
		e := &batch[i]
		m.send(e.Sends)
		for _, end := range e.Ends {
			if l := m.link(end.Session); l != nil {
				m.w.Reach(rare.SessionEnded)
				l.CloseBy(false, end.Why)
				m.Lost(l)
			}
		}
		for _, r := range e.Replies {
			if done := m.requests[r.Request]; done != nil {
				delete(m.requests, r.Request)
				done(r)
			}
		}
		if m.Epoch() != life || m.scheduler == nil {
			return
		}
		if m.w.Plant.On(bug.NewsOutOfOrder) {
			e.Changes = batch[len(batch)-1-i].Changes
		}
		if m.w.judge.leader == life {
			m.w.judge.published(e.Changes)
		}
		m.tell(e.Changes, e.Complete)
	}
	m.releasing = false
	m.drain()
}

// tell gives news to the schedulers: at once or, in some simulations, late, and then of each instance only the
// latest, as the kernel's watches may.
func (m *master) tell(changes []*kernel.Record, complete bool) {
	if m.w.climate.lag == 0 {
		m.deliver(changes, complete)
		return
	}
	for i := range changes {
		if at := slices.IndexFunc(m.news, func(n *kernel.Record) bool { return n.ID() == changes[i].ID() }); at >= 0 {
			m.w.Reach(rare.NewsMerged)
			m.news[at] = changes[i]
			continue
		}
		m.news = append(m.news, changes[i])
	}
	if m.complete = complete; m.telling {
		return
	}
	m.telling = true
	s := m.scheduler
	m.w.After(m.w.Dice.Between(0, m.w.climate.lag), &m.Actor, func() {
		if m.scheduler == s {
			news := m.news
			m.news, m.telling = nil, false
			m.deliver(news, m.complete)
		}
	})
}

func (m *master) deliver(changes []*kernel.Record, complete bool) {
	if m.w.Plant.On(bug.NewsLost) {
		lost := func(i *kernel.Record) bool { return i.Removed() && m.w.Dice.Chance(0.2) }
		changes = slices.DeleteFunc(slices.Clone(changes), lost)
	}
	m.scheduler.hear(changes, complete)
	m.marathon.hear(changes, complete)
}

// Receive takes an agent's frame.
func (m *master) Receive(l *machine.Link, f kernel.Up) {
	if m.state == nil {
		return
	}
	session := event.SessionID(l.Serial)
	switch {
	case f.Register != nil && !l.Registered:
		l.Registered = true
		if m.Epoch() < m.w.judge.leader && m.w.Dice.Chance(0.5) {
			f.Register.Epoch = 0 // so that the agent's own fence is tried too, and not only this one
		}
		m.step(event.AgentUp{Session: session, Seq: f.Seq, Registration: *f.Register})
	case !l.Registered: // the first frame was lost
		m.w.Reach(rare.RegistrationLost)
		l.CloseBy(false, "the first frame is no registration")
		m.drop(l)
	default:
		m.step(event.Frame{Session: session, Up: f})
	}
}

// Lost hears that a session is over.
func (m *master) Lost(l *machine.Link) {
	if m.drop(l); l.Registered {
		m.step(event.AgentDown{Session: event.SessionID(l.Serial), Why: "the connection was lost"})
	}
}

func (m *master) drop(l *machine.Link) {
	for i, o := range m.links {
		if o == l {
			m.links = append(m.links[:i:i], m.links[i+1:]...)
			return
		}
	}
}

// request feeds a request and calls done with its reply once that is durable. Without leadership nothing is ever
// answered.
func (m *master) request(make func(event.RequestID) event.Event, done func(brain.Reply)) {
	if m.state == nil {
		return
	}
	m.lastID++
	e := make(m.lastID)
	if _, ok := e.(event.Forget); ok && m.w.Plant.On(bug.BrakeCountsRemoved) && m.w.turnover.brakeHolds() {
		done(brain.Reply{Request: m.lastID, Err: errdefs.ErrFailedPrecondition})
		return
	}
	m.requests[m.lastID] = done
	m.step(e)
}

// abdicate ends a tenure that cannot go on: everything in memory is given up, since it may not be what is durable.
func (m *master) abdicate(why error) {
	if m.state == nil {
		return
	}
	switch {
	case errors.Is(why, store.ErrFenced):
		m.w.Reach(rare.WriteFenced)
	case errors.Is(why, store.ErrConflict):
		m.w.Reach(rare.WriteConflicted)
	case errors.Is(why, store.ErrUnknownOutcome):
		m.w.Reach(rare.OutcomeUnknown)
	}
	m.note("abdicates, epoch %d: ", why.Error(), m.Epoch(), 0)
	m.forget()
	if err := m.lead.Resign(context.Background()); err != nil {
		m.w.Fail("resign: %v", err)
	}
	m.lead = nil
	m.w.observe(0)
	m.w.After(m.w.Slow(m.w.Dice.Between(electionMin, electionMax)), &m.Actor, m.campaign)
}

// forget drops all that a tenure had in memory.
func (m *master) forget() {
	m.state, m.scheduler, m.marathon, m.inbox, m.held, m.requests = nil, nil, nil, nil, nil, nil
	m.committing, m.releasing = false, false
	links := m.links
	m.links = nil
	for _, l := range links {
		if l.MasterEnd {
			l.MasterEnd = false
			l.Broken()
		}
	}
}

// kill ends the process. Its lease runs out by itself.
func (m *master) kill() {
	m.note("dies, epoch %d", "", m.Epoch(), 0)
	m.up, m.doomed = false, false
	m.forget()
	if m.lead != nil {
		m.w.expireLater(m.Epoch())
		m.lead = nil
	}
	m.Die()
}

// start begins the process anew.
func (m *master) start() {
	m.up = true
	m.campaign()
}

// pause stops the process as a signal would: it goes on where it was, which may be after somebody else leads.
func (m *master) pause(d time.Duration) {
	m.note("is paused for %d ms", "", d.Milliseconds(), 0)
	m.Paused = true
	life, e := m.Life, m.Epoch()
	if e != 0 {
		m.w.expireLater(e)
	}
	m.w.After(d, &m.w.nature, func() {
		if m.Life != life {
			return
		}
		m.note("resumes", "", 0, 0)
		m.w.Resume(&m.Actor)
		if e == 0 || m.Epoch() != e || m.w.judge.leader == e && m.w.led() {
			return
		}
		m.w.Reach(rare.ZombieResumed)
		m.w.After(m.w.Dice.Between(500*time.Millisecond, 6*time.Second), &m.Actor, func() { // its clock tells it
			if m.Epoch() == e {
				m.abdicate(store.ErrLeadershipLost)
			}
		})
	})
}

// killLeader ends a master's process that is to die, for a while.
func (w *World) killLeader(m *master) {
	if !m.doomed {
		return
	}
	m.kill()
	w.After(w.Dice.Between(500*time.Millisecond, 10*time.Second), &w.nature, func() {
		if !m.up {
			m.start()
		}
	})
}
