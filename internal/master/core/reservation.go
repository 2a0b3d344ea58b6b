package core

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/reservation"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/placement"
)

// count counts the disk of a reservation without a holder against machine and quota; uncount ends that.
func (s *State) count(c *reservation.Reservation) {
	s.pool.Adjust(c.Agent, c.Role, c.Needs())
	s.quota.Charge(c.Role, c.Needs(), false)
}

func (s *State) uncount(c *reservation.Reservation) {
	s.pool.Adjust(c.Agent, c.Role, c.Needs().Neg())
	s.quota.Credit(c.Role, c.Needs(), false)
}

// placeReserved places the first instance of an entry, if nobody holds the reservation: where the reservation is, or
// anywhere if there is none.
func (s *State) placeReserved(e *entry) []*instance {
	sp := e.spec
	c := s.reservations.Of(&sp.Spec)
	if c == nil {
		return s.placeFirst(e)
	}
	if ok, refusal := c.Available(); !ok {
		e.refuse(refusal)
		return nil
	}
	s.uncount(c)
	ok, refusal := s.affords(e)
	if ok {
		ok, refusal = s.pool.PlaceOn(sp.Request, c.Agent)
	}
	if e.refuse(refusal); !ok {
		s.count(c)
		return nil
	}
	placed := s.settle(e, []placement.Placement{c.At()})
	s.reservations.Place(c, &sp.Spec, placed[0].ID())
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
	c := s.reservations.Add(&sp.Spec, places[0])
	placed := s.settle(e, places)
	s.reservations.Place(c, &sp.Spec, placed[0].ID())
	return placed
}

// release marks reservations as given up; all of them or, with an error, none.
func (s *State) release(framework string, names []string) error {
	found, err := s.reservations.GiveUp(framework, names)
	if err != nil {
		return err
	}
	for _, e := range s.queue {
		k := &e.spec.Spec
		if c := s.reservations.Of(k); c != nil && c.Lost { // nothing is taken from who waits for it
			continue
		}
		if e.framework == framework && k.Reservation != nil && len(e.instances) > 0 && slices.Contains(names, k.Reservation.Name) {
			return fmt.Errorf("claim %s: group %s waits to be placed with it: withdraw it first: %w", k.Reservation.Name, e.instances[0],
				errdefs.ErrFailedPrecondition)
		}
	}
	for _, c := range found {
		if c.Lost {
			s.dropReservation(c)
			continue
		}
		s.reservations.MarkReleased(c)
		if a := s.agents[c.Agent]; a != nil {
			out := s.outbox(a)
			out.releases = append(out.releases, c.ID())
		}
	}
	return nil
}

// released ends a reservation of which its agent has nothing left.
func (s *State) released(a *agent, id string) {
	c := s.reservations.Get(id)
	if c == nil || !c.Released || c.Agent != a.info.ID {
		return
	}
	s.freeReservation(c)
	s.dropReservation(c)
}

// freeReservation gives back what a reservation without a holder takes.
func (s *State) freeReservation(c *reservation.Reservation) {
	s.pool.ReturnReserved(c.At(), c.Role, c.Needs())
	s.quota.Credit(c.Role, c.Needs(), false)
}

// dropReservation forgets a reservation that takes nothing any more.
func (s *State) dropReservation(c *reservation.Reservation) {
	s.reservations.Drop(c)
	s.capacityAppeared()
}

// loseReservation marks the reservation of a removed machine as lost, and reports whether there was something to lose.
func (s *State) loseReservation(c *reservation.Reservation) bool {
	lost := s.reservations.MarkLost(c)
	if !lost {
		s.capacityAppeared()
	}
	return lost
}

func (s *State) loadReservation(r Row, raw []byte) error {
	c, err := reservation.Parse(r.ID, raw)
	if err != nil {
		return err
	}
	switch {
	case c.Lost:
	case s.removed.has(c.Agent):
		s.reservations.Load(c)
		s.loseReservation(c)
		return nil
	default:
		if err := s.pool.TakeReserved(c.At(), c.Role, c.Needs()); err != nil {
			return err
		}
		s.quota.Charge(c.Role, c.Needs(), false)
	}
	s.reservations.Load(c)
	s.outdated.reservations[c.Framework] = struct{}{}
	return nil
}

// loadHolder gives a reservation back to the instance that holds it. Address and host ports are the reservation's
// already.
func (s *State) loadHolder(g *kernel.Assignment, sp *spec.Spec, a *agent) (placement.Placement, error) {
	c := s.reservations.Of(&sp.Spec)
	if c == nil || c.Agent != a.info.ID || c.Address != g.Address || c.Holder() != "" {
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
		if short := (kernel.Quota{Limit: s.pool.FreeFor(i.spec.Request, i.agent.info.ID).Most(kernel.Resources{})}).Within(kernel.Resources{}, grows); len(short) > 0 {
			return fmt.Errorf("group %s: machine %s lacks %s: asks %s more, has %s free: %w", ev.Instance, i.agent.info.Hostname, short[0],
				more, s.pool.FreeFor(i.spec.Request, i.agent.info.ID), errdefs.ErrResourceExhausted)
		}
		if _, why, _ := s.quotaRoom(i.spec, grows, 1); why != "" {
			return fmt.Errorf("group %s: %s: %w", ev.Instance, why, errdefs.ErrResourceExhausted)
		}
	}
	s.pool.Adjust(i.agent.info.ID, i.spec.Fills(), more)
	s.charge(Charge{Placement: invariant.Placement{Instance: g.ID, Agent: i.agent.info.ID, Role: i.spec.Role, Guarantee: more}})
	s.quota.Credit(i.spec.Role, i.need(), i.spec.Preemptible())
	s.quota.Charge(i.spec.Role, need, i.spec.Preemptible())
	i.Record, i.resized = i.Reassign(&g), true
	s.touch(i)
	s.change(i)
	s.capacityAppeared()
	return nil
}
