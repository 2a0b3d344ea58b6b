package placement

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// Instances with a claim have their address and host ports from it: the pool keeps those for the claim, and is asked to place
// such an instance without them.

// Claim keeps an address, host ports and an amount for a claim, as decided earlier. What of them is taken is an
// errdefs.ErrAlreadyExists, an unknown machine an errdefs.ErrNotFound, and nothing is kept then.
func (p *Pool) Claim(at Placement, role string, r kernel.Resources) error {
	i, ok := p.ids[at.Agent]
	if !ok {
		return fmt.Errorf("machine %s: %w", at.Agent, errdefs.ErrNotFound)
	}
	if err := p.machines[i].claim(at); err != nil {
		return err
	}
	p.Adjust(at.Agent, role, r)
	return nil
}

// claim takes address and host ports, or neither.
func (m *machine) claim(at Placement) error {
	for _, port := range at.HostPorts {
		if port != 0 && m.hasTaken(port) {
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

// unclaim gives address and host ports back.
func (m *machine) unclaim(at Placement) {
	for _, port := range at.HostPorts {
		m.givePort(port)
	}
	if at.Address.IsValid() {
		m.addresses.giveBack(at.Address)
	}
}

// Unclaim gives back what Claim keeps.
func (p *Pool) Unclaim(at Placement, role string, r kernel.Resources) {
	if i, ok := p.ids[at.Agent]; ok {
		p.machines[i].unclaim(at)
		p.freed.put(i, true)
		p.Adjust(at.Agent, role, kernel.Resources{}.Sub(r))
	}
}

// Adjust changes what is taken of a machine by an amount, whether it is there or not. The amount counts for what is reserved for a role
// unless that is empty.
func (p *Pool) Adjust(id kernel.AgentID, role string, r kernel.Resources) {
	if i, ok := p.ids[id]; ok {
		m := &p.machines[i]
		m.used = m.used.Add(r)
		if role != "" {
			m.fill(role, r)
		}
		if !r.Valid() {
			p.freed.put(i, true)
		}
		p.refresh(i)
	}
}

// Free is what of a machine is neither taken, nor kept for anybody.
func (p *Pool) Free(id kernel.AgentID) kernel.Resources {
	if i, ok := p.ids[id]; ok {
		return p.sums[0][i].free
	}
	return kernel.Resources{}
}

// FreeFor is Free for instances of r: what is reserved for its role counts.
func (p *Pool) FreeFor(r *Request, id kernel.AgentID) kernel.Resources {
	if i, ok := p.ids[id]; ok {
		return p.freeFor(r, i)
	}
	return kernel.Resources{}
}

// PlaceOn places one instance on a machine that its claim named, without address and host ports. Otherwise the refusal says
// why that machine does not take it.
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
	if !p.keeps(r, i) {
		return no("reservation", "nothing is reserved there for "+r.role)
	}
	free := p.freeFor(r, i)
	if short := r.need.Lacking(free); len(short) > 0 {
		return no(short[0], fmt.Sprintf("asks %s, machine %s, where its claim is, has %s free", r.need.Amount(short[0]), p.machines[i].Hostname, free.Amount(short[0])))
	}
	p.charge(r, i, 1)
	return true, kernel.Refusal{}
}
