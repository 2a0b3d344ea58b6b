package placement

import (
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// reserve is an amount of a machine that is kept for a role and those below it.
type reserve struct {
	role   string
	amount kernel.Resources
	used   kernel.Resources // by instances of them that may use it
}

// unfilled is what of it nobody uses.
func (r *reserve) unfilled() kernel.Resources { return r.amount.Sub(r.used).Most(kernel.Resources{}) }

// Reserve keeps an amount of a machine for a role in place of what it had, with what instances of it use already; zero ends that. Roles with a
// reservation on one machine are not within each other.
func (p *Pool) Reserve(id kernel.AgentID, role string, amount, used kernel.Resources) {
	i, ok := p.ids[id]
	if !ok {
		return
	}
	m := &p.machines[i]
	m.reserves = slices.DeleteFunc(m.reserves, func(r reserve) bool { return r.role == role })
	have := p.reserved[role]
	if have == nil {
		have = &set{}
		p.reserved[role] = have
	}
	if have.put(i, !amount.IsZero()); !amount.IsZero() {
		m.reserves = append(m.reserves, reserve{role, amount, used})
	} else if have.n == 0 {
		delete(p.reserved, role)
	}
	p.freed.put(i, true)
	p.refresh(i)
}

// fill counts what instances of a role use of what is reserved for it.
func (m *machine) fill(role string, r kernel.Resources) {
	for k := range m.reserves {
		if kernel.Within(role, m.reserves[k].role) {
			m.reserves[k].used = m.reserves[k].used.Add(r)
		}
	}
}

// public is what is free for anybody.
func (m *machine) public() kernel.Resources {
	free := m.Total.Sub(m.used).Sub(m.held)
	for k := range m.reserves {
		free = free.Sub(m.reserves[k].unfilled())
	}
	return free
}

// freeFor is what machine i has for an instance of r.
func (p *Pool) freeFor(r *Request, i int32) kernel.Resources {
	free := p.sums[0][i].free
	if r.reserved == kernel.ReservedNone {
		return free
	}
	own := kernel.Resources{}
	m := &p.machines[i]
	for k := range m.reserves {
		if kernel.Within(r.role, m.reserves[k].role) {
			own = m.reserves[k].unfilled()
		}
	}
	if r.reserved == kernel.ReservedOnly {
		return own.Least(free.Add(own)) // a machine may have less than it reserves
	}
	return free.Add(own)
}

// couldHave is what machine i would have for an instance of r if nothing ran on it.
func (p *Pool) couldHave(r *Request, i int32) kernel.Resources {
	m := &p.machines[i]
	all, own := m.Total.Sub(m.held), kernel.Resources{}
	for k := range m.reserves {
		if r.reserved != kernel.ReservedNone && kernel.Within(r.role, m.reserves[k].role) {
			own = m.reserves[k].amount
		} else {
			all = all.Sub(m.reserves[k].amount)
		}
	}
	if r.reserved == kernel.ReservedOnly {
		return own.Least(all)
	}
	return all
}

// keeps reports whether machine i has something reserved for a request that uses nothing else.
func (p *Pool) keeps(r *Request, i int32) bool {
	return r.reserved != kernel.ReservedOnly || slices.ContainsFunc(p.machines[i].reserves, func(k reserve) bool { return kernel.Within(r.role, k.role) })
}

// reservedFor looks at the machines that have something reserved for the request's role. They are few, and looked at one by one.
func (q *search) reservedFor() {
	o := q.r.owner
	fewest := int32(0)
	for role := q.r.role; role != ""; role = kernel.ParentRole(role) {
		have := q.pool.reserved[role]
		if have == nil {
			continue
		}
		for i := range have.each {
			n, points := o.by[i], q.of(&q.pool.sums[0][i])
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
