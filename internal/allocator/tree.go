package allocator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// Tree is the quotas of a datacenter and what counts against them. The zero value is empty and ready.
type Tree struct {
	nodes      map[string]*node
	guarantees int              // roles with one
	total      kernel.Resources // what open machines have
	free       kernel.Resources // what of it is not taken
}

// node is a role with a quota, with use, or with such a role below it.
type node struct {
	role     string
	parent   *node
	children []*node // by role
	quota    kernel.Quota
	set      bool             // it has a quota
	used     kernel.Resources // with roles below
	lent     kernel.Resources // of it, to work with a priority below zero
	firm     kernel.Resources // used by the role itself, but for what is lent
	below    kernel.Resources // what its children hold
	held     kernel.Resources // what it holds: its guarantee, or firm and below if that is more
	kept     kernel.Resources // of the limits of it and of those above, for what waits
}

// node returns the node of a role, made if need be.
func (t *Tree) node(role string) *node {
	if n := t.nodes[role]; n != nil {
		return n
	}
	if t.nodes == nil {
		t.nodes = map[string]*node{}
	}
	n := &node{role: role, quota: kernel.Quota{Role: role, Limit: kernel.NoLimit}}
	t.nodes[role] = n
	if up := kernel.ParentRole(role); up != "" {
		n.parent = t.node(up)
		at, _ := slices.BinarySearchFunc(n.parent.children, role, func(c *node, role string) int { return cmp.Compare(c.role, role) })
		n.parent.children = slices.Insert(n.parent.children, at, n)
	}
	return n
}

// prune forgets a node that says nothing any more, and those above it.
func (t *Tree) prune(n *node) {
	for n != nil && !n.set && n.used.IsZero() && n.firm.IsZero() && n.kept.IsZero() && len(n.children) == 0 {
		delete(t.nodes, n.role)
		if n.parent != nil {
			n.parent.children = slices.DeleteFunc(n.parent.children, func(c *node) bool { return c == n })
		}
		n = n.parent
	}
}

// nearest is the node of a role, or of the next one above it that has one; nil if none has.
func (t *Tree) nearest(role string) *node {
	for ; role != ""; role = kernel.ParentRole(role) {
		if n := t.nodes[role]; n != nil {
			return n
		}
	}
	return nil
}

// Machines tells what open machines have together, and what of it is free.
func (t *Tree) Machines(total, free kernel.Resources) { t.total, t.free = total, free }

// Set gives a role a quota in place of the one it had.
func (t *Tree) Set(q kernel.Quota) {
	n := t.node(q.Role)
	t.guaranteed(n, q.Guarantee)
	n.quota, n.set = q, true
	n.hold()
}

// Remove takes a role's quota away. What it uses still counts against its ancestors.
func (t *Tree) Remove(role string) {
	n := t.nodes[role]
	if n == nil {
		return
	}
	t.guaranteed(n, kernel.Resources{})
	n.quota, n.set = kernel.Quota{Role: role, Limit: kernel.NoLimit}, false
	n.hold()
	t.prune(n)
}

// guaranteed counts the roles with a guarantee.
func (t *Tree) guaranteed(n *node, now kernel.Resources) {
	if !n.quota.Guarantee.IsZero() {
		t.guarantees--
	}
	if !now.IsZero() {
		t.guarantees++
	}
}

// Quota is a role's own quota, if it has one.
func (t *Tree) Quota(role string) (kernel.Quota, bool) {
	if n := t.nodes[role]; n != nil && n.set {
		return n.quota, true
	}
	return kernel.Quota{}, false
}

// Charge counts r against role and its ancestors, whether it fits or not; lent says that it has a priority below zero.
func (t *Tree) Charge(role string, r kernel.Resources, lent bool) {
	n := t.node(role)
	for a := n; a != nil; a = a.parent {
		a.used = a.used.Add(r)
		if lent {
			a.lent = a.lent.Add(r)
		}
	}
	if !lent {
		n.firm = n.firm.Add(r)
		n.hold()
	}
}

// Credit undoes a Charge.
func (t *Tree) Credit(role string, r kernel.Resources, lent bool) {
	t.Charge(role, kernel.Resources{}.Sub(r), lent)
	t.prune(t.nodes[role])
}

// Keep has a part of the limits of a role and its ancestors be used by nobody else; a negative one ends that. It is no use, and fills no guarantee.
func (t *Tree) Keep(role string, r kernel.Resources) {
	n := t.node(role)
	for a := n; a != nil; a = a.parent {
		a.kept = a.kept.Add(r)
	}
	t.prune(n)
}

// hold brings what a node and those above it hold up to date.
func (n *node) hold() {
	for n != nil {
		now := n.quota.Guarantee.Most(n.firm.Add(n.below))
		if now == n.held {
			return
		}
		if n.parent != nil {
			n.parent.below = n.parent.below.Add(now.Sub(n.held))
		}
		n.held = now
		n = n.parent
	}
}

// unfilled is what a node holds and neither it nor those below it use.
func (n *node) unfilled() kernel.Resources { return n.held.Sub(n.used.Sub(n.lent)) }

// Room is how many of n times each role may use now: under every limit that binds it and, unless it is lent, without what is
// held for others. When it is less than n, why says what refused, with its numbers, and limiting is the role whose limit it was, if one was.
func (t *Tree) Room(role string, each kernel.Resources, n int, lent bool) (k int, why, limiting string) {
	k = n
	start := t.nearest(role)
	for a := start; a != nil; a = a.parent {
		if !a.set {
			continue
		}
		if c, reason := within(a, each, k); c < k {
			k, why, limiting = c, reason, a.role
		}
	}
	if lent || t.guarantees == 0 {
		return k, why, limiting
	}
	if c := atMost(k, func(c int) bool { return t.unheld(start, each, c) == "" }); c < k {
		name := t.unheld(start, each, c+1)
		k, limiting = c, ""
		free := t.free.Add(t.nodes["/"].lent).Sub(each.Times(int64(c)))
		why = fmt.Sprintf("%s: %s free, held for the guarantees of others %s, one more instance asks %s", name, free.Amount(name),
			t.nodes["/"].unfilled().Amount(name), each.Amount(name))
	}
	return k, why, limiting
}

// unheld names a component in which k times each, used by a role below start, would take what is held for others; "" if none.
func (t *Tree) unheld(start *node, each kernel.Resources, k int) string {
	need := each.Times(int64(k))
	more, root := need, t.nodes["/"]
	for a := start; a != nil; a = a.parent {
		more = a.quota.Guarantee.Most(a.firm.Add(a.below).Add(more)).Sub(a.held)
	}
	held := root.unfilled().Add(more).Sub(need) // and not used, afterwards
	free := t.free.Add(root.lent)
	grows, rest, have := more.Parts(), held.Parts(), free.Parts()
	for c, n := range need.Parts() {
		if n > 0 && grows[c] > 0 && rest[c] > 0 && n+rest[c] > have[c] {
			return kernel.Components[c]
		}
	}
	return ""
}

// atMost is the largest k up to n for which ok holds, when it holds up to some k and then no more.
func atMost(n int, ok func(int) bool) int {
	lo, hi := 0, n
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if ok(mid) {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo
}

// within is Room for one limit.
func within(a *node, each kernel.Resources, n int) (int, string) {
	used := a.used.Add(a.kept)
	k := atMost(n, func(k int) bool { return len(a.quota.Within(used, each.Times(int64(k)))) == 0 })
	if k == n {
		return n, ""
	}
	name := a.quota.Within(used, each.Times(int64(k+1)))[0]
	used = used.Add(each.Times(int64(k)))
	return k, fmt.Sprintf("quota of %s: %s: limit %s, used %s, one more instance asks %s",
		a.role, name, a.quota.Limit.Amount(name), used.Amount(name), each.Amount(name))
}

// View is one role: its quota and what counts against it.
func (t *Tree) View(role string) kernel.QuotaView {
	v := kernel.QuotaView{Role: role, Weight: 1}
	n := t.nodes[role]
	if n == nil {
		return v
	}
	v.Used, v.Lent, v.Weight = n.used, n.lent, n.weight()
	if n.set {
		v.Limit = new(n.quota.Limit)
	}
	if !n.quota.Guarantee.IsZero() {
		v.Guarantee = new(n.quota.Guarantee)
	}
	if t.guarantees > 0 {
		v.Held = n.unfilled().Most(kernel.Resources{})
	}
	v.Share, v.Dominant = t.share(n.used)
	return v
}

// Views lists every role that has a quota or use, by path.
func (t *Tree) Views() []kernel.QuotaView {
	out := make([]kernel.QuotaView, 0, len(t.nodes))
	for _, r := range slices.Sorted(maps.Keys(t.nodes)) {
		if n := t.nodes[r]; n.set || !n.used.IsZero() {
			out = append(out, t.View(r))
		}
	}
	return out
}

func (n *node) weight() float64 {
	if n == nil || n.quota.Weight == 0 {
		return 1
	}
	return n.quota.Weight
}

// share is the largest fraction that r is of what open machines have, and of which resource.
func (t *Tree) share(r kernel.Resources) (most float64, of string) {
	for c, f := range t.vector(r) {
		if f > most {
			most, of = f, kernel.Components[c]
		}
	}
	return most, of
}
