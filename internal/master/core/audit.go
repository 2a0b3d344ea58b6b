package core

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/row"
)

// Audit holds what is about to be committed against the invariants that are cheap to check: capacity, quota, and that
// ports, addresses and subnets have one holder. A violation ends the leadership before it becomes durable.
type Audit struct{ totals *invariant.Totals }

// NewAudit begins with what a state holds.
func NewAudit(s *State) *Audit {
	a := &Audit{invariant.NewTotals()}
	for _, q := range s.Quotas() {
		a.totals.Quota(q.Role, q.Limit)
	}
	for _, k := range s.fleet.order {
		a.totals.Agent(k.info.ID, k.info.Total, k.subnet)
	}
	for name, addr := range s.vips.All {
		a.totals.VIP(name, addr)
	}
	for i := range s.fleet.instances {
		a.totals.Take(i.placement())
	}
	a.judgeTotals(s) // what is durable already cannot be kept from it: quotas and machines may have shrunk since
	return a
}

// Judge answers with an error when a step led to what must not be. It belongs to the owner of the state.
func (a *Audit) Judge(s *State, fx *Effects) error {
	for _, r := range fx.Writes {
		switch r.Kind {
		case row.Agent:
			if k := s.fleet.get(kernel.AgentID(r.ID)); k != nil {
				a.totals.Agent(k.info.ID, k.info.Total, k.subnet)
			} else {
				a.totals.DropAgent(kernel.AgentID(r.ID))
			}
		case row.Quota:
			v := s.capacity.quota.View(r.ID)
			a.totals.Quota(r.ID, v.Limit)
		case row.VIP:
			a.totals.VIP(r.ID, s.vips.Get(r.ID))
		}
	}
	for _, c := range fx.Charges {
		switch {
		case c.Ends:
			a.totals.GiveBack(c.Placement)
		case c.Begins:
			a.totals.Take(c.Placement)
		default:
			a.totals.Charge(c.Agent, c.Role, c.Guarantee)
		}
	}
	if broken := a.judgeTotals(s); len(broken) > 0 {
		return fmt.Errorf("%d invariants would be broken, first %v: %w", len(broken), broken[0], errdefs.ErrInternal)
	}
	return nil
}

func (a *Audit) judgeTotals(s *State) []invariant.Violation {
	return a.totals.Judge(0, func(holds func(*invariant.Placement) bool) (out []kernel.InstanceID) {
		for i := range s.fleet.instances {
			if p := i.placement(); holds(&p) {
				out = append(out, i.ID())
			}
		}
		return out
	})
}
