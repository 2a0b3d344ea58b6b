package placement

import "github.com/marinaos/marina/internal/kernel"

// A backfill reservation sets an amount of a machine aside for an instance that waits, while instances there end.

// SetAside reserves an amount of a machine for a waiting instance, whether it is free yet or not; a negative amount
// returns it. It does not count as used.
func (p *Pool) SetAside(id kernel.AgentID, r kernel.Resources) {
	if i, ok := p.ids[id]; ok {
		p.machines[i].setAside = p.machines[i].setAside.Add(r)
		p.updateAggregates(i)
	}
}

// PlaceAt places one instance on a machine, if it passes every filter there.
func (p *Pool) PlaceAt(r *Request, id kernel.AgentID) (Placement, bool) {
	i, ok := p.ids[id]
	if !ok || !p.passesRules(r, i) || !p.machines[i].hasPortsAndAddress(r) || !r.need.Fits(p.freeFor(r, i)) {
		return Placement{}, false
	}
	return p.takeOn(r, i), true
}

// passesRules reports whether machine i passes every filter of r but for resources, host ports and addresses.
func (p *Pool) passesRules(r *Request, i int32) bool {
	if !p.open.has(i) || !p.machines[i].hasReserved(r) {
		return false
	}
	for _, rule := range r.rules {
		if !rule.allows(i) {
			return false
		}
	}
	return true
}

// Short returns what a machine lacks for one instance of r, each resource at least zero. It reports false if the
// machine could not take the instance even with all its resources free. With claimed, host ports and address count as
// there already.
func (p *Pool) Short(r *Request, id kernel.AgentID, claimed bool) (kernel.Resources, bool) {
	i, ok := p.ids[id]
	if !ok || !p.passesRules(r, i) || !claimed && !p.machines[i].hasPortsAndAddress(r) ||
		!r.need.Fits(p.machines[i].freeWhenEmpty(r)) {
		return kernel.Resources{}, false
	}
	return r.need.Sub(p.freeFor(r, i)).Most(kernel.Resources{}), true
}

// Nearest returns the machine that lacks the least for one instance of r, judged by the resource of which it lacks
// the largest share. It reports false if no machine could ever take one, or if all that could have something set
// aside already. It visits every open machine.
func (p *Pool) Nearest(r *Request) (best kernel.AgentID, ok bool) {
	least := int64(0)
	for i := range p.open.each {
		m := &p.machines[i]
		if !m.setAside.IsZero() {
			continue
		}
		short, fits := p.Short(r, m.ID, false)
		if !fits {
			continue
		}
		lacks, total := int64(0), m.Total.Parts()
		for c, n := range short.Parts() {
			lacks = max(lacks, share(n, total[c]))
		}
		if !ok || lacks < least {
			best, least, ok = m.ID, lacks, true
		}
	}
	return best, ok
}

// Best returns the machine on which one instance of r would be placed now; false if there is none.
func (p *Pool) Best(r *Request) (kernel.AgentID, bool) {
	i := p.findMachine(r)
	if i < 0 {
		return "", false
	}
	return p.machines[i].ID, true
}
