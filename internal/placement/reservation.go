package placement

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// A reservation (kernel.Reservation) owns the address and host ports of its instances: the pool takes them for the
// reservation, and places its instances without.

// Claim takes address, host ports and an amount for a reservation, as decided earlier. A port or address that is
// taken is an errdefs.ErrAlreadyExists, an unknown machine an errdefs.ErrNotFound; nothing is taken then.
func (p *Pool) TakeReserved(at Placement, role string, r kernel.Resources) error {
	i, ok := p.ids[at.Agent]
	if !ok {
		return fmt.Errorf("machine %s: %w", at.Agent, errdefs.ErrNotFound)
	}
	if err := p.machines[i].takeNetwork(at); err != nil {
		return err
	}
	p.Adjust(at.Agent, role, r)
	return nil
}

// takeNetwork takes address and host ports, or neither.
func (m *machine) takeNetwork(at Placement) error {
	for _, port := range at.HostPorts {
		if port != 0 && m.portTaken(port) {
			return fmt.Errorf("machine %s: host port %d: %w", at.Agent, port, errdefs.ErrAlreadyExists)
		}
	}
	if at.Address.IsValid() && !m.addresses.take(at.Address) {
		return fmt.Errorf("machine %s: address %s: %w", at.Agent, at.Address, errdefs.ErrAlreadyExists)
	}
	for _, port := range at.HostPorts {
		m.takePort(port)
	}
	return nil
}

// releaseNetwork returns address and host ports.
func (m *machine) releaseNetwork(at Placement) {
	for _, port := range at.HostPorts {
		m.releasePort(port)
	}
	if at.Address.IsValid() {
		m.addresses.release(at.Address)
	}
}

// Unclaim returns what Claim took.
func (p *Pool) ReturnReserved(at Placement, role string, r kernel.Resources) {
	if i, ok := p.ids[at.Agent]; ok {
		p.machines[i].releaseNetwork(at)
		p.freed.setMember(i, true)
		p.Adjust(at.Agent, role, r.Neg())
	}
}

// Adjust adds an amount, which may be negative, to the machine's used resources, whether it has that much or not.
// Unless role is empty, the amount fills the part reserved for it.
func (p *Pool) Adjust(id kernel.AgentID, role string, r kernel.Resources) {
	if i, ok := p.ids[id]; ok {
		m := &p.machines[i]
		m.used = m.used.Add(r)
		if role != "" {
			m.countReservedUse(role, r)
		}
		if !r.Valid() {
			p.freed.setMember(i, true)
		}
		p.updateAggregates(i)
	}
}

// Free returns the resources of a machine that are neither used, nor reserved for a role, nor set aside.
func (p *Pool) Free(id kernel.AgentID) kernel.Resources {
	if i, ok := p.ids[id]; ok {
		return p.aggregates[0][i].free
	}
	return kernel.Resources{}
}

// FreeFor returns the resources of a machine that are free for instances of r, the part reserved for its role included.
func (p *Pool) FreeFor(r *Request, id kernel.AgentID) kernel.Resources {
	if i, ok := p.ids[id]; ok {
		return p.freeFor(r, i)
	}
	return kernel.Resources{}
}

// PlaceOn places one instance on the machine of its reservation, which owns address and host ports. If it does not
// fit, the refusal says why.
func (p *Pool) PlaceOn(r *Request, id kernel.AgentID) (bool, kernel.Refusal) {
	ref := kernel.Refusal{Agents: 1}
	no := func(filter, detail string) (bool, kernel.Refusal) {
		ref.Reasons = []kernel.Rejected{{Filter: filter, Agents: 1, Detail: detail}}
		return false, ref
	}
	i, ok := p.ids[id]
	if !ok || !p.open.has(i) {
		return no("unreachable", fmt.Sprintf("its claim is on machine %s", id))
	}
	for _, rule := range r.rules {
		if !rule.allows(i) {
			return no(rule.String(), rule.detail())
		}
	}
	if !p.machines[i].hasReserved(r) {
		return no("reservation", "nothing is reserved there for "+r.role)
	}
	free := p.freeFor(r, i)
	if short := r.need.Lacking(free); len(short) > 0 {
		return no(short[0], fmt.Sprintf("asks %s, machine %s, where its claim is, has %s free",
			r.need.Amount(short[0]), p.machines[i].Hostname, free.Amount(short[0])))
	}
	p.countInstances(r, i, 1)
	return true, kernel.Refusal{}
}
