package allocator

import (
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Round serves the waiting roles, one instance after another. Next returns the role to serve; after its instance is
// charged to the tree, call Served; when the role cannot be served any more, or nothing of it waits, call Done. Each
// call costs about the logarithm of the number of waiting roles, at every level.
type Round struct {
	t      *Tree
	root   *participant
	leaves map[string]*participant // leaves, by role
}

// participant is a waiting role, or an ancestor of one. A waiting role with waiting roles below it is also a leaf
// beside them, of weight 1.
type participant struct {
	role     string
	parent   *participant
	selfLeaf bool // the leaf of a role with children
	weight   float64
	order    int // among its siblings, for those with equal shares
	need     kernel.Resources

	// As its parent counts it.
	unscaled       vector  // its use, in fractions of all machines
	vector         vector  // the same, with its waiting children scaled down to the smallest share among them
	share          float64 // the largest component of vector, divided by weight
	belowGuarantee bool    // in a component it needs, its entitlement is not used up
	wants          [len(kernel.Components)]bool

	// Of its waiting children.
	heaps     [heapCount][]*participant // the smallest share first
	heapIndex [heapCount]int            // its own places in its parent's heaps, -1 for none
	sumFull   vector                    // sum of their unscaled
	perShare  vector                    // sum of their vectors, each divided by its share
	wanting   [len(kernel.Components)]int
}

// The heaps of a participant's children: all, and those with a guarantee to fill.
const (
	byShare = iota
	guaranteedByShare
	heapCount
)

// Round begins a round of the waiting roles, each with what its next instance needs; zero if that is preemptible.
func (t *Tree) Round(waiting map[string]kernel.Resources) *Round {
	r := &Round{t: t, leaves: make(map[string]*participant, len(waiting))}
	all := make(map[string]*participant, len(waiting))
	parties := []*participant{}
	inner := map[*participant]bool{}
	var get func(role string) *participant
	get = func(role string) *participant {
		p := all[role]
		if p == nil {
			p = &participant{role: role, weight: t.nodes[role].weight(), heapIndex: [heapCount]int{-1, -1}}
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
			p = &participant{role: role, parent: p, selfLeaf: true, weight: 1, heapIndex: [heapCount]int{-1, -1}}
			parties = append(parties, p)
		}
		p.need = need
		r.leaves[role] = p
	}
	r.root = all["/"]
	// The deepest first, so that each is updated once; then by name, so that the order does not depend on the map.
	depth := func(p *participant) int {
		d := 2 * strings.Count(strings.TrimSuffix(p.role, "/"), "/")
		if p.selfLeaf {
			d++
		}
		return d
	}
	slices.SortFunc(parties, func(a, b *participant) int {
		if d := depth(b) - depth(a); d != 0 {
			return d
		}
		return strings.Compare(a.role, b.role)
	})
	for k, p := range parties {
		if p.order = k; p.selfLeaf {
			p.order = -1
		}
	}
	for _, p := range parties {
		p.update(t)
	}
	return r
}

// Next returns the role to serve; false when there is none.
func (r *Round) Next() (string, bool) {
	if len(r.leaves) == 0 {
		return "", false
	}
	p := r.root
	for len(p.heaps[byShare]) > 0 {
		if len(p.heaps[guaranteedByShare]) > 0 {
			p = p.heaps[guaranteedByShare][0]
		} else {
			p = p.heaps[byShare][0]
		}
	}
	return p.role, true
}

// Served counts what was charged to a role since its last turn; need is for its next instance.
func (r *Round) Served(role string, need kernel.Resources) {
	p := r.leaves[role]
	if p == nil {
		return
	}
	p.need = need
	r.updateUp(p)
}

// updateUp updates a participant and those above it.
func (r *Round) updateUp(p *participant) {
	for ; p != nil; p = p.parent {
		p.update(r.t)
	}
}

// Done removes a role from the round.
func (r *Round) Done(role string) {
	p := r.leaves[role]
	if p == nil {
		return
	}
	delete(r.leaves, role)
	for p.parent != nil && len(p.heaps[byShare]) == 0 {
		up := p.parent
		up.removeChild(p)
		p = up
	}
	r.updateUp(p)
}

// update recomputes a participant from the tree and its children, and moves it within its parent.
func (p *participant) update(t *Tree) {
	if p.parent != nil {
		p.parent.removeChild(p)
	}
	n := t.nodes[p.role]
	var used, unfilled kernel.Resources
	if n != nil {
		used = n.used
		if unfilled = n.unused(); p.selfLeaf {
			unfilled = kernel.Resources{}
			for _, c := range n.children {
				used = used.Sub(c.used)
			}
		}
	}
	p.unscaled = t.fractions(used)
	p.vector = p.unscaled
	if children := p.heaps[byShare]; len(children) > 0 {
		p.vector.add(p.sumFull, -1)
		p.vector.add(p.perShare, children[0].share)
	}
	p.share = p.vector.largest() / p.weight
	p.belowGuarantee = false
	need, open := p.need.Parts(), unfilled.Parts()
	for c := range need {
		p.wants[c] = need[c] > 0 || p.wanting[c] > 0
		p.belowGuarantee = p.belowGuarantee || p.wants[c] && open[c] > 0
	}
	if p.parent != nil {
		p.parent.addChild(p)
	}
}

// addChild counts a child, removeChild undoes that.
func (p *participant) addChild(c *participant) {
	p.addToSums(c, 1)
	p.pushHeap(byShare, c)
	if c.belowGuarantee {
		p.pushHeap(guaranteedByShare, c)
	}
}

func (p *participant) removeChild(c *participant) {
	if c.heapIndex[byShare] < 0 {
		return
	}
	p.addToSums(c, -1)
	p.removeFromHeap(byShare, c)
	if c.heapIndex[guaranteedByShare] >= 0 {
		p.removeFromHeap(guaranteedByShare, c)
	}
}

func (p *participant) addToSums(c *participant, by float64) {
	p.sumFull.add(c.unscaled, by)
	if c.share > 0 {
		p.perShare.add(c.vector, by/c.share)
	}
	for k, wants := range c.wants {
		if wants {
			p.wanting[k] += int(by)
		}
	}
}

// less orders the heaps.
func less(a, b *participant) bool {
	return a.share < b.share || a.share == b.share && a.order < b.order
}

func (p *participant) pushHeap(rank int, c *participant) {
	c.heapIndex[rank] = len(p.heaps[rank])
	p.heaps[rank] = append(p.heaps[rank], c)
	p.siftUp(rank, c.heapIndex[rank])
}

func (p *participant) removeFromHeap(rank int, c *participant) {
	heap, at := p.heaps[rank], c.heapIndex[rank]
	last := len(heap) - 1
	p.swapInHeap(rank, at, last)
	heap[last] = nil
	p.heaps[rank] = heap[:last]
	c.heapIndex[rank] = -1
	if at < last {
		p.siftUp(rank, at)
		p.siftDown(rank, at)
	}
}

func (p *participant) swapInHeap(rank, i, j int) {
	heap := p.heaps[rank]
	heap[i], heap[j] = heap[j], heap[i]
	heap[i].heapIndex[rank], heap[j].heapIndex[rank] = i, j
}

func (p *participant) siftUp(rank, i int) {
	for heap := p.heaps[rank]; i > 0 && less(heap[i], heap[(i-1)/2]); i = (i - 1) / 2 {
		p.swapInHeap(rank, i, (i-1)/2)
	}
}

func (p *participant) siftDown(rank, i int) {
	heap := p.heaps[rank]
	for {
		c := 2*i + 1
		if c+1 < len(heap) && less(heap[c+1], heap[c]) {
			c++
		}
		if c >= len(heap) || !less(heap[c], heap[i]) {
			return
		}
		p.swapInHeap(rank, i, c)
		i = c
	}
}
