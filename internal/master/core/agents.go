package core

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/endpoint"
	"github.com/marinaos/marina/internal/master/event"
)

// sessions take in what agents say.
type sessions struct{ *tables }

// up starts a session: the agent is told everything anew, and what it says of its tasks counts.
func (t sessions) up(ev event.AgentUp) {
	reg := &ev.Registration
	if why := t.refuse(reg); why != "" {
		t.step.endSession(ev.Session, why)
		return
	}
	if t.removed.Has(reg.Agent.ID) {
		t.dismiss(ev.Session, 1, reg.Agent.ID)
		return
	}
	a := t.fleet.get(reg.Agent.ID)
	if a == nil {
		a = &agent{info: &kernel.Agent{ID: reg.Agent.ID}, registered: t.now, reported: true}
		t.fleet.add(a)
	}
	if a.session != 0 {
		t.closeSession(a, "another session of this agent began")
	}
	t.identify(a, reg.Agent)
	t.fleet.open(a, &ev, t.now)
	t.views.alter(a)
	a.reader = endpoint.Reader{}
	if reg.Epoch == t.cfg.Epoch {
		a.reader = endpoint.NewReader(reg.Endpoints)
	}
	t.step.outbox(a).sync = true
	t.hear(a)
	t.report(a)
	for k := range reg.Statuses {
		t.status(a, &reg.Statuses[k], true)
	}
}

// refuse says why a registration cannot be accepted, if so.
func (t sessions) refuse(reg *kernel.Registration) string {
	id := reg.Agent.ID
	a := t.fleet.get(id)
	raw, err := json.Marshal(reg.Agent)
	switch {
	case err != nil || len(raw) > maxAgentBytes:
		return fmt.Sprintf("what the agent says of itself has %d bytes, the limit is %d", len(raw), maxAgentBytes)
	case id == "" || len(id) > MaxInstanceIDBytes:
		return "the agent's id is empty or too long"
	case reg.Incarnation == "":
		return "the registration names no incarnation"
	case !reg.Agent.Total.Valid():
		return "the agent offers less than nothing"
	case reg.Epoch > t.cfg.Epoch:
		return fmt.Sprintf("the agent follows leader %d, this one is %d", reg.Epoch, t.cfg.Epoch)
	case a != nil && a.broken != "":
		return a.broken
	case a != nil && a.session != 0 && !a.suspect && slices.Contains(a.replaced, reg.Incarnation):
		// Only while the other one is heard: a registration of a process that is gone may arrive after its successor's.
		return "another process with this agent's identity took over from it: is its state directory a copy?"
	}
	return ""
}

// identify takes over what an agent says of itself, and gives a new one its subnet.
func (t sessions) identify(a *agent, info kernel.Agent) {
	if len(info.Warnings) == 0 {
		info.Warnings = nil // as it is read back from its row
	}
	t.interner.Agent(&info)
	if reflect.DeepEqual(*a.info, info) && a.subnet.IsValid() {
		return
	}
	moved := a.info.Address != info.Address
	a.info = &info
	t.views.alter(a)
	t.refresh(a)
	t.giveSubnet(a)
	t.capacity.pool.Set(a.machine())
	t.step.dirty(a.row())
	if moved {
		for i := range a.each {
			t.endpoints.Moved(i)
			t.change(i)
		}
	}
	t.step.capacityAppeared()
}

// report notes that an agent has said what it runs: what is known of its instances is no memory of an earlier leader
// any more.
func (t sessions) report(a *agent) {
	t.fleet.report(a)
	for i := range a.each {
		if !i.Known() {
			i.Record = i.At(a.site, true)
			t.change(i)
		}
	}
}

// hear notes a sign of life.
func (t sessions) hear(a *agent) {
	if back := t.fleet.hear(a, t.now, t.cfg.Suspect); back {
		t.views.alter(a)
		t.refresh(a)
	}
	if a.broken == "" && !t.capacity.pool.IsOpen(a.info.ID) {
		t.capacity.pool.Open(a.info.ID, true)
		t.step.capacityAppeared()
	}
}

// frame takes in a later frame of a session.
func (t sessions) frame(ev event.Frame) {
	a := t.fleet.sessions[ev.Session]
	if a == nil {
		if why, ok := t.removed.Heard(&ev); ok {
			t.step.endSession(ev.Session, why)
		}
		return
	}
	if ev.Up.Seq <= a.upSeq {
		return
	}
	if ev.Up.Seq != a.upSeq+1 {
		t.closeSession(a, fmt.Sprintf("frame %d came after frame %d", ev.Up.Seq, a.upSeq))
		return
	}
	a.upSeq = ev.Up.Seq
	t.hear(a)
	for k := range ev.Up.Statuses {
		t.status(a, &ev.Up.Statuses[k], false)
	}
	for _, id := range ev.Up.Released {
		t.released(a, id)
	}
}

// down takes in that a session was lost.
func (t sessions) down(ev event.AgentDown) {
	t.removed.Lost(ev.Session)
	if a := t.fleet.sessions[ev.Session]; a != nil {
		t.loseSession(a)
	}
}

// closeSession closes a session from this side.
func (t sessions) closeSession(a *agent, why string) {
	t.step.endSession(a.session, why)
	t.loseSession(a)
}

func (t sessions) loseSession(a *agent) {
	t.fleet.close(a, t.now)
	t.views.alter(a)
	t.shut(a)
}

// shut keeps further instances from an agent. What it counted for may have kept others from being chosen.
func (t sessions) shut(a *agent) {
	t.capacity.pool.Open(a.info.ID, false)
	t.step.retry = true
}

// check finds the agents that have been silent for too long.
func (t sessions) check() {
	t.fleet.check(t.now, &t.cfg, func(a *agent) {
		t.shut(a)
		if !a.away.IsZero() {
			t.views.alter(a)
			t.refresh(a)
		}
	})
}

// status takes in what an agent says of a task. An instance that is not the agent's is dropped there, an ended one
// acknowledged.
func (t sessions) status(a *agent, st *kernel.Status, syncing bool) {
	i := t.instance(st.Instance)
	if i == nil || i.agent != a {
		if st.State.Terminal() {
			out := t.step.outbox(a)
			out.acks = append(out.acks, kernel.StatusAck{Task: st.Task, Seq: st.Seq})
		} else if out := t.step.outbox(a); !syncing && !slices.Contains(out.drops, st.Instance) {
			out.drops = append(out.drops, st.Instance)
		}
		return
	}
	k := i.Find(st.Task)
	if k < 0 {
		return
	}
	statuses := i.Statuses()
	if old := &statuses[k]; old.State.Terminal() || st.Seq == old.Seq || st.Seq < old.Seq && !syncing {
		return // repeated or late; a registration is never late, even if its agent has lost count
	}
	statuses[k] = *st
	if len(st.Message) > kernel.MaxMessage {
		statuses[k].Message = strings.ToValidUTF8(st.Message[:kernel.MaxMessage], "")
	}
	i.Record = i.Report(statuses)
	if !st.State.Terminal() {
		t.change(i)
		return
	}
	for n := range statuses {
		if !statuses[n].State.Terminal() { // tasks of an instance end together
			t.stop(i, fmt.Sprintf("its task %s ended", st.Task))
			t.change(i)
			return
		}
	}
	out := t.step.outbox(a)
	for n := range statuses {
		out.acks = append(out.acks, kernel.StatusAck{Task: statuses[n].Task, Seq: statuses[n].Seq})
	}
	t.end(i)
}

// released ends a reservation of which its agent has nothing left.
func (t sessions) released(a *agent, id string) {
	c := t.reservations.Get(id)
	if c == nil || !c.Released || c.Agent != a.info.ID {
		return
	}
	t.capacity.returnReserved(c)
	t.dropReservation(c)
}
