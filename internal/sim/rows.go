package sim

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/sim/machine"
	"github.com/marinaos/marina/internal/sim/rare"
	"github.com/marinaos/marina/internal/store"
)

// durable is the rows as the judge read them last.
type durable struct {
	specs  map[kernel.SpecID]*kernel.Spec // kept for good: an instance's row may outlive its spec's for a moment
	chunks map[string][]kernel.Assignment
}

// revision judges what one revision of the store changed. writer is the leader whose write it is, or 0 for the
// election's.
func (j *judge) revision(writer int64, b store.Batch) {
	if writer != 0 {
		j.Hold(j.fences.Committed(writer, b.Revision))
	}
	for i := range b.Changes { // what leaves makes room for what comes at the same time
		seg, err := store.Segments(b.Changes[i].Key)
		if err == nil && len(seg) == 3 && seg[1] == "agents" && b.Changes[i].Deleted {
			j.agentRow(kernel.AgentID(seg[2]), &b.Changes[i])
		}
	}
	for i := range b.Changes {
		c := &b.Changes[i]
		seg, err := store.Segments(c.Key)
		if err != nil || len(seg) < 3 || seg[0] != "kernel" {
			continue
		}
		switch seg[1] {
		case "specs":
			j.specRow(c)
		case "agents":
			if c.Deleted {
				continue
			}
			j.agentRow(kernel.AgentID(seg[2]), c)
		case "claims":
			j.reservationRow(seg[2], c)
		case "quotas":
			j.quotaRow(seg[2], c)
		case "vips":
			j.vipRow(seg[2], c)
		case "assigned":
			j.assignedRow(kernel.AgentID(seg[2]), c, b.Revision)
		}
	}
	j.Hold(j.ledger.Judge(b.Revision))
	j.Hold(j.members.Judge(b.Revision))
}

func (j *judge) read(c *store.Change, into any) bool {
	if c.Deleted {
		return false
	}
	if err := json.Unmarshal(c.Value, into); err != nil {
		j.w.Fail("row %s: %v", c.Key, err)
		return false
	}
	return true
}

func (j *judge) specRow(c *store.Change) {
	var s kernel.Spec
	if j.read(c, &s) {
		j.rows.specs[s.ID] = &s
	}
}

func (j *judge) agentRow(id kernel.AgentID, c *store.Change) {
	var row struct {
		Agent  kernel.Agent `json:"agent"`
		Subnet netip.Prefix `json:"subnet"`
	}
	if j.read(c, &row) {
		j.ledger.Agent(id, row.Agent.Total, row.Subnet)
		j.members.Agent(id, row.Subnet)
	} else {
		j.ledger.DropAgent(id)
		j.members.Left(id)
		j.w.turnover.left(id)
	}
}

func (j *judge) reservationRow(name string, c *store.Change) {
	var row kernel.ReservationView
	j.read(c, &row)
	if row.Lost {
		j.w.Reach(rare.ReservationLost)
	}
	j.Hold(j.members.Reservation(name, row.Agent, row.Lost))
}

func (j *judge) quotaRow(role string, c *store.Change) {
	var q kernel.Quota
	if !j.read(c, &q) {
		j.ledger.Quota(role, nil)
		return
	}
	j.ledger.Quota(role, &q.Limit)
	if j.ledger.Over(role) {
		j.w.Reach(rare.QuotaBelowUse)
	}
}

func (j *judge) vipRow(name string, c *store.Change) {
	var row struct {
		Addr netip.Addr `json:"addr"`
	}
	j.read(c, &row)
	j.ledger.VIP(name, row.Addr)
}

// assignedRow compares a chunk of an agent's instances with what it held before.
func (j *judge) assignedRow(agent kernel.AgentID, c *store.Change, revision int64) {
	var now []kernel.Assignment
	if !c.Deleted {
		var err error
		if now, err = kernel.UnpackAssignments(c.Value); err != nil {
			j.w.Fail("row %s: %v", c.Key, err)
		}
	}
	old := j.rows.chunks[c.Key]
	j.rows.chunks[c.Key] = now
	for i := range old {
		if !machine.Mentions(now, old[i].ID) {
			j.unassigned(agent, old[i].ID)
		}
	}
	for i := range now {
		j.assigned(agent, &now[i], revision)
	}
}

// madeWay judges an instance that is to stop, if it is for another's sake.
func (j *judge) madeWay(g *kernel.Assignment) {
	var owner string
	var priority, own int
	if n, _ := fmt.Sscanf(g.Why, "it makes way for %s which has priority %d, this %d", &owner, &priority, &own); n < 3 {
		return
	}
	j.w.Reach(rare.MadeWay)
	owner = strings.TrimSuffix(owner, ",")
	spec := j.rows.specs[g.Spec]
	if own < 0 && priority >= 0 {
		j.w.Reach(rare.PreemptibleMadeWay)
	}
	j.Hold(invariant.Rights(invariant.Work{Name: string(g.ID), Role: spec.Role, Priority: spec.Priority},
		j.workOf(owner, priority)))
}

// workOf returns the work that an owner asked for with a priority, in any version.
func (j *judge) workOf(owner string, claimed int) invariant.Work {
	for _, s := range j.w.asked[owner] {
		if s.Priority == claimed {
			return invariant.Work{Name: owner, Role: s.Role, Priority: s.Priority}
		}
	}
	return invariant.Work{Name: owner + ", of which no version has that priority", Role: "?",
		Priority: -kernel.MaxPriority}
}

func (j *judge) unassigned(agent kernel.AgentID, id kernel.InstanceID) {
	j.ledger.Remove(id, agent)
	if !j.ledger.On(id, agent) {
		t := j.of(id)
		t.durable = false
		j.recount(id, t)
		j.explain(id, t)
	}
}

func (j *judge) assigned(agent kernel.AgentID, g *kernel.Assignment, revision int64) {
	if j.ledger.On(g.ID, agent) {
		if t := j.of(g.ID); t.goal != g.Goal {
			t.goal = g.Goal
			j.madeWay(g)
			j.recount(g.ID, t)
		}
		return
	}
	spec := j.rows.specs[g.Spec]
	if spec == nil {
		j.w.Fail("group %s of agent %s is durable at revision %d and its spec %s is not", g.ID, agent, revision, g.Spec)
		return
	}
	j.Hold(j.intents.Durable(g.ID, agent, revision))
	j.ledger.Place(invariant.Placement{Instance: g.ID, Agent: agent, Role: spec.Role, Guarantee: spec.Guarantee(),
		Ports: invariant.HostPorts(spec, g.HostPorts), Address: g.Address})
	t := j.of(g.ID)
	t.durable, t.goal = true, g.Goal
	j.recount(g.ID, t)
	j.explain(g.ID, t)
}
