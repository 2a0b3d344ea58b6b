package reservation

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/placement"
)

// Reservation is one of them. While an instance holds it, the disk of its volumes is counted as part of what the
// instance takes; while none does, on its own.
type Reservation struct {
	kernel.ReservationView
	holder kernel.InstanceID // empty: none
}

// ID names a reservation in rows and to agents. Frameworks have no slash in their names.
func (c *Reservation) ID() string { return id(c.Framework, c.Name) }

func id(framework, name string) string { return framework + "/" + name }

// Holder is the instance that holds it, empty if none does.
func (c *Reservation) Holder() kernel.InstanceID { return c.holder }

// At returns the part of its machine that it keeps.
func (c *Reservation) At() placement.Placement {
	return placement.Placement{Agent: c.Agent, Address: c.Address, HostPorts: c.HostPorts}
}

// Needs returns the resources of its volumes.
func (c *Reservation) Needs() kernel.Resources { return kernel.Resources{Disk: c.Disk()} }

// Available reports whether an instance can be placed with it, and why not.
func (c *Reservation) Available() (bool, kernel.Refusal) {
	var detail string
	switch {
	case c.holder != "":
		detail = fmt.Sprintf("group %s holds it", c.holder)
	case c.Lost:
		detail = fmt.Sprintf("its machine %s was removed, and what it kept is lost: release it to begin anew", c.Agent)
	case c.Released:
		detail = "it was released"
	default:
		return true, kernel.Refusal{}
	}
	return false, kernel.Refusal{Agents: 1, Reasons: []kernel.Rejected{{Filter: "claim " + c.Name, Agents: 1,
		Detail: detail}}}
}

// Table keeps the reservations.
type Table struct {
	changed func(*Reservation)
	byID    map[string]*Reservation
}

// New returns an empty table. changed is told each reservation whose row changed.
func New(changed func(*Reservation)) *Table {
	return &Table{changed: changed, byID: map[string]*Reservation{}}
}

// All yields the reservations in no order.
func (t *Table) All(yield func(*Reservation) bool) { maps.Values(t.byID)(yield) }

// Get is the reservation of an id, nil if there is none.
func (t *Table) Get(id string) *Reservation { return t.byID[id] }

// Of is the reservation that instances of a spec are placed with, nil if it is not there or the spec asks for none.
func (t *Table) Of(k *kernel.Spec) *Reservation {
	if k.Reservation == nil {
		return nil
	}
	return t.byID[id(k.Framework, k.Reservation.Name)]
}

// HeldBy is the reservation that an instance of a spec holds, nil if it holds none.
func (t *Table) HeldBy(k *kernel.Spec, instance kernel.InstanceID) *Reservation {
	if c := t.Of(k); c != nil && c.holder == instance {
		return c
	}
	return nil
}

// Check refuses a spec whose reservation exists with volumes that the spec does not have, or has smaller.
func (t *Table) Check(k *kernel.Spec) error {
	c := t.Of(k)
	if c == nil {
		return nil
	}
	if c.Released {
		return fmt.Errorf("claim %s: it was released and its machine has yet to delete it: try again: %w", c.Name,
			errdefs.ErrFailedPrecondition)
	}
	for _, had := range c.Volumes {
		kept := func(v kernel.ReservedVolume) bool { return v.Name == had.Name && v.Bytes >= had.Bytes }
		if !slices.ContainsFunc(k.Reservation.Volumes, kept) {
			return fmt.Errorf("claim %s: volume %s has %s: a spec must keep it, at least as large: %w", c.Name, had.Name,
				kernel.FormatBytes(had.Bytes), errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Add makes the reservation of a spec, where its first instance is placed.
func (t *Table) Add(k *kernel.Spec, at placement.Placement) *Reservation {
	c := &Reservation{ReservationView: kernel.ReservationView{Framework: k.Framework, Agent: at.Agent,
		Address: at.Address, HostPorts: at.HostPorts}}
	c.Name = k.Reservation.Name
	t.byID[c.ID()] = c
	return c
}

// Place gives a reservation its holder. Role and volumes follow the spec of the newest.
func (t *Table) Place(c *Reservation, k *kernel.Spec, holder kernel.InstanceID) {
	t.Hold(c, holder)
	if c.Role != k.Role || !slices.Equal(c.Volumes, k.Reservation.Volumes) {
		c.Role, c.Volumes = k.Role, slices.Clone(k.Reservation.Volumes)
		t.changed(c)
	}
}

// Hold gives a reservation its holder as rows have it.
func (t *Table) Hold(c *Reservation, holder kernel.InstanceID) {
	c.holder = kernel.InstanceID(strings.Clone(string(holder))) // the record's text has more in it
}

// Release ends what Place began: the next may hold it.
func (t *Table) Release(c *Reservation) { c.holder = "" }

// GiveUp finds those of a framework's reservations that are there to be given up; all names or, with an error, none.
func (t *Table) GiveUp(framework string, names []string) ([]*Reservation, error) {
	var found []*Reservation
	for _, name := range names {
		c := t.byID[id(framework, name)]
		if c == nil || c.Released {
			continue
		}
		if c.holder != "" {
			return nil, fmt.Errorf("claim %s: group %s holds it: stop it first: %w", name, c.holder,
				errdefs.ErrFailedPrecondition)
		}
		found = append(found, c)
	}
	return found, nil
}

// MarkReleased leaves a reservation to its machine to be deleted.
func (t *Table) MarkReleased(c *Reservation) {
	c.Released = true
	t.changed(c)
}

// MarkLost is a reservation's part in the removal of its machine, and reports whether it is still there: one with
// volumes stays, to say that they are lost.
func (t *Table) MarkLost(c *Reservation) bool {
	if len(c.Volumes) == 0 || c.Released {
		t.Drop(c)
		return false
	}
	c.Lost = true
	t.changed(c)
	return true
}

// Drop forgets a reservation.
func (t *Table) Drop(c *Reservation) {
	delete(t.byID, c.ID())
	t.changed(c)
}

// On lists the reservations of a machine, by id.
func (t *Table) On(agent kernel.AgentID) []*Reservation {
	return t.list(func(c *Reservation) bool { return c.Agent == agent && !c.Lost })
}

// ReleasedOn lists the ids that a machine has yet to delete.
func (t *Table) ReleasedOn(agent kernel.AgentID) (ids []string) {
	for _, c := range t.list(func(c *Reservation) bool { return c.Agent == agent && c.Released }) {
		ids = append(ids, c.ID())
	}
	return ids
}

// Views lists the reservations of a framework as readers are shown them, by name.
func (t *Table) Views(framework string) (views []kernel.ReservationView) {
	for _, c := range t.list(func(c *Reservation) bool { return c.Framework == framework }) {
		views = append(views, c.ReservationView)
	}
	return views
}

// list lists some of the reservations by id.
func (t *Table) list(of func(*Reservation) bool) (out []*Reservation) {
	for _, name := range slices.Sorted(maps.Keys(t.byID)) {
		if c := t.byID[name]; of(c) {
			out = append(out, c)
		}
	}
	return out
}

// Parse reads a row. Nothing is taken up yet.
func Parse(row string, raw []byte) (*Reservation, error) {
	c := &Reservation{}
	if err := json.Unmarshal(raw, &c.ReservationView); err != nil {
		return nil, err
	}
	if c.ID() != row {
		return nil, fmt.Errorf("holds claim %q", c.ID())
	}
	return c, nil
}

// Load takes up a reservation that has a row.
func (t *Table) Load(c *Reservation) { t.byID[c.ID()] = c }
