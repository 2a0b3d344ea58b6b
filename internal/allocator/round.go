package allocator

import (
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Round serves the roles that wait, one instance after another. Next says whose turn it is; after what was placed is charged to the
// tree, Served has it counted. A role that cannot be served any more, or has nothing left, is Done.
type Round struct {
	t    *Tree
	root *party
	of   map[string]*party // leaves, by role
}

// party is a role that takes part, or with one below it that does. Where a role waits and roles below it do too, it is a leaf
// beside them, of weight 1.
type party struct {
	role     string
	parent   *party
	children []*party // by role, the role's own leaf first; those that wait
	own      bool     // the leaf of a role with children
	need     kernel.Resources
	vector   vector  // what it uses, for its parent: in fractions of what machines have
	share    float64 // the largest of these by the weight
	short    bool    // some guarantee of what it needs is not filled
	weight   float64
}

type vector [len(kernel.Components)]float64

// Round begins with the roles that wait and what an instance of each needs; zero for one whose next instance is lent.
func (t *Tree) Round(waiting map[string]kernel.Resources) *Round {
	r := &Round{t: t, of: map[string]*party{}}
	all := map[string]*party{}
	var get func(role string) *party
	get = func(role string) *party {
		p := all[role]
		if p == nil {
			p = &party{role: role, weight: t.nodes[role].weight()}
			all[role] = p
			if up := Parent(role); up != "" {
				p.parent = get(up)
				p.parent.children = append(p.parent.children, p)
			}
		}
		return p
	}
	for role := range waiting {
		get(role)
	}
	for role, need := range waiting {
		p := all[role]
		if len(p.children) > 0 {
			p = &party{role: role, parent: p, own: true, weight: 1}
			p.parent.children = append(p.parent.children, p)
		}
		p.need = need
		r.of[role] = p
	}
	if r.root = all["/"]; r.root != nil {
		r.root.begin(t)
	}
	return r
}

// begin orders what is below a party and counts it.
func (p *party) begin(t *Tree) {
	slices.SortFunc(p.children, func(a, b *party) int {
		if a.own != b.own {
			if a.own {
				return -1
			}
			return 1
		}
		return strings.Compare(a.role, b.role)
	})
	for _, c := range p.children {
		c.begin(t)
	}
	p.count(t)
}

// Next is the role to serve, false when there is none.
func (r *Round) Next() (string, bool) {
	if len(r.of) == 0 {
		return "", false
	}
	p := r.root
	for len(p.children) > 0 {
		best := p.children[0]
		for _, c := range p.children[1:] {
			if c.short != best.short {
				if c.short {
					best = c
				}
			} else if c.share < best.share {
				best = c
			}
		}
		p = best
	}
	return p.role, true
}

// Served counts what was charged to a role since; need is what its next instance needs.
func (r *Round) Served(role string, need kernel.Resources) {
	p := r.of[role]
	if p == nil {
		return
	}
	p.need = need
	for ; p != nil; p = p.parent {
		p.count(r.t)
	}
}

// Done takes a role out.
func (r *Round) Done(role string) {
	p := r.of[role]
	if p == nil {
		return
	}
	delete(r.of, role)
	for p.parent != nil && len(p.children) == 0 {
		up := p.parent
		up.children = slices.DeleteFunc(up.children, func(c *party) bool { return c == p })
		p = up
	}
	for ; p != nil; p = p.parent {
		p.count(r.t)
	}
}

// count brings a party up to date with the tree and with its children.
func (p *party) count(t *Tree) {
	p.vector = p.full(t)
	if len(p.children) > 0 {
		p.need = kernel.Resources{}
		least := p.children[0].share
		for _, c := range p.children {
			p.need = p.need.Most(c.need)
			least = min(least, c.share)
		}
		for _, c := range p.children {
			if c.share > 0 { // what it uses more than the least of them is not counted
				p.vector.add(c.full(t), -1)
				p.vector.add(c.vector, least/c.share)
			}
		}
	}
	p.short = false
	var unfilled kernel.Resources
	if n := t.nodes[p.role]; n != nil && !p.own {
		unfilled = n.unfilled()
	}
	need := p.need.Parts()
	for c, n := range unfilled.Parts() {
		p.short = p.short || n > 0 && need[c] > 0
	}
	p.share = p.vector.most() / p.weight
}

// full is all that a party uses.
func (p *party) full(t *Tree) vector {
	n := t.nodes[p.role]
	if n == nil {
		return vector{}
	}
	used := n.used
	if p.own {
		for _, c := range n.children {
			used = used.Sub(c.used)
		}
	}
	return t.vector(used)
}

func (t *Tree) vector(r kernel.Resources) (v vector) {
	total := t.total.Parts()
	for c, n := range r.Parts() {
		if total[c] > 0 && n > 0 {
			v[c] = float64(n) / float64(total[c])
		}
	}
	return v
}

func (v *vector) add(o vector, times float64) {
	for k := range v {
		v[k] = max(v[k]+o[k]*times, 0)
	}
}

func (v *vector) most() float64 { return slices.Max(v[:]) }
