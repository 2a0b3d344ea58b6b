package core

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/ended"
	"github.com/marinaos/marina/internal/master/expose"
	"github.com/marinaos/marina/internal/master/reservation"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/placement"
	"github.com/marinaos/marina/internal/store"
)

// Load fills an empty state with the master's rows. A row that cannot be read is returned among the problems and left
// alone; the agent it concerns is set aside: its tasks go on, and it gets neither sessions nor instances until the row
// is repaired.
func (s *State) Load(items []store.Item) []error {
	byKind, problems := row.Group(items)
	l := loader{&s.tables}
	for kind := row.VIP; kind <= row.Assigned; kind++ { // specs need the VIPs
		if kind == row.Agent {
			problems = append(problems, l.loadSpecs(byKind[row.Spec])...)
		}
		for _, r := range byKind[kind] {
			err := l.loadRow(r.Row, r.Value)
			if err == nil {
				continue
			}
			problems = append(problems, fmt.Errorf("row %s: %v", r.Key(), err))
			if kind == row.Agent || kind == row.Assigned {
				l.loadAgent(kernel.AgentID(r.ID)).broken = fmt.Sprintf("set aside: row %s cannot be read", r.Key())
			}
		}
	}
	s.specs.FreeAllUnused()
	s.removed.Sort()
	s.fleet.expect()
	return problems
}

// loader fills empty tables.
type loader struct{ *tables }

// loadSpecs takes up the stored specs. The literal VIP addresses of all of them are held before the first is, so that
// a named VIP whose own row is lost is not given one.
func (t loader) loadSpecs(items []row.Item) (problems []error) {
	var found []kernel.Spec
	bad := func(key string, err error) { problems = append(problems, fmt.Errorf("row %s: %w", key, err)) }
	for _, r := range items {
		var k kernel.Spec
		err := json.Unmarshal(r.Value, &k)
		if err == nil && k.ID != kernel.SpecID(r.ID) {
			err = fmt.Errorf("holds spec %q", k.ID)
		}
		if err != nil {
			bad(r.Key(), err)
			continue
		}
		t.vips.HoldLiterals(&k)
		found = append(found, k)
	}
	for _, k := range found {
		if err := t.specs.Load(k); err != nil {
			bad(row.Row{Kind: row.Spec, ID: string(k.ID)}.Key(), err)
		}
	}
	for k := range found {
		t.vips.ReleaseLiterals(&found[k])
	}
	return problems
}

func (t loader) loadRow(r row.Row, raw []byte) error {
	switch r.Kind {
	case row.VIP:
		var value row.Address
		if err := json.Unmarshal(raw, &value); err != nil {
			return err
		}
		return t.vips.Load(r.ID, value.Addr)
	case row.Network:
		var value row.Pool
		if err := json.Unmarshal(raw, &value); err != nil {
			return err
		}
		return t.subnets.LoadPrefix(value.Pool)
	case row.Removed:
		var value row.Removal
		if err := json.Unmarshal(raw, &value); err != nil {
			return err
		}
		t.removed.Load(kernel.AgentID(r.ID), &value)
	case row.Agent:
		return t.loadAgentRow(r, raw)
	case row.Quota:
		var q kernel.Quota
		if err := json.Unmarshal(raw, &q); err != nil {
			return err
		}
		q.Role = r.ID
		t.capacity.quota.Set(q)
	case row.Reservation:
		return t.loadReservation(r, raw)
	case row.Exposed:
		return t.loadExposed(r, raw)
	case row.Ended:
		var value ended.Row
		if err := json.Unmarshal(raw, &value); err != nil {
			return err
		}
		t.ended.Load(r.ID, r.Chunk, value)
	case row.Assigned:
		return t.loadAssigned(r, raw)
	}
	return nil
}

func (t loader) loadAgentRow(r row.Row, raw []byte) error {
	var value row.Machine
	if err := json.Unmarshal(raw, &value); err != nil {
		return err
	}
	if t.removed.Has(kernel.AgentID(r.ID)) { // only a part of its removal is durable: the rest follows
		t.step.dirty(r)
		return nil
	}
	value.Agent.ID = kernel.AgentID(r.ID)
	t.interner.Agent(&value.Agent)
	a := t.loadAgent(value.Agent.ID)
	a.info, a.registered, a.reserved = &value.Agent, value.Registered, value.Reserved
	a.refreshSite()
	if value.Subnet.IsValid() {
		if err := t.subnets.Load(value.Subnet, a.info.ID); err != nil {
			return err
		}
		a.subnet = value.Subnet
	}
	t.capacity.pool.Set(a.machine())
	for _, r := range a.reserved {
		t.capacity.pool.Reserve(a.info.ID, r.Role, r.Amount, kernel.Resources{})
	}
	return nil
}

// loadAgent is the agent of an id, which may have no row that can be read.
func (t loader) loadAgent(id kernel.AgentID) *agent {
	a := t.fleet.get(id)
	if a == nil {
		a = &agent{info: &kernel.Agent{ID: id}}
		a.refreshSite()
		t.fleet.add(a)
	}
	return a
}

func (t loader) loadAssigned(r row.Row, raw []byte) error {
	assignments, err := kernel.UnpackAssignments(raw)
	if err != nil {
		return err
	}
	if t.removed.Has(kernel.AgentID(r.ID)) {
		t.loadOrphans(r, assignments)
		return nil
	}
	a := t.fleet.get(kernel.AgentID(r.ID))
	if a == nil {
		return fmt.Errorf("agent %s has no row", r.ID)
	}
	for _, g := range assignments {
		sp := t.specs.Get(g.Spec)
		if sp == nil {
			return fmt.Errorf("group %s: spec %s cannot be read", g.ID, g.Spec)
		}
		if t.instance(g.ID) != nil {
			return fmt.Errorf("group %s is placed twice", g.ID)
		}
		at := placement.Placement{Agent: a.info.ID, Address: g.Address, HostPorts: g.HostPorts}
		if sp.Reservation != nil {
			if at, err = t.loadHolder(&g, sp, a); err != nil {
				return fmt.Errorf("group %s: %w", g.ID, err)
			}
		}
		if err := t.capacity.pool.Take(sp.Request, at); err != nil {
			return fmt.Errorf("group %s: %w", g.ID, err)
		}
		t.place(g, sp, a, r.Chunk, false)
		if c := t.reservations.Of(&sp.Spec); c != nil {
			t.reservations.Hold(c, g.ID)
		}
	}
	return nil
}

func (t loader) loadReservation(r row.Row, raw []byte) error {
	c, err := reservation.Parse(r.ID, raw)
	if err != nil {
		return err
	}
	switch {
	case c.Lost:
	case t.removed.Has(c.Agent):
		t.reservations.Load(c)
		t.loseReservation(c)
		return nil
	default:
		if err := t.capacity.takeReserved(c); err != nil {
			return err
		}
	}
	t.reservations.Load(c)
	t.views.outdate(c.Framework)
	return nil
}

// loadHolder gives a reservation back to the instance that holds it. Address and host ports are the reservation's
// already.
func (t loader) loadHolder(g *kernel.Assignment, sp *spec.Spec, a *agent) (placement.Placement, error) {
	c := t.reservations.Of(&sp.Spec)
	if c == nil || c.Agent != a.info.ID || c.Address != g.Address || c.Holder() != "" {
		return placement.Placement{}, fmt.Errorf("its claim %s is not where it is: %w", sp.Reservation.Name,
			errdefs.ErrNotFound)
	}
	t.capacity.free(c)
	return placement.Placement{Agent: a.info.ID}, nil
}

func (t loader) loadExposed(r row.Row, raw []byte) error {
	var value expose.Row
	if err := json.Unmarshal(raw, &value); err != nil {
		return err
	}
	if value.ID() != r.ID {
		return fmt.Errorf("holds ports of %q", value.Owner)
	}
	ports, err := t.exposed.Make(value, t.now)
	if err == nil && ports != nil {
		t.setExposed(&value, ports)
	}
	return err
}

// loadOrphans reads the instances of a machine of whose removal only a part is durable: they have ended.
func (t loader) loadOrphans(r row.Row, assignments []kernel.Assignment) {
	t.step.dirty(r)
	for _, g := range assignments {
		sp := t.specs.Get(g.Spec)
		if sp == nil || t.ended.Has(sp.Framework, g.ID) {
			continue
		}
		slot := t.ended.Add(sp.Framework, g.ID)
		t.step.dirty(row.Row{Kind: row.Ended, ID: sp.Framework, Chunk: slot})
	}
}
