package core

import (
	"strings"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/endpoint"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/master/spec"
)

// instance is a placed instance. There may be a million: all that is known of one is its record, which watchers share.
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

// need returns the resources that it takes from its machine: the spec's, unless it was resized.
func (i *instance) need() kernel.Resources {
	if !i.resized {
		return i.spec.Need
	}
	g := i.Assignment()
	return g.Guarantee(&i.spec.Spec)
}

// placement returns all that it takes and holds, as the invariants count it.
func (i *instance) placement() invariant.Placement {
	g := i.Assignment()
	return invariant.Placement{Instance: g.ID, Agent: i.agent.info.ID, Role: i.spec.Role, Guarantee: i.need(),
		Ports: invariant.HostPorts(&i.spec.Spec, g.HostPorts), Address: g.Address}
}

// row is the row that has it.
func (i *instance) row() row.Row {
	return row.Row{Kind: row.Assigned, ID: string(i.agent.info.ID), Chunk: int(i.chunk)}
}

// place puts an instance on an agent, into a chunk of its rows, and into every table that has a part of it; end takes
// it out of them again. Its place is taken from the pool already, and its reservation is told by whoever placed it.
func (t *tables) place(g kernel.Assignment, sp *spec.Spec, a *agent, chunk int, known bool) *instance {
	record := kernel.NewRecord(sp.Origin, a.site, &g, make([]kernel.Status, len(sp.Tasks)), known)
	i := &instance{Record: record, spec: sp, agent: a, resized: g.Sizes != nil}
	a.place(i, chunk)
	t.instances.Put(i)
	t.specs.Place(sp)
	t.capacity.place(i)
	return i
}

// end removes an instance for good: whoever has a part of it gives that back, in this order, and nobody else undoes
// what place did.
func (t *tables) end(i *instance) {
	t.step.charge(Charge{Placement: i.placement(), Ends: true}) // what the audit has
	i.Record = i.Remove()
	t.change(i) // watchers and endpoints
	t.past.Add(i.Record)
	i.agent.release(i)
	t.step.dirty(i.row())
	t.step.drop(i)
	t.instances.Delete(i.ID())
	id := kernel.InstanceID(strings.Clone(string(i.ID()))) // the record's text has more in it
	t.step.dirty(row.Row{Kind: row.Ended, ID: i.Framework, Chunk: t.ended.Add(i.Framework, id)})
	reserved := t.reservations.HeldBy(&i.spec.Spec, i.ID())
	t.capacity.release(i, reserved != nil)
	if reserved != nil {
		t.reservations.Release(reserved)
		t.capacity.hold(reserved)
	}
	t.specs.Release(i.spec, t.now)
	t.step.capacityAppeared()
}

// giveUp ends an instance without its agent, which may be running it still.
func (t *tables) giveUp(i *instance, why string) {
	statuses := i.Statuses()
	for k := range statuses {
		if st := &statuses[k]; !st.State.Terminal() {
			st.State, st.Reason, st.Message, st.Time = kernel.Gone, kernel.ReasonAgentGone, why, t.now.UTC().Round(0)
			st.Health = nil
		}
	}
	i.Record = i.Report(statuses)
	t.end(i)
}

// stop turns an instance's goal to stop: durable first, then told to its agent; its endpoints are not ready from now
// on.
func (t *tables) stop(i *instance, why string) {
	if i.Goal() == kernel.GoalStop {
		return
	}
	if len(why) > MaxWhyBytes {
		why = strings.ToValidUTF8(why[:MaxWhyBytes], "")
	}
	g := i.Assignment()
	g.Goal, g.Why = kernel.GoalStop, why
	t.reassign(i, &g)
}

// reassign changes what an instance's agent is to do with it.
func (t *tables) reassign(i *instance, g *kernel.Assignment) {
	i.Record = i.Reassign(g)
	t.touch(i)
	t.change(i)
}

// touch queues an instance to be written, and told to its agent.
func (t *tables) touch(i *instance) {
	t.step.tell(i)
	t.step.dirty(i.row())
}

// change marks an instance as changed for watchers and for the endpoints.
func (t *tables) change(i *instance) {
	t.step.change(i)
	t.endpoints.Update(i)
}
