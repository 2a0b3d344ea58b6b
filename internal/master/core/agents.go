package core

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/endpoint"
	"github.com/marinaos/marina/internal/placement"
)

// refreshSite replaces the Site that the agent's instances show, and reports whether it changed. Records made before
// keep the old one.
func (a *agent) refreshSite() bool {
	now := kernel.Host{Agent: a.info.ID, Hostname: a.info.Hostname, Away: a.away}
	if a.site != nil && *a.site == now {
		return false
	}
	a.site = &now
	return true
}

// shown has all instances of an agent show what it is now.
func (s *State) shown(a *agent) {
	if !a.refreshSite() {
		return
	}
	for i := range a.each {
		i.Record = i.At(a.site, i.Known())
		s.change(i)
	}
}

func (a *agent) machine() placement.Machine {
	return placement.Machine{ID: a.info.ID, Hostname: a.info.Hostname, Region: a.info.Region, Zone: a.info.Zone,
		Attributes: a.info.Attributes, Bundles: a.info.Bundles, Total: a.info.Total, Ports: a.info.Ports, Subnet: a.subnet}
}

// agentUp starts a session: the agent is told everything anew, and what it says of its tasks counts.
func (s *State) agentUp(ev AgentUp) {
	reg := &ev.Registration
	if why := s.refuseAgent(reg); why != "" {
		s.step.fx.Ends = append(s.step.fx.Ends, SessionEnd{ev.Session, why})
		return
	}
	if gone := s.removed.rows[reg.Agent.ID]; gone != nil {
		s.dismiss(ev.Session, 1, gone.why(reg.Agent.ID))
		return
	}
	a := s.agents[reg.Agent.ID]
	if a == nil {
		a = &agent{info: &kernel.Agent{ID: reg.Agent.ID}, registered: s.now, reported: true}
		s.join(a)
	}
	if a.session != 0 {
		s.endSession(a, "another session of this agent began")
	}
	if a.incarnation != "" && a.incarnation != reg.Incarnation {
		a.replaced = append(slices.DeleteFunc(a.replaced, func(i string) bool { return i == reg.Incarnation }), a.incarnation)
		if len(a.replaced) > replacedKept {
			a.replaced = a.replaced[1:]
		}
	}
	s.identify(a, reg.Agent)
	a.session, a.upSeq, a.downSeq = ev.Session, ev.Seq, 0
	a.incarnation = reg.Incarnation
	a.since = s.now
	s.altered(a)
	a.sent = nil
	a.reader = endpoint.Reader{}
	if reg.Epoch == s.cfg.Epoch {
		a.reader = endpoint.NewReader(reg.Endpoints)
	}
	s.sessions[ev.Session] = a
	s.outbox(a).sync = true
	s.joined = append(s.joined, a)
	s.heard(a)
	s.report(a)
	for k := range reg.Statuses {
		s.status(a, &reg.Statuses[k], true)
	}
}

// refuseAgent says why a registration cannot be accepted, if so.
func (s *State) refuseAgent(reg *kernel.Registration) string {
	id := reg.Agent.ID
	a := s.agents[id]
	raw, err := json.Marshal(reg.Agent)
	switch {
	case err != nil || len(raw) > maxAgentBytes:
		return fmt.Sprintf("what the agent says of itself has %d bytes, the limit is %d", len(raw), maxAgentBytes)
	case id == "" || len(id) > MaxGroupIDBytes:
		return "the agent's id is empty or too long"
	case reg.Incarnation == "":
		return "the registration names no incarnation"
	case !reg.Agent.Total.Valid():
		return "the agent offers less than nothing"
	case reg.Epoch > s.cfg.Epoch:
		return fmt.Sprintf("the agent follows leader %d, this one is %d", reg.Epoch, s.cfg.Epoch)
	case a != nil && a.broken != "":
		return a.broken
	case a != nil && a.session != 0 && !a.suspect && slices.Contains(a.replaced, reg.Incarnation):
		// Only while the other one is heard: a registration of a process that is gone may arrive after its successor's.
		return "another process with this agent's identity took over from it: is its state directory a copy?"
	}
	return ""
}

// identify takes over what an agent says of itself, and gives a new one its subnet.
func (s *State) identify(a *agent, info kernel.Agent) {
	if len(info.Warnings) == 0 {
		info.Warnings = nil // as it is read back from its row
	}
	s.interner.Agent(&info)
	if reflect.DeepEqual(*a.info, info) && a.subnet.IsValid() {
		return
	}
	moved := a.info.Address != info.Address
	a.info = &info
	s.altered(a)
	s.shown(a)
	s.giveSubnet(a)
	s.pool.Set(a.machine())
	s.dirty(Row{Kind: RowAgent, ID: string(info.ID)})
	if moved {
		for i := range a.each {
			s.endpoints.Moved(i)
			s.change(i)
		}
	}
	s.capacityAppeared()
}

// report notes that an agent known from the store has said what it runs.
func (s *State) report(a *agent) {
	if !a.reported {
		a.reported = true
		s.missing--
	}
	for i := range a.each {
		if !i.Known() {
			i.Record = i.At(a.site, true)
			s.change(i)
		}
	}
}

// heard notes a sign of life.
func (s *State) heard(a *agent) {
	a.heard = s.now
	if back := !a.away.IsZero(); back {
		a.away = time.Time{}
		s.altered(a)
		s.shown(a)
	}
	a.suspect = false
	if a.broken == "" && !s.pool.IsOpen(a.info.ID) {
		s.pool.Open(a.info.ID, true)
		s.capacityAppeared()
	}
	if check := s.now.Add(s.cfg.Suspect); s.nextCheck.IsZero() || check.Before(s.nextCheck) {
		s.nextCheck = check
	}
}

// frame is a later frame of a session.
func (s *State) frame(ev Frame) {
	a := s.sessions[ev.Session]
	if a == nil {
		s.dismissed(ev)
		return
	}
	if ev.Up.Seq <= a.upSeq {
		return
	}
	if ev.Up.Seq != a.upSeq+1 {
		s.endSession(a, fmt.Sprintf("frame %d came after frame %d", ev.Up.Seq, a.upSeq))
		return
	}
	a.upSeq = ev.Up.Seq
	s.heard(a)
	for k := range ev.Up.Statuses {
		s.status(a, &ev.Up.Statuses[k], false)
	}
	for _, id := range ev.Up.Released {
		s.released(a, id)
	}
}

func (s *State) agentDown(ev AgentDown) {
	delete(s.leaving, ev.Session)
	if a := s.sessions[ev.Session]; a != nil {
		s.loseSession(a)
	}
}

// endSession closes a session from this side.
func (s *State) endSession(a *agent, why string) {
	s.step.fx.Ends = append(s.step.fx.Ends, SessionEnd{a.session, why})
	s.loseSession(a)
}

func (s *State) loseSession(a *agent) {
	delete(s.sessions, a.session)
	a.session = 0
	a.since = s.now
	s.altered(a)
	a.sent = nil
	if a.out != nil {
		a.empty()
	}
	s.shut(a)
}

// shut has an agent get no more instances. What it counted for may have kept others from being chosen.
func (s *State) shut(a *agent) {
	s.pool.Open(a.info.ID, false)
	s.step.retry = true
}

// checkAgents finds the agents that have been silent for too long. It looks at them only when one can be.
func (s *State) checkAgents() {
	if !s.complete && (s.missing == 0 || !s.now.Before(s.began.Add(s.cfg.Grace))) {
		s.complete = true
	}
	if !s.nextCheck.IsZero() && s.now.Before(s.nextCheck) {
		return
	}
	next := time.Time{}
	if !s.complete {
		next = s.began.Add(s.cfg.Grace)
	}
	for _, a := range s.order {
		if at := s.checkAgent(a); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	s.nextCheck = next
}

// checkAgent judges one agent's silence and returns when to look again, zero for not before it is heard.
func (s *State) checkAgent(a *agent) time.Time {
	if !a.away.IsZero() {
		return time.Time{}
	}
	gone := a.heard.Add(s.cfg.Unreachable)
	if !a.reported {
		gone = s.began.Add(s.cfg.Grace)
	}
	if !s.now.Before(gone) {
		a.away, a.suspect = s.now, true
		s.altered(a)
		s.shut(a)
		s.shown(a)
		return time.Time{}
	}
	if a.session != 0 && !a.suspect {
		if at := a.heard.Add(s.cfg.Suspect); s.now.Before(at) {
			return at
		}
		a.suspect = true
		s.shut(a)
	}
	return gone
}

// status takes in what an agent says of a task. An instance that is not the agent's is dropped there, an ended one
// acknowledged.
func (s *State) status(a *agent, st *kernel.Status, syncing bool) {
	i := s.instance(st.Instance)
	if i == nil || i.agent != a {
		if st.State.Terminal() {
			out := s.outbox(a)
			out.acks = append(out.acks, kernel.StatusAck{Task: st.Task, Seq: st.Seq})
		} else if out := s.outbox(a); !syncing && !slices.Contains(out.drops, st.Instance) {
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
		s.change(i)
		return
	}
	for n := range statuses {
		if !statuses[n].State.Terminal() { // tasks of an instance end together
			s.stopInstance(i, fmt.Sprintf("its task %s ended", st.Task))
			s.change(i)
			return
		}
	}
	out := s.outbox(a)
	for n := range statuses {
		out.acks = append(out.acks, kernel.StatusAck{Task: statuses[n].Task, Seq: statuses[n].Seq})
	}
	s.end(i)
}
