package core

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/allocator"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/master/subnet"
)

// machines changes the machines as operators ask.
type machines struct{ *tables }

// remove takes a machine out of the datacenter.
func (t machines) remove(ev event.RemoveAgent) (*kernel.Removal, error) {
	a := t.fleet.get(ev.Agent)
	if a == nil {
		if gone := t.removed.Row(ev.Agent); gone != nil {
			return nil, fmt.Errorf("machine %s (%s) was removed already, at %s: %w", gone.Hostname, ev.Agent,
				gone.Removed.UTC().Format(time.RFC3339), errdefs.ErrNotFound)
		}
		return nil, fmt.Errorf("machine %.64s: %w", ev.Agent, errdefs.ErrNotFound)
	}
	if err := t.mayLeave(a, ev.Force); err != nil {
		return nil, err
	}
	out := &kernel.Removal{Machine: ev.Agent, Hostname: a.info.Hostname, Instances: []kernel.InstanceID{},
		Lost: []kernel.ReservationView{}}
	for _, i := range slices.Collect(a.each) {
		out.Instances = append(out.Instances, i.ID())
		t.giveUp(i, fmt.Sprintf("its machine %s was removed from the datacenter", a.info.Hostname))
	}
	for _, c := range t.reservations.On(ev.Agent) {
		t.capacity.returnReserved(c)
		if t.loseReservation(c) {
			out.Lost = append(out.Lost, c.ReservationView)
		}
	}
	for _, id := range append(t.removed.Add(ev.Agent, a.info.Hostname, t.now), ev.Agent) {
		t.step.dirty(row.Row{Kind: row.Removed, ID: string(id)})
	}
	t.quit(a)
	return out, nil
}

// mayLeave refuses to remove a machine that may run something, unless it is forced.
func (t machines) mayLeave(a *agent, force bool) error {
	if a.broken != "" {
		return fmt.Errorf("machine %s: %s: repair or delete that row first: %w", a.info.Hostname, a.broken,
			errdefs.ErrFailedPrecondition)
	}
	kept := 0
	for _, c := range t.reservations.On(a.info.ID) {
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
	return fmt.Errorf("machine %s %s, runs %d instances and keeps volumes of %d: stop those or have them moved first; "+
		"with force they are ended and their volumes lost: %w",
		a.info.Hostname, is, a.count, kept, errdefs.ErrFailedPrecondition)
}

// quit takes an agent with nothing on it out of all tables.
func (t machines) quit(a *agent) {
	if a.session != 0 {
		t.dismiss(a.session, a.downSeq+1, a.info.ID)
		t.fleet.close(a, t.now)
	}
	for e := range t.queue.All {
		if b := e.Backfill(); b != nil && b.Agent == a.info.ID {
			t.endBackfill(e)
		}
	}
	t.capacity.pool.Remove(a.info.ID)
	t.views.remove(a)
	t.fleet.remove(a, t.now)
	t.step.dirty(a.row())
	if a.subnet.IsValid() {
		t.subnets.Return(a.subnet)
		t.giveSubnets()
	}
	t.step.capacityAppeared()
}

// reserve changes what of a machine is kept for a role.
func (t machines) reserve(ev event.Reserve) error {
	bad := func(format string, args ...any) error {
		args = append(append([]any{ev.Role, ev.Agent}, args...), errdefs.ErrInvalidArgument)
		return fmt.Errorf("reservation for %.64s on %.64s: "+format+": %w", args...)
	}
	a := t.fleet.get(ev.Agent)
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
		if over := t.overReserved(a, ev.ReservedPart, rest); over != "" {
			return fmt.Errorf("reservation for %s on %s: %s: %w", ev.Role, a.info.Hostname, over, errdefs.ErrResourceExhausted)
		}
		rest = append(rest, ev.ReservedPart)
	}
	slices.SortFunc(rest, func(x, y kernel.ReservedPart) int { return cmp.Compare(x.Role, y.Role) })
	a.reserved = rest
	t.views.alter(a)
	t.capacity.pool.Reserve(a.info.ID, ev.Role, ev.Amount, t.usedWithin(a, ev.Role))
	t.step.dirty(a.row())
	t.step.capacityAppeared()
	return nil
}

// overReserved says what a machine lacks for a reservation beside its others and what is used without one; "" if
// nothing.
func (t machines) overReserved(a *agent, r kernel.ReservedPart, rest []kernel.ReservedPart) string {
	left, _ := t.capacity.pool.Used(a.info.ID)
	left = a.info.Total.Sub(left).Add(t.usedWithin(a, r.Role))
	for _, o := range rest {
		left = left.Sub(o.Amount.Sub(t.usedWithin(a, o.Role)).Most(kernel.Resources{}))
	}
	if short := r.Amount.Lacking(left); len(short) > 0 {
		return fmt.Sprintf("it asks for %s %s, the machine has %s that is neither used by others nor reserved",
			r.Amount.Amount(short[0]), short[0], left.Most(kernel.Resources{}).Amount(short[0]))
	}
	return ""
}

// setPool changes the pool. Agents are told by a Sync.
func (t machines) setPool(ev event.SetPool) error {
	if err := t.subnets.Check(ev.Pool, t.cfg.VIPs); err != nil {
		return err
	}
	for _, a := range t.fleet.order {
		if a.subnet.IsValid() && !subnet.Contains(ev.Pool.Masked(), a.subnet) {
			return subnet.Refused(ev.Pool, "machine %s has subnet %s, which is not of it", a.info.Hostname, a.subnet)
		}
	}
	if !t.subnets.Use(ev.Pool) {
		return nil
	}
	t.step.dirty(row.Row{Kind: row.Network, ID: row.PoolID})
	t.giveSubnets()
	for _, a := range t.fleet.order {
		if a.session != 0 {
			t.step.outbox(a).sync = true
		}
	}
	return nil
}
