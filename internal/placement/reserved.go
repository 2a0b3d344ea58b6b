package placement

import (
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// reservedPart is an amount of a machine that only a role and those below it may use.
type reservedPart struct {
	role   string
	amount kernel.Resources
	used   kernel.Resources // by their instances that may use it; may be more than amount
}

// unused returns the rest of the part, each resource at least zero.
func (r *reservedPart) unused() kernel.Resources {
	return r.amount.Sub(r.used).Most(kernel.Resources{})
}

// Reserve replaces the part of a machine that is reserved for a role; used is what the role's instances there use
// already. A zero amount ends it. Callers keep roles with parts of one machine from being within each other.
func (p *Pool) Reserve(id kernel.AgentID, role string, amount, used kernel.Resources) {
	i, ok := p.ids[id]
	if !ok {
		return
	}
	m := &p.machines[i]
	m.reservedParts = slices.DeleteFunc(m.reservedParts, func(r reservedPart) bool { return r.role == role })
	have := p.reserved[role]
	if have == nil {
		have = &set{}
		p.reserved[role] = have
	}
	if have.setMember(i, !amount.IsZero()); !amount.IsZero() {
		m.reservedParts = append(m.reservedParts, reservedPart{role, amount, used})
	} else if have.n == 0 {
		delete(p.reserved, role)
	}
	p.freed.setMember(i, true)
	p.updateAggregates(i)
}

// countReservedUse adds r, which may be negative, to the use of the parts that a role may use.
func (m *machine) countReservedUse(role string, r kernel.Resources) {
	for k := range m.reservedParts {
		if kernel.Within(role, m.reservedParts[k].role) {
			m.reservedParts[k].used = m.reservedParts[k].used.Add(r)
		}
	}
}

// freeForAll returns what is free for instances of every role; it can be negative.
func (m *machine) freeForAll() kernel.Resources {
	free := m.Total.Sub(m.used).Sub(m.setAside)
	for k := range m.reservedParts {
		free = free.Sub(m.reservedParts[k].unused())
	}
	return free
}

// freeFor returns what machine i has free for an instance of r.
func (p *Pool) freeFor(r *Request, i int32) kernel.Resources {
	free := p.aggregates[0][i].free
	if r.reserved == kernel.ReservedNone {
		return free
	}
	own := kernel.Resources{}
	m := &p.machines[i]
	for k := range m.reservedParts {
		if kernel.Within(r.role, m.reservedParts[k].role) {
			own = m.reservedParts[k].unused()
		}
	}
	if r.reserved == kernel.ReservedOnly {
		return own.Least(free.Add(own)) // a machine may have less than it reserves
	}
	return free.Add(own)
}

// freeWhenEmpty returns what the machine would have for an instance of r if nothing ran on it.
func (m *machine) freeWhenEmpty(r *Request) kernel.Resources {
	all, own := m.Total.Sub(m.setAside), kernel.Resources{}
	for k := range m.reservedParts {
		if r.reserved != kernel.ReservedNone && kernel.Within(r.role, m.reservedParts[k].role) {
			own = m.reservedParts[k].amount
		} else {
			all = all.Sub(m.reservedParts[k].amount)
		}
	}
	if r.reserved == kernel.ReservedOnly {
		return own.Least(all)
	}
	return all
}

// hasReserved reports whether the machine has a reserved part for r, if r uses nothing else.
func (m *machine) hasReserved(r *Request) bool {
	return r.reserved != kernel.ReservedOnly || slices.ContainsFunc(m.reservedParts,
		func(k reservedPart) bool { return kernel.Within(r.role, k.role) })
}

// searchReserved searches the machines with a part reserved for the request's role. They are few, and visited one by
// one.
func (q *search) searchReserved() {
	o := q.r.owner
	fewest := int32(0)
	for role := q.r.role; role != ""; role = kernel.ParentRole(role) {
		have := q.pool.reserved[role]
		if have == nil {
			continue
		}
		for i := range have.each {
			n, points := o.by[i], q.score(&q.pool.aggregates[0][i])
			if q.r.pack {
				n = 0
			}
			if q.best >= 0 && (n > fewest || n == fewest && points <= q.points) || !q.passes(i) {
				continue
			}
			q.best, q.points, fewest = i, points, n
		}
	}
}
