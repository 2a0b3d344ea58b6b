package allocator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// Tree has the quotas of a datacenter and the use that counts against them. The zero value is empty and ready.
type Tree struct {
	nodes      map[string]*node
	guarantees int              // roles with one
	total      kernel.Resources // of open machines
	free       kernel.Resources // of it, not taken
}

// node is a role with a quota, with use, or with such a role below it.
type node struct {
	role          string
	parent        *node
	children      []*node // by role
	quota         kernel.Quota
	hasQuota      bool             // it has a quota
	used          kernel.Resources // by the role and those below
	preemptible   kernel.Resources // of used, with a priority below zero
	firm          kernel.Resources // used by the role itself, not preemptible
	entitledBelow kernel.Resources // sum of entitled of its children
	entitled      kernel.Resources // its guarantee, or firm and entitledBelow if that is more
	setAside      kernel.Resources // of its limit, for instances that wait
}

// node returns the node of a role, created if need be.
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
		at, _ := slices.BinarySearchFunc(n.parent.children, role,
			func(c *node, role string) int { return cmp.Compare(c.role, role) })
		n.parent.children = slices.Insert(n.parent.children, at, n)
	}
	return n
}

// prune removes a node that is empty, and those above it.
func (t *Tree) prune(n *node) {
	for n != nil && !n.hasQuota && n.used.IsZero() && n.firm.IsZero() && n.setAside.IsZero() && len(n.children) == 0 {
		delete(t.nodes, n.role)
		if n.parent != nil {
			n.parent.children = slices.DeleteFunc(n.parent.children, func(c *node) bool { return c == n })
		}
		n = n.parent
	}
}

// nearestNode returns the node of a role, or of the next one above it that has one; nil if none has.
func (t *Tree) nearestNode(role string) *node {
	for ; role != ""; role = kernel.ParentRole(role) {
		if n := t.nodes[role]; n != nil {
			return n
		}
	}
	return nil
}

// Machines sets the resources of all open machines together, and what of them is free.
func (t *Tree) Machines(total, free kernel.Resources) { t.total, t.free = total, free }

// Set replaces the quota of a role.
func (t *Tree) Set(q kernel.Quota) {
	n := t.node(q.Role)
	t.countGuarantee(n, q.Guarantee)
	n.quota, n.hasQuota = q, true
	n.updateEntitled()
}

// Remove deletes the quota of a role. Its use still counts against its ancestors.
func (t *Tree) Remove(role string) {
	n := t.nodes[role]
	if n == nil {
		return
	}
	t.countGuarantee(n, kernel.Resources{})
	n.quota, n.hasQuota = kernel.Quota{Role: role, Limit: kernel.NoLimit}, false
	n.updateEntitled()
	t.prune(n)
}

// countGuarantee updates the number of roles with a guarantee, before n's changes to now.
func (t *Tree) countGuarantee(n *node, now kernel.Resources) {
	if !n.quota.Guarantee.IsZero() {
		t.guarantees--
	}
	if !now.IsZero() {
		t.guarantees++
	}
}

// Quota returns a role's own quota, if it has one.
func (t *Tree) Quota(role string) (kernel.Quota, bool) {
	if n := t.nodes[role]; n != nil && n.hasQuota {
		return n.quota, true
	}
	return kernel.Quota{}, false
}

// Charge counts r against role and its ancestors, whether it fits or not. Work with a priority below zero is
// preemptible.
func (t *Tree) Charge(role string, r kernel.Resources, preemptible bool) {
	n := t.node(role)
	for a := n; a != nil; a = a.parent {
		a.used = a.used.Add(r)
		if preemptible {
			a.preemptible = a.preemptible.Add(r)
		}
	}
	if !preemptible {
		n.firm = n.firm.Add(r)
		n.updateEntitled()
	}
}

// Credit undoes a Charge.
func (t *Tree) Credit(role string, r kernel.Resources, preemptible bool) {
	t.Charge(role, r.Neg(), preemptible)
	t.prune(t.nodes[role])
}

// SetAside reserves r within the limits of role and its ancestors for a waiting instance; a negative r returns it. It
// counts neither as use nor toward a guarantee.
func (t *Tree) SetAside(role string, r kernel.Resources) {
	n := t.node(role)
	for a := n; a != nil; a = a.parent {
		a.setAside = a.setAside.Add(r)
	}
	t.prune(n)
}

// updateEntitled recomputes the entitlements of a node and those above it.
func (n *node) updateEntitled() {
	for n != nil {
		now := n.quota.Guarantee.Most(n.firm.Add(n.entitledBelow))
		if now == n.entitled {
			return
		}
		if n.parent != nil {
			n.parent.entitledBelow = n.parent.entitledBelow.Add(now.Sub(n.entitled))
		}
		n.entitled = now
		n = n.parent
	}
}

// unused returns the entitlement of a node that neither it nor those below it use; preemptible use does not count.
func (n *node) unused() kernel.Resources { return n.entitled.Sub(n.used.Sub(n.preemptible)) }

// Admit returns how many of n times each the role may use now, under every limit on its path and, unless preemptible,
// beside the unused entitlements of others. If k is less than n, why is a sentence with the numbers, and limiting the
// role whose limit it was; empty if it was none.
func (t *Tree) Admit(role string, each kernel.Resources, n int, preemptible bool) (k int, why, limiting string) {
	k = n
	start := t.nearestNode(role)
	for a := start; a != nil; a = a.parent {
		if !a.hasQuota {
			continue
		}
		if c, reason := admitUnderLimit(a, each, k); c < k {
			k, why, limiting = c, reason, a.role
		}
	}
	if preemptible || t.guarantees == 0 {
		return k, why, limiting
	}
	if c := largest(k, func(c int) bool { return t.exceededComponent(start, each, c) == "" }); c < k {
		name := t.exceededComponent(start, each, c+1)
		k, limiting = c, ""
		free := t.free.Add(t.nodes["/"].preemptible).Sub(each.Times(int64(c)))
		why = fmt.Sprintf("%s: %s free, held for the guarantees of others %s, one more instance asks %s",
			name, free.Amount(name),
			t.nodes["/"].unused().Amount(name), each.Amount(name))
	}
	return k, why, limiting
}

// exceededComponent names a component in which k times each, used by a role at or below start, would use up
// entitlements of others; "" if none.
func (t *Tree) exceededComponent(start *node, each kernel.Resources, k int) string {
	need := each.Times(int64(k))
	more, root := need, t.nodes["/"]
	for a := start; a != nil; a = a.parent {
		more = a.quota.Guarantee.Most(a.firm.Add(a.entitledBelow).Add(more)).Sub(a.entitled)
	}
	held := root.unused().Add(more).Sub(need) // unused entitlements, afterwards
	free := t.free.Add(root.preemptible)
	grows, rest, have := more.Parts(), held.Parts(), free.Parts()
	for c, n := range need.Parts() {
		if n > 0 && grows[c] > 0 && rest[c] > 0 && n+rest[c] > have[c] {
			return kernel.Components[c]
		}
	}
	return ""
}

// largest returns the largest k up to n for which ok is true; ok is true up to some k and false above it.
func largest(n int, ok func(int) bool) int {
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

// admitUnderLimit is Admit for the limit of one node.
func admitUnderLimit(a *node, each kernel.Resources, n int) (int, string) {
	used := a.used.Add(a.setAside)
	k := largest(n, func(k int) bool { return len(a.quota.Within(used, each.Times(int64(k)))) == 0 })
	if k == n {
		return n, ""
	}
	name := a.quota.Within(used, each.Times(int64(k+1)))[0]
	used = used.Add(each.Times(int64(k)))
	return k, fmt.Sprintf("quota of %s: %s: limit %s, used %s, one more instance asks %s",
		a.role, name, a.quota.Limit.Amount(name), used.Amount(name), each.Amount(name))
}

// View returns one role's quota and the use that counts against it.
func (t *Tree) View(role string) kernel.QuotaView {
	v := kernel.QuotaView{Role: role, Weight: 1}
	n := t.nodes[role]
	if n == nil {
		return v
	}
	v.Used, v.Preemptible, v.Weight = n.used, n.preemptible, n.weight()
	if n.hasQuota {
		v.Limit = new(n.quota.Limit)
	}
	if !n.quota.Guarantee.IsZero() {
		v.Guarantee = new(n.quota.Guarantee)
	}
	if t.guarantees > 0 {
		v.Held = n.unused().Most(kernel.Resources{})
	}
	v.Share, v.Dominant = t.dominantShare(n.used)
	return v
}

// Views lists every role that has a quota or use, by path.
func (t *Tree) Views() []kernel.QuotaView {
	out := make([]kernel.QuotaView, 0, len(t.nodes))
	for _, r := range slices.Sorted(maps.Keys(t.nodes)) {
		if n := t.nodes[r]; n.hasQuota || !n.used.IsZero() {
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

// dominantShare returns the largest fraction that r is of the open machines' resources, and the component.
func (t *Tree) dominantShare(r kernel.Resources) (most float64, of string) {
	for c, f := range t.fractions(r) {
		if f > most {
			most, of = f, kernel.Components[c]
		}
	}
	return most, of
}
