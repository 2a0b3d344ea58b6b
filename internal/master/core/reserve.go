package core

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/allocator"
	"github.com/marinaos/marina/internal/kernel"
)

// reserve changes what of a machine is kept for a role.
func (s *State) reserve(ev Reserve) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("reservation for %.64s on %.64s: "+format+": %w", append(append([]any{ev.Role, ev.Agent}, args...), errdefs.ErrInvalidArgument)...)
	}
	a := s.agents[ev.Agent]
	switch err := allocator.ValidateRole(ev.Role); {
	case err != nil:
		return err
	case a == nil:
		return fmt.Errorf("machine %.64s: %w", ev.Agent, errdefs.ErrNotFound)
	case a.broken != "":
		return fmt.Errorf("machine %s: %s: %w", a.info.Hostname, a.broken, errdefs.ErrFailedPrecondition)
	case !ev.Amount.Valid():
		return bad("an amount is zero or more")
	}
	rest := slices.DeleteFunc(slices.Clone(a.reserved), func(r kernel.ReservedPart) bool { return r.Role == ev.Role })
	if ev.Amount.IsZero() {
		if len(rest) == len(a.reserved) {
			return fmt.Errorf("machine %s reserves nothing for %.64s: %w", a.info.Hostname, ev.Role, errdefs.ErrNotFound)
		}
	} else {
		if len(rest) >= maxReserved {
			return bad("there are %d on the machine, which is as many as there may be", len(rest))
		}
		for _, r := range rest {
			if kernel.Within(r.Role, ev.Role) || kernel.Within(ev.Role, r.Role) {
				return bad("the machine has one for %s, and one cannot be within another", r.Role)
			}
		}
		if over := s.overReserved(a, ev.ReservedPart, rest); over != "" {
			return fmt.Errorf("reservation for %s on %s: %s: %w", ev.Role, a.info.Hostname, over, errdefs.ErrResourceExhausted)
		}
		rest = append(rest, ev.ReservedPart)
	}
	slices.SortFunc(rest, func(x, y kernel.ReservedPart) int { return cmp.Compare(x.Role, y.Role) })
	a.reserved = rest
	s.altered(a)
	s.pool.Reserve(a.info.ID, ev.Role, ev.Amount, s.usedWithin(a, ev.Role))
	s.dirty(Row{Kind: RowAgent, ID: string(a.info.ID)})
	s.capacityAppeared()
	return nil
}

// usedWithin is what of a machine is used by instances and reservations of a role and those below it that may use its
// reservations.
func (s *State) usedWithin(a *agent, role string) (used kernel.Resources) {
	for i := range a.each {
		if i.spec.Reserved != kernel.ReservedNone && kernel.Within(i.spec.Role, role) {
			used = used.Add(i.need())
		}
	}
	for c := range s.reservations.All {
		if c.Agent == a.info.ID && c.Holder() == "" && kernel.Within(c.Role, role) {
			used = used.Add(c.Needs())
		}
	}
	return used
}

// overReserved says what a machine lacks for a reservation beside its others and what is used without one; "" if
// nothing.
func (s *State) overReserved(a *agent, r kernel.ReservedPart, rest []kernel.ReservedPart) string {
	left, _ := s.pool.Used(a.info.ID)
	left = a.info.Total.Sub(left).Add(s.usedWithin(a, r.Role))
	for _, o := range rest {
		left = left.Sub(o.Amount.Sub(s.usedWithin(a, o.Role)).Most(kernel.Resources{}))
	}
	if short := r.Amount.Lacking(left); len(short) > 0 {
		return fmt.Sprintf("it asks for %s %s, the machine has %s that is neither used by others nor reserved", r.Amount.Amount(short[0]), short[0],
			left.Most(kernel.Resources{}).Amount(short[0]))
	}
	return ""
}
