package core

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// A machine that was removed is no member any more: nothing of it is counted, waited for or kept, and what is its own
// (row, subnet, place in every list) is free. Its id stays among the removed, so that it cannot come back with what
// it ran: should its agent dial again, it is told to end everything and that it was removed. Whoever wants it back
// has it begin with a new id.

// removedMost is how many removed machines are remembered. One that is older and dials again joins anew, and ends
// what it still runs, as nothing is assigned to it.
const removedMost = 1024

// removed is the machines that were removed.
type removed struct {
	rows  map[kernel.AgentID]*removedRow
	order []kernel.AgentID // oldest first
}

func (r *removed) has(id kernel.AgentID) bool { return r.rows[id] != nil }

func (r *removed) add(id kernel.AgentID, row *removedRow) {
	r.rows[id] = row
	r.order = append(r.order, id)
}

// sort puts what was loaded into order.
func (r *removed) sort() {
	slices.SortFunc(r.order, func(a, b kernel.AgentID) int {
		return cmp.Or(r.rows[a].Removed.Compare(r.rows[b].Removed), cmp.Compare(a, b))
	})
}

// why is what an agent with a removed id is told.
func (r *removedRow) why(id kernel.AgentID) string {
	return fmt.Sprintf("machine %s (%s) was removed from the datacenter at %s: run `marina down` on it; to have it join as a new machine, delete "+
		"the file agent.id of its state directory then, and run `marina up`", r.Hostname, id, r.Removed.UTC().Format(time.RFC3339))
}

// farewell is a session with a machine that was removed, until it has heard so.
type farewell struct {
	seq uint64 // of the frame that says so
	why string
}

// dismiss tells a machine on a session that nothing is assigned to it, by the frame seq.
func (s *State) dismiss(session SessionID, seq uint64, why string) {
	s.leaving[session] = farewell{seq, why}
	s.step.fx.Sends = append(s.step.fx.Sends, Send{Session: session, Down: kernel.Down{Epoch: s.cfg.Epoch, Seq: seq, Sync: true, Removed: why}})
}

// dismissed closes such a session once the machine has done what it was told: closed at once it might never hear of it.
func (s *State) dismissed(ev Frame) {
	if f, ok := s.leaving[ev.Session]; ok && ev.Up.Applied >= f.seq {
		delete(s.leaving, ev.Session)
		s.step.fx.Ends = append(s.step.fx.Ends, SessionEnd{ev.Session, f.why})
	}
}

// removeAgent takes a machine out of the datacenter.
func (s *State) removeAgent(ev RemoveAgent) (*kernel.Removal, error) {
	a := s.agents[ev.Agent]
	if a == nil {
		if gone := s.removed.rows[ev.Agent]; gone != nil {
			return nil, fmt.Errorf("machine %s (%s) was removed already, at %s: %w", gone.Hostname, ev.Agent, gone.Removed.UTC().Format(time.RFC3339), errdefs.ErrNotFound)
		}
		return nil, fmt.Errorf("machine %.64s: %w", ev.Agent, errdefs.ErrNotFound)
	}
	if err := s.mayLeave(a, ev.Force); err != nil {
		return nil, err
	}
	out := &kernel.Removal{Machine: ev.Agent, Hostname: a.info.Hostname, Instances: []kernel.InstanceID{}, Lost: []kernel.ReservationView{}}
	for _, i := range slices.Collect(a.each) {
		out.Instances = append(out.Instances, i.ID())
		s.giveUp(i, fmt.Sprintf("its machine %s was removed from the datacenter", a.info.Hostname))
	}
	for _, c := range s.reservations.On(ev.Agent) {
		s.freeReservation(c)
		if s.loseReservation(c) {
			out.Lost = append(out.Lost, c.ReservationView)
		}
	}
	s.keepRemoved(ev.Agent, a.info.Hostname)
	s.quit(a)
	return out, nil
}

// mayLeave refuses to remove a machine that may run something, unless it is forced.
func (s *State) mayLeave(a *agent, force bool) error {
	if a.broken != "" {
		return fmt.Errorf("machine %s: %s: repair or delete that row first: %w", a.info.Hostname, a.broken, errdefs.ErrFailedPrecondition)
	}
	kept := 0
	for _, c := range s.reservations.On(a.info.ID) {
		if len(c.Volumes) > 0 && !c.Released {
			kept++
		}
	}
	if force || !a.away.IsZero() || a.count+kept == 0 {
		return nil
	}
	is := "is connected"
	if a.session == 0 {
		is = "was heard a moment ago"
	}
	return fmt.Errorf("machine %s %s, runs %d instances and keeps volumes of %d: stop those or have them moved first; with force they are ended and their volumes lost: %w",
		a.info.Hostname, is, a.count, kept, errdefs.ErrFailedPrecondition)
}

// keepRemoved remembers an id as removed, and forgets the oldest when there are too many.
func (s *State) keepRemoved(id kernel.AgentID, hostname string) {
	s.removed.add(id, &removedRow{Hostname: hostname, Removed: s.now.UTC().Round(0)})
	s.dirty(Row{Kind: RowRemoved, ID: string(id)})
	for len(s.removed.order) > removedMost {
		oldest := s.removed.order[0]
		s.removed.order = s.removed.order[1:]
		delete(s.removed.rows, oldest)
		s.dirty(Row{Kind: RowRemoved, ID: string(oldest)})
	}
}

// quit takes an agent with nothing on it out of all lists.
func (s *State) quit(a *agent) {
	id := a.info.ID
	if a.session != 0 {
		s.dismiss(a.session, a.downSeq+1, s.removed.rows[id].why(id))
		delete(s.sessions, a.session)
		a.session = 0
	}
	for _, e := range s.queue {
		if e.hold != nil && e.hold.agent == a {
			s.unhold(e)
		}
	}
	s.pool.Remove(id)
	delete(s.agents, id)
	s.order = slices.Delete(s.order, a.number, a.number+1)
	for k := a.number; k < len(s.order); k++ {
		s.order[k].number = k
	}
	s.unshow(a)
	if !a.reported {
		s.missing--
	}
	s.dirty(Row{Kind: RowAgent, ID: string(id)})
	if a.subnet.IsValid() {
		s.subnets.Return(a.subnet)
		s.giveSubnets()
	}
	s.nextCheck = s.now // Complete may be due
	s.capacityAppeared()
}

// loadOrphans reads the instances of a machine of whose removal only a part is durable: they have ended.
func (s *State) loadOrphans(r Row, groups []kernel.Assignment) {
	s.dirty(r)
	for _, g := range groups {
		sp := s.specs.Get(g.Spec)
		if sp == nil || s.ended.Has(sp.Framework, g.ID) {
			continue
		}
		slot := s.ended.Add(sp.Framework, g.ID)
		s.dirty(Row{Kind: RowEnded, ID: sp.Framework, Chunk: slot})
	}
}
