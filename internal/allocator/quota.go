package allocator

import (
	"fmt"
	"math"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// Limits on quotas.
const (
	MaxRoleBytes = 1024 // of a role's path
	MaxWeight    = 1000
	MinWeight    = 0.001
)

// ValidateRole returns an errdefs.ErrInvalidArgument unless role is a path: "/", "/prod", "/prod/web".
func ValidateRole(role string) error {
	if role == "/" {
		return nil
	}
	if len(role) > MaxRoleBytes || !strings.HasPrefix(role, "/") || strings.HasSuffix(role, "/") ||
		strings.Contains(role, "//") {
		return fmt.Errorf("role %.64q: a role is a path like /prod/web of at most %d bytes: %w",
			role, MaxRoleBytes, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Check returns an errdefs.ErrInvalidArgument unless the quota is valid and fits into the tree: its guarantee is
// within its limit, and the guarantees of siblings together are within the limit of every role above. With force,
// guarantees may be more than all machines have.
func (t *Tree) Check(q kernel.Quota, force bool) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("quota of %.64s: "+format+": %w",
			append(append([]any{q.Role}, args...), errdefs.ErrInvalidArgument)...)
	}
	if err := ValidateRole(q.Role); err != nil {
		return err
	}
	l := q.Limit
	switch {
	case min(l.MilliCPU, l.Mem, l.Disk, l.GPUs) < kernel.Unlimited:
		return bad("a limit is zero or more, or %d for none", kernel.Unlimited)
	case !q.Guarantee.Valid():
		return bad("a guarantee is zero or more")
	case q.Weight != 0 && (math.IsNaN(q.Weight) || q.Weight < MinWeight || q.Weight > MaxWeight):
		return bad("a weight is from %g to %d", MinWeight, MaxWeight)
	}
	promised := t.guaranteeWith(q.Role, q.Guarantee)
	if over := q.Over(promised); len(over) > 0 {
		return bad("%s: its limit %s is less than what is guaranteed to it and to roles below it, %s",
			over[0], q.Limit.Amount(over[0]), promised.Amount(over[0]))
	}
	for a := q.Role; a != "/"; {
		was := t.currentGuarantee(a)
		a = kernel.ParentRole(a)
		sum := t.childGuarantees(a).Sub(was).Add(promised)
		promised = t.ownGuarantee(a).Most(sum)
		if n := t.nodes[a]; n != nil && n.hasQuota {
			if over := n.quota.Over(promised); len(over) > 0 {
				return bad("%s: guarantees in %s would be %s together, its limit is %s",
					over[0], a, promised.Amount(over[0]), n.quota.Limit.Amount(over[0]))
			}
		}
	}
	if was := t.currentGuarantee("/"); !force && promised != was && !t.total.IsZero() {
		all, had := t.total.Parts(), was.Parts()
		for c, n := range promised.Parts() {
			if name := kernel.Components[c]; n > all[c] && n > had[c] {
				return bad("%s: %s would be guaranteed of the %s that all machines have; force has it all the same",
					name, promised.Amount(name), t.total.Amount(name))
			}
		}
	}
	return nil
}

// ownGuarantee returns the guarantee of a role's quota.
func (t *Tree) ownGuarantee(role string) kernel.Resources {
	if n := t.nodes[role]; n != nil {
		return n.quota.Guarantee
	}
	return kernel.Resources{}
}

// guaranteeWith returns what a role and those below it would be guaranteed together if its own guarantee were g.
func (t *Tree) guaranteeWith(role string, g kernel.Resources) kernel.Resources {
	return g.Most(t.childGuarantees(role))
}

func (t *Tree) currentGuarantee(role string) kernel.Resources {
	return t.guaranteeWith(role, t.ownGuarantee(role))
}

// childGuarantees sums up the guarantees of a role's children.
func (t *Tree) childGuarantees(role string) (sum kernel.Resources) {
	if n := t.nodes[role]; n != nil {
		for _, c := range n.children {
			sum = sum.Add(t.currentGuarantee(c.role))
		}
	}
	return sum
}
