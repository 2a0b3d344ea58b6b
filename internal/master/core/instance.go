package core

import (
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/endpoint"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/placement"
)

// instance is a placed instance. There may be a million: what is known of it is a record, shared with all who watch.
type instance struct {
	*kernel.Record // as it is now
	spec           *spec.Spec
	agent          *agent
	standings      endpoint.Standings
	chunk          int32
	changed        bool // it is among step.changed
	told           bool // it is in its agent's outbox
	resized        bool // it has sizes of its own
}

// need is what it takes from its machine: the spec's, unless it was resized.
func (i *instance) need() kernel.Resources {
	if !i.resized {
		return i.spec.Need
	}
	g := i.Assignment()
	return g.Guarantee(&i.spec.Spec)
}

// newInstance puts an instance on an agent: into its rows, the indexes and what is used. Resources are the pool's
// already.
func (s *State) newInstance(g kernel.Assignment, sp *spec.Spec, a *agent, chunk int, known bool) *instance {
	i := &instance{Record: kernel.NewRecord(sp.Origin, a.site, &g, make([]kernel.Status, len(sp.Tasks)), known), spec: sp, agent: a,
		chunk: int32(chunk), resized: g.Sizes != nil}
	for len(a.chunks) <= chunk {
		a.chunks = append(a.chunks, nil)
	}
	a.chunks[chunk] = append(a.chunks[chunk], i)
	a.count++
	s.instances.Put(i)
	s.specs.Place(sp)
	s.quota.Charge(sp.Role, i.need(), sp.Preemptible())
	if sp.Preemptible() {
		s.lent++
	}
	return i
}

// room is the first chunk of an agent that takes another instance.
func (a *agent) room() int {
	if a.count >= (len(a.chunks)-1)*groupsPerChunk { // the earlier ones may all be full: look at the last first
		if last := len(a.chunks) - 1; last >= 0 && len(a.chunks[last]) < groupsPerChunk {
			return last
		}
	}
	for k, c := range a.chunks {
		if len(c) < groupsPerChunk {
			return k
		}
	}
	return len(a.chunks)
}

// giveUp ends an instance without its agent, which may be running it still.
func (s *State) giveUp(i *instance, why string) {
	statuses := i.Statuses()
	for k := range statuses {
		if st := &statuses[k]; !st.State.Terminal() {
			st.State, st.Reason, st.Message, st.Time = kernel.Gone, kernel.ReasonAgentGone, why, s.now.UTC().Round(0)
			st.Health = nil
		}
	}
	i.Record = i.Report(statuses)
	s.end(i)
}

// end removes an instance for good: whoever has a part of it gives that back, in this order, and nobody else undoes
// what newInstance did.
func (s *State) end(i *instance) {
	s.charge(Charge{Placement: i.placement(), Ends: true}) // what the audit has
	i.Record = i.Remove()
	s.change(i) // watchers and endpoints
	s.past.Add(i.Record)
	i.agent.unassign(i)
	s.instances.Delete(i.ID())
	s.dirty(Row{Kind: RowAssigned, ID: string(i.agent.info.ID), Chunk: int(i.chunk)})
	out := s.outbox(i.agent)
	out.drops = append(out.drops, i.ID())
	id := kernel.InstanceID(strings.Clone(string(i.ID()))) // the record's text has more in it
	s.dirty(Row{Kind: RowEnded, ID: i.Framework, Chunk: s.ended.Add(i.Framework, id)})
	reserved := s.reservations.HeldBy(&i.spec.Spec, i.ID())
	s.releaseMachine(i, reserved != nil)
	s.quota.Credit(i.spec.Role, i.need(), i.spec.Preemptible())
	if i.spec.Preemptible() {
		s.lent--
	}
	if reserved != nil {
		s.reservations.Release(reserved)
		s.count(reserved)
	}
	s.specs.Release(i.spec, s.now)
	s.capacityAppeared()
}

// unassign takes an instance out of its agent's rows.
func (a *agent) unassign(i *instance) {
	chunk := a.chunks[i.chunk]
	at := slices.Index(chunk, i)
	a.chunks[i.chunk] = slices.Delete(chunk, at, at+1)
	a.count--
}

// releaseMachine gives the pool what an instance took of its machine, but for address and host ports that its
// reservation keeps.
func (s *State) releaseMachine(i *instance, reserved bool) {
	at := placement.Placement{Agent: i.agent.info.ID}
	if !reserved {
		g := i.Assignment()
		at.Address, at.HostPorts = g.Address, g.HostPorts
	}
	s.pool.Release(i.spec.Request, at)
	s.pool.Adjust(at.Agent, i.spec.Fills(), i.spec.Need.Sub(i.need()))
}
