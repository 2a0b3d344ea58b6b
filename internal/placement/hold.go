package placement

import "github.com/marinaos/marina/internal/kernel"

// What waits may have room kept for it on a machine while that becomes free.

// Hold keeps an amount of a machine from everyone, also what is not free yet; a negative one ends that. It counts as used by nobody.
func (p *Pool) Hold(id kernel.AgentID, r kernel.Resources) {
	if i, ok := p.ids[id]; ok {
		p.machines[i].held = p.machines[i].held.Add(r)
		p.refresh(i)
	}
}

// PlaceAt places one instance on a machine, if it passes every filter there.
func (p *Pool) PlaceAt(r *Request, id kernel.AgentID) (Placement, bool) {
	i, ok := p.ids[id]
	if !ok || !p.suits(r, i) || !p.hasOwn(r, i) || !r.need.Fits(p.freeFor(r, i)) {
		return Placement{}, false
	}
	return p.put(r, i), true
}

// hasOwn reports whether machine i has the host ports and an address for an instance of r.
func (p *Pool) hasOwn(r *Request, i int32) bool {
	m := &p.machines[i]
	return m.hasPorts(r) && (!r.address || m.addresses.free() > 0)
}

// suits reports whether machine i passes every filter of r but for resources, host ports and addresses.
func (p *Pool) suits(r *Request, i int32) bool {
	if !p.open.has(i) || !p.keeps(r, i) {
		return false
	}
	for _, rule := range r.rules {
		if !rule.allows(i) {
			return false
		}
	}
	return true
}

// Short is what a machine lacks for one instance of r, nothing less than zero; false if it could not take it whatever became free of its
// resources. For an instance whose claim is there, host ports and address are given.
func (p *Pool) Short(r *Request, id kernel.AgentID, claimed bool) (kernel.Resources, bool) {
	i, ok := p.ids[id]
	if !ok || !p.suits(r, i) || !claimed && !p.hasOwn(r, i) || !r.need.Fits(p.couldHave(r, i)) {
		return kernel.Resources{}, false
	}
	return r.need.Sub(p.freeFor(r, i)).Most(kernel.Resources{}), true
}

// Nearest is the machine that lacks the least for one instance of r, by the resource of which it lacks most; false if none could ever take it, or
// if for all that could room is held already. It looks at every open machine.
func (p *Pool) Nearest(r *Request) (best kernel.AgentID, ok bool) {
	least := int64(0)
	for i := range p.open.each {
		m := &p.machines[i]
		if !m.held.IsZero() {
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

// Best is the machine on which one instance of r would be placed now, false if there is none.
func (p *Pool) Best(r *Request) (kernel.AgentID, bool) {
	i := p.find(r)
	if i < 0 {
		return "", false
	}
	return p.machines[i].ID, true
}

// Total is what open machines have together, and what of that nobody uses, whether it is reserved or not; what is kept for what waits is left out.
func (p *Pool) Total() (total, free kernel.Resources) { return p.total, p.free }

// sumUp counts machine i in the pool's totals as it is now.
func (p *Pool) sumUp(i int32, free kernel.Resources) {
	m := &p.machines[i]
	for k := range m.reserves {
		free = free.Add(m.reserves[k].unfilled())
	}
	p.total, p.free = p.total.Sub(m.counted[0]), p.free.Sub(m.counted[1])
	m.counted = [2]kernel.Resources{}
	if p.open.has(i) {
		m.counted = [2]kernel.Resources{m.Total, free.Most(kernel.Resources{})}
		p.total, p.free = p.total.Add(m.counted[0]), p.free.Add(m.counted[1])
	}
}
