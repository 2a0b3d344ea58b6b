package allocator

import (
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Round serves the roles that wait, one instance after another. Next says whose turn it is; after what was placed is charged to the
// tree, Served has it counted. A role that cannot be served any more, or has nothing left, is Done. Each costs about the logarithm of the roles
// that wait, at every level.
type Round struct {
	t    *Tree
	root *party
	of   map[string]*party // leaves, by role
}

// party is a role that takes part, or with one below it that does. Where a role waits and roles below it do too, it is a leaf
// beside them, of weight 1.
type party struct {
	role   string
	parent *party
	own    bool // the leaf of a role with children
	weight float64
	order  int // among its siblings, for those with equal shares
	need   kernel.Resources

	// As counted for its parent.
	full   vector  // what it uses, in fractions of what machines have
	vector vector  // the same with its children scaled down to the least of them
	share  float64 // the largest of these by the weight
	short  bool    // some guarantee of what it needs is not filled
	wants  [len(kernel.Components)]bool

	// Of its children that wait.
	ranks   [rankings][]*party // heaps: the one with the least share first
	at      [rankings]int      // its own places in its parent's, -1 for none
	inFull  vector             // sum of their full
	per     vector             // sum of their vectors by their shares
	wanting [len(kernel.Components)]int
}

// The rankings of a party's children: all, and those with a guarantee to fill.
const (
	byShare = iota
	shortByShare
	rankings
)

type vector [len(kernel.Components)]float64

// Round begins with the roles that wait and what an instance of each needs; zero for one whose next instance is lent.
func (t *Tree) Round(waiting map[string]kernel.Resources) *Round {
	r := &Round{t: t, of: make(map[string]*party, len(waiting))}
	all := make(map[string]*party, len(waiting))
	parties := []*party{}
	inner := map[*party]bool{}
	var get func(role string) *party
	get = func(role string) *party {
		p := all[role]
		if p == nil {
			p = &party{role: role, weight: t.nodes[role].weight(), at: [rankings]int{-1, -1}}
			all[role] = p
			parties = append(parties, p)
			if up := kernel.ParentRole(role); up != "" {
				p.parent = get(up)
				inner[p.parent] = true
			}
		}
		return p
	}
	for role := range waiting {
		get(role)
	}
	for role, need := range waiting {
		p := all[role]
		if inner[p] {
			p = &party{role: role, parent: p, own: true, weight: 1, at: [rankings]int{-1, -1}}
			parties = append(parties, p)
		}
		p.need = need
		r.of[role] = p
	}
	r.root = all["/"]
	// The deepest first, so that each is counted once; then by name, so that the order of a map does not show.
	depth := func(p *party) int {
		d := 2 * strings.Count(strings.TrimSuffix(p.role, "/"), "/")
		if p.own {
			d++
		}
		return d
	}
	slices.SortFunc(parties, func(a, b *party) int {
		if d := depth(b) - depth(a); d != 0 {
			return d
		}
		return strings.Compare(a.role, b.role)
	})
	for k, p := range parties {
		if p.order = k; p.own {
			p.order = -1
		}
	}
	for _, p := range parties {
		p.count(t)
	}
	return r
}

// Next is the role to serve, false when there is none.
func (r *Round) Next() (string, bool) {
	if len(r.of) == 0 {
		return "", false
	}
	p := r.root
	for len(p.ranks[byShare]) > 0 {
		if len(p.ranks[shortByShare]) > 0 {
			p = p.ranks[shortByShare][0]
		} else {
			p = p.ranks[byShare][0]
		}
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
	r.recount(p)
}

// recount brings a party and those above it up to date.
func (r *Round) recount(p *party) {
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
	for p.parent != nil && len(p.ranks[byShare]) == 0 {
		up := p.parent
		up.forget(p)
		p = up
	}
	r.recount(p)
}

// count brings a party up to date with the tree and its children, and its parent with it.
func (p *party) count(t *Tree) {
	if p.parent != nil {
		p.parent.forget(p)
	}
	n := t.nodes[p.role]
	var used, unfilled kernel.Resources
	if n != nil {
		used = n.used
		if unfilled = n.unfilled(); p.own {
			unfilled = kernel.Resources{}
			for _, c := range n.children {
				used = used.Sub(c.used)
			}
		}
	}
	p.full = t.vector(used)
	p.vector = p.full
	if children := p.ranks[byShare]; len(children) > 0 {
		p.vector.add(p.inFull, -1)
		p.vector.add(p.per, children[0].share)
	}
	p.share = p.vector.most() / p.weight
	p.short = false
	need, open := p.need.Parts(), unfilled.Parts()
	for c := range need {
		p.wants[c] = need[c] > 0 || p.wanting[c] > 0
		p.short = p.short || p.wants[c] && open[c] > 0
	}
	if p.parent != nil {
		p.parent.remember(p)
	}
}

// remember counts a child, forget undoes that.
func (p *party) remember(c *party) {
	p.sum(c, 1)
	p.push(byShare, c)
	if c.short {
		p.push(shortByShare, c)
	}
}

func (p *party) forget(c *party) {
	if c.at[byShare] < 0 {
		return
	}
	p.sum(c, -1)
	p.remove(byShare, c)
	if c.at[shortByShare] >= 0 {
		p.remove(shortByShare, c)
	}
}

func (p *party) sum(c *party, by float64) {
	p.inFull.add(c.full, by)
	if c.share > 0 {
		p.per.add(c.vector, by/c.share)
	}
	for k, wants := range c.wants {
		if wants {
			p.wanting[k] += int(by)
		}
	}
}

// before orders a heap.
func before(a, b *party) bool {
	return a.share < b.share || a.share == b.share && a.order < b.order
}

func (p *party) push(rank int, c *party) {
	c.at[rank] = len(p.ranks[rank])
	p.ranks[rank] = append(p.ranks[rank], c)
	p.up(rank, c.at[rank])
}

func (p *party) remove(rank int, c *party) {
	heap, at := p.ranks[rank], c.at[rank]
	last := len(heap) - 1
	p.swap(rank, at, last)
	heap[last] = nil
	p.ranks[rank] = heap[:last]
	c.at[rank] = -1
	if at < last {
		p.up(rank, at)
		p.down(rank, at)
	}
}

func (p *party) swap(rank, i, j int) {
	heap := p.ranks[rank]
	heap[i], heap[j] = heap[j], heap[i]
	heap[i].at[rank], heap[j].at[rank] = i, j
}

func (p *party) up(rank, i int) {
	for heap := p.ranks[rank]; i > 0 && before(heap[i], heap[(i-1)/2]); i = (i - 1) / 2 {
		p.swap(rank, i, (i-1)/2)
	}
}

func (p *party) down(rank, i int) {
	heap := p.ranks[rank]
	for {
		c := 2*i + 1
		if c+1 < len(heap) && before(heap[c+1], heap[c]) {
			c++
		}
		if c >= len(heap) || !before(heap[c], heap[i]) {
			return
		}
		p.swap(rank, i, c)
		i = c
	}
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
		v[k] += o[k] * times
	}
}

// most is the largest component; what sums of differences leave below nothing is nothing.
func (v *vector) most() float64 { return max(slices.Max(v[:]), 0) }
