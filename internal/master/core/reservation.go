package core

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/placement"
)

// claim is what outlives the instances placed with it. While an instance holds it, the disk of its volumes is counted
// as part of what the instance takes; while none does, on its own.
type reservation struct {
	kernel.ReservationView
	holder *instance
}

// claimID names a reservation, or an owner's exposed ports, in rows and to agents. Frameworks have no slash in their
// names.
func reservationID(framework, name string) string { return framework + "/" + name }

func (c *reservation) id() string { return reservationID(c.Framework, c.Name) }

// at is what the reservation keeps of its machine.
func (c *reservation) at() placement.Placement {
	return placement.Placement{Agent: c.Agent, Address: c.Address, HostPorts: c.HostPorts}
}

// disk is what its volumes take, as resources.
func (c *reservation) disk() kernel.Resources { return kernel.Resources{Disk: c.Disk()} }

// claimChanged has a reservation written, and shown anew.
func (s *State) reservationChanged(c *reservation) {
	s.dirty(Row{Kind: RowReservation, ID: c.id()})
	s.outdated.reservations[c.Framework] = struct{}{}
}

// count has the disk of a reservation without a holder count against machine and quota; uncount ends that.
func (s *State) count(c *reservation) {
	s.pool.Adjust(c.Agent, c.Role, c.disk())
	s.quota.Charge(c.Role, c.disk(), false)
}

func (s *State) uncount(c *reservation) {
	s.pool.Adjust(c.Agent, c.Role, kernel.Resources{}.Sub(c.disk()))
	s.quota.Credit(c.Role, c.disk(), false)
}

// checkClaim refuses a spec whose reservation exists with volumes that the spec does not have, or has smaller.
func (s *State) checkReservation(k *kernel.Spec) error {
	if k.Reservation == nil {
		return nil
	}
	c := s.reservations[reservationID(k.Framework, k.Reservation.Name)]
	if c == nil {
		return nil
	}
	if c.Released {
		return fmt.Errorf("claim %s: it was released and its machine has yet to delete it: try again: %w", k.Reservation.Name, errdefs.ErrFailedPrecondition)
	}
	for _, had := range c.Volumes {
		if !slices.ContainsFunc(k.Reservation.Volumes, func(v kernel.ReservedVolume) bool { return v.Name == had.Name && v.Bytes >= had.Bytes }) {
			return fmt.Errorf("claim %s: volume %s has %s: a spec must keep it, at least as large: %w", k.Reservation.Name, had.Name,
				kernel.FormatBytes(had.Bytes), errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// placeClaimed places the first instance of an entry, if nobody holds the reservation: where the reservation is, or
// anywhere if there is none.
func (s *State) placeReserved(e *entry) []*instance {
	sp := e.spec
	c := s.reservations[reservationID(sp.Framework, sp.Reservation.Name)]
	if c == nil {
		return s.placeFirst(e)
	}
	if c.holder != nil || c.Released || c.Lost {
		detail := "it was released"
		if c.Lost {
			detail = fmt.Sprintf("its machine %s was removed, and what it kept is lost: release it to begin anew", c.Agent)
		}
		if c.holder != nil {
			detail = fmt.Sprintf("group %s holds it", c.holder.ID())
		}
		e.refuse(kernel.Refusal{Agents: 1, Reasons: []kernel.Rejected{{Filter: "claim " + c.Name, Agents: 1, Detail: detail}}})
		return nil
	}
	s.uncount(c)
	ok, refusal := s.affords(e)
	if ok {
		ok, refusal = s.pool.PlaceOn(sp.request, c.Agent)
	}
	if e.refuse(refusal); !ok {
		s.count(c)
		return nil
	}
	placed := s.settle(e, []placement.Placement{c.at()})
	s.hold(c, placed[0])
	return placed
}

// placeFirst places an instance whose reservation does not exist, and makes it.
func (s *State) placeFirst(e *entry) []*instance {
	sp := e.spec
	if ok, refusal := s.affords(e); !ok {
		e.refuse(refusal)
		return nil
	}
	places := s.places(e, 1)
	if e.unfit = len(places) == 0; e.unfit {
		return nil
	}
	e.refuse(kernel.Refusal{})
	c := &reservation{ReservationView: kernel.ReservationView{Framework: sp.Framework, Agent: places[0].Agent, Address: places[0].Address, HostPorts: places[0].HostPorts}}
	c.Name = sp.Reservation.Name
	s.reservations[c.id()] = c
	placed := s.settle(e, places)
	s.hold(c, placed[0])
	return placed
}

// hold notes who has the reservation; what it is follows the newest spec.
func (s *State) hold(c *reservation, i *instance) {
	c.holder = i
	if c.Role != i.spec.Role || !slices.Equal(c.Volumes, i.spec.Reservation.Volumes) {
		c.Role, c.Volumes = i.spec.Role, slices.Clone(i.spec.Reservation.Volumes)
		s.reservationChanged(c)
	}
}

// claimOf is the reservation that an instance holds.
func (s *State) reservationOf(i *instance) *reservation {
	if i.spec.Reservation == nil {
		return nil
	}
	if c := s.reservations[reservationID(i.spec.Framework, i.spec.Reservation.Name)]; c != nil && c.holder == i {
		return c
	}
	return nil
}

// release marks reservations as given up; all of them or, with an error, none.
func (s *State) release(framework string, names []string) error {
	var found []*reservation
	for _, name := range names {
		c := s.reservations[reservationID(framework, name)]
		if c == nil || c.Released {
			continue
		}
		if c.holder != nil {
			return fmt.Errorf("claim %s: group %s holds it: stop it first: %w", name, c.holder.ID(), errdefs.ErrFailedPrecondition)
		}
		found = append(found, c)
	}
	for _, e := range s.queue {
		if c := s.reservationFor(e); c != nil && c.Lost { // nothing is taken from who waits for it
			continue
		}
		if e.framework == framework && e.spec.Reservation != nil && len(e.instances) > 0 && slices.Contains(names, e.spec.Reservation.Name) {
			return fmt.Errorf("claim %s: group %s waits to be placed with it: withdraw it first: %w", e.spec.Reservation.Name, e.instances[0], errdefs.ErrFailedPrecondition)
		}
	}
	for _, c := range found {
		if c.Lost {
			s.dropReservation(c)
			continue
		}
		c.Released = true
		s.reservationChanged(c)
		if a := s.agents[c.Agent]; a != nil {
			out := s.outbox(a)
			out.releases = append(out.releases, c.id())
		}
	}
	return nil
}

// releasedOn lists the reservations that an agent has yet to delete.
func (s *State) releasedOn(a *agent) []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(s.reservations)) {
		if c := s.reservations[id]; c.Released && c.Agent == a.info.ID {
			out = append(out, id)
		}
	}
	return out
}

// released ends a reservation of which its agent has nothing left.
func (s *State) released(a *agent, id string) {
	c := s.reservations[id]
	if c == nil || !c.Released || c.Agent != a.info.ID {
		return
	}
	s.freeReservation(c)
	s.dropReservation(c)
}

// freeClaim gives back what a reservation without a holder takes.
func (s *State) freeReservation(c *reservation) {
	s.pool.ReturnReserved(c.at(), c.Role, c.disk())
	s.quota.Credit(c.Role, c.disk(), false)
}

// dropClaim forgets a reservation that takes nothing any more.
func (s *State) dropReservation(c *reservation) {
	delete(s.reservations, c.id())
	s.reservationChanged(c)
	s.capacityAppeared()
}

// loseClaim is a reservation's part in the removal of its machine: one that kept nothing is gone, one with volumes
// stays, to say that it is lost.
func (s *State) loseReservation(c *reservation) {
	if len(c.Volumes) == 0 || c.Released {
		s.dropReservation(c)
		return
	}
	c.Lost = true
	s.reservationChanged(c)
}

// claimsOn lists the reservations of a machine, by id.
func (s *State) reservationsOn(id kernel.AgentID) []*reservation {
	var out []*reservation
	for _, name := range slices.Sorted(maps.Keys(s.reservations)) {
		if c := s.reservations[name]; c.Agent == id && !c.Lost {
			out = append(out, c)
		}
	}
	return out
}

func (s *State) loadReservation(r Row, raw []byte) error {
	c := &reservation{}
	if err := json.Unmarshal(raw, &c.ReservationView); err != nil {
		return err
	}
	if c.id() != r.ID {
		return fmt.Errorf("holds claim %q", c.id())
	}
	switch {
	case c.Lost:
	case s.removed.has(c.Agent):
		s.reservations[r.ID] = c
		s.loseReservation(c)
		return nil
	default:
		if err := s.pool.TakeReserved(c.at(), c.Role, c.disk()); err != nil {
			return err
		}
		s.quota.Charge(c.Role, c.disk(), false)
	}
	s.reservations[r.ID] = c
	s.outdated.reservations[c.Framework] = struct{}{}
	return nil
}

// loadHolder gives a reservation back to the instance that holds it. Address and host ports are the reservation's
// already.
func (s *State) loadHolder(g *kernel.Assignment, sp *spec, a *agent) (placement.Placement, error) {
	c := s.reservations[reservationID(sp.Framework, sp.Reservation.Name)]
	if c == nil || c.Agent != a.info.ID || c.Address != g.Address || c.holder != nil {
		return placement.Placement{}, fmt.Errorf("its claim %s is not where it is: %w", sp.Reservation.Name, errdefs.ErrNotFound)
	}
	s.uncount(c)
	return placement.Placement{Agent: a.info.ID}, nil
}

// resize changes what an instance's tasks have, when its machine and the quota have as much.
func (s *State) resize(ev Resize) error {
	i := s.instance(ev.Instance)
	if i == nil || i.Framework != ev.Framework || i.Goal() != kernel.GoalRun {
		return fmt.Errorf("group %s: it does not run: %w", ev.Instance, errdefs.ErrNotFound)
	}
	if len(ev.Sizes) != len(i.spec.Tasks) {
		return fmt.Errorf("group %s: %d sizes for %d tasks: %w", ev.Instance, len(ev.Sizes), len(i.spec.Tasks), errdefs.ErrInvalidArgument)
	}
	g := i.Assignment()
	had := g.Sizes
	g.Sizes = slices.Clone(ev.Sizes)
	for k := range g.Sizes {
		if !g.Sizes[k].Guarantee.Valid() {
			return fmt.Errorf("group %s: task %s would be guaranteed less than nothing: %w", ev.Instance, i.spec.Tasks[k].Name, errdefs.ErrInvalidArgument)
		}
	}
	if slices.Equal(g.Sizes, had) {
		return nil
	}
	need := g.Guarantee(&i.spec.Spec)
	more := need.Sub(i.need())
	if grows := more.Most(kernel.Resources{}); !grows.IsZero() {
		if short := (kernel.Quota{Limit: s.pool.FreeFor(i.spec.request, i.agent.info.ID).Most(kernel.Resources{})}).Within(kernel.Resources{}, grows); len(short) > 0 {
			return fmt.Errorf("group %s: machine %s lacks %s: asks %s more, has %s free: %w", ev.Instance, i.agent.info.Hostname, short[0],
				more, s.pool.FreeFor(i.spec.request, i.agent.info.ID), errdefs.ErrResourceExhausted)
		}
		if _, why, _ := s.quotaRoom(i.spec, grows, 1); why != "" {
			return fmt.Errorf("group %s: %s: %w", ev.Instance, why, errdefs.ErrResourceExhausted)
		}
	}
	s.pool.Adjust(i.agent.info.ID, i.spec.fills(), more)
	s.charge(Charge{Placement: invariant.Placement{Instance: g.ID, Agent: i.agent.info.ID, Role: i.spec.Role, Guarantee: more}})
	s.quota.Credit(i.spec.Role, i.need(), i.spec.Preemptible())
	s.quota.Charge(i.spec.Role, need, i.spec.Preemptible())
	i.Record, i.resized = i.Reassign(&g), true
	s.touch(i)
	s.change(i)
	s.capacityAppeared()
	return nil
}
