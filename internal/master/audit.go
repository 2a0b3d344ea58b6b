package master

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
)

// audit holds what is about to be committed against the invariants that are cheap to check: capacity, quota, and that ports,
// addresses and subnets have one holder. A violation ends the leadership before it becomes durable.
type audit struct{ ledger *invariant.Ledger }

func newAudit(s *State) *audit {
	a := &audit{invariant.NewLedger()}
	for _, q := range s.Quotas() {
		a.ledger.Quota(q.Role, q.Limit)
	}
	for _, k := range s.order {
		a.ledger.Agent(k.info.ID, k.info.Total, k.subnet)
	}
	for name, v := range s.vips {
		a.ledger.VIP(name, v.addr)
	}
	for _, i := range s.Instances("") {
		a.place(s, &i)
	}
	a.ledger.Judge(0) // what is durable already cannot be kept from it: quotas and machines may have shrunk since
	return a
}

func (a *audit) judge(s *State, fx *Effects) error {
	for _, r := range fx.Writes {
		switch r.Kind {
		case RowAgent:
			if k := s.agents[kernel.AgentID(r.ID)]; k != nil {
				a.ledger.Agent(k.info.ID, k.info.Total, k.subnet)
			}
		case RowQuota:
			v := s.quota.View(r.ID)
			a.ledger.Quota(r.ID, v.Limit)
		case RowVIP:
			if v := s.vips[r.ID]; v != nil {
				a.ledger.VIP(r.ID, v.addr)
			} else {
				a.ledger.VIP(r.ID, netip.Addr{})
			}
		}
	}
	for k := range fx.Changes {
		i := &fx.Changes[k]
		was, on := a.ledger.Get(i.ID)
		switch on = on && was.Agent == i.Agent; {
		case i.Removed:
			a.ledger.Remove(i.ID, i.Agent)
		case !on:
			a.place(s, i)
		case s.groups[i.ID] != nil && was.Guarantee != s.groups[i.ID].need: // it was resized
			a.ledger.Resize(i.ID, s.groups[i.ID].need)
		}
	}
	if broken := a.ledger.Judge(0); len(broken) > 0 {
		return fmt.Errorf("%d invariants would be broken, first %v: %w", len(broken), broken[0], errdefs.ErrInternal)
	}
	return nil
}

func (a *audit) place(s *State, i *kernel.Instance) {
	sp := s.specs[i.Spec]
	if sp == nil {
		return
	}
	need := sp.need
	if placed := s.groups[i.ID]; placed != nil { // it may have been resized
		need = placed.need
	}
	a.ledger.Place(invariant.Placement{Group: i.ID, Agent: i.Agent, Role: sp.Role, Guarantee: need,
		Ports: invariant.HostPorts(&sp.Spec, i.HostPorts), Address: i.Address})
}
