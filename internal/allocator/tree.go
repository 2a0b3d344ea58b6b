package allocator

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// MaxRoleBytes is the longest path of a role.
const MaxRoleBytes = 1024

// Tree is the quotas of a datacenter and what counts against them. The zero value is empty and ready.
type Tree struct {
	limits map[string]kernel.Resources
	used   map[string]kernel.Resources // of every role with use, its ancestors included
}

// ValidateRole returns an errdefs.ErrInvalidArgument unless role is a path: "/", "/prod", "/prod/web".
func ValidateRole(role string) error {
	if role == "/" {
		return nil
	}
	if len(role) > MaxRoleBytes || !strings.HasPrefix(role, "/") || strings.HasSuffix(role, "/") || strings.Contains(role, "//") {
		return fmt.Errorf("role %.64q: a role is a path like /prod/web of at most %d bytes: %w", role, MaxRoleBytes, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Validate returns an errdefs.ErrInvalidArgument unless every component of the quota is zero or more, or Unlimited.
func Validate(q kernel.Quota) error {
	l := q.Limit
	if min(l.MilliCPU, l.Mem, l.Disk, l.GPUs) < kernel.Unlimited {
		return fmt.Errorf("quota of %s: a limit is zero or more, or %d for none: %w", q.Role, kernel.Unlimited, errdefs.ErrInvalidArgument)
	}
	return ValidateRole(q.Role)
}

// Set gives a role a limit in place of the one it had.
func (t *Tree) Set(q kernel.Quota) {
	if t.limits == nil {
		t.limits = map[string]kernel.Resources{}
	}
	t.limits[q.Role] = q.Limit
}

// Remove takes a role's limit away. What it uses still counts against its ancestors.
func (t *Tree) Remove(role string) { delete(t.limits, role) }

// Limit is a role's own limit, if it has one.
func (t *Tree) Limit(role string) (kernel.Resources, bool) {
	l, ok := t.limits[role]
	return l, ok
}

// Charge counts r against role and its ancestors, whether it fits or not.
func (t *Tree) Charge(role string, r kernel.Resources) {
	if t.used == nil {
		t.used = map[string]kernel.Resources{}
	}
	for a := role; a != ""; a = parent(a) {
		t.used[a] = t.used[a].Add(r)
	}
}

// Credit undoes a Charge.
func (t *Tree) Credit(role string, r kernel.Resources) {
	for a := role; a != ""; a = parent(a) {
		if left := t.used[a].Sub(r); left.IsZero() {
			delete(t.used, a)
		} else {
			t.used[a] = left
		}
	}
}

// Room is how many of n times each fit under every limit that binds role. When it is less than n, why says which limit
// refused, with its numbers.
func (t *Tree) Room(role string, each kernel.Resources, n int) (k int, why string) {
	k = n
	if len(t.limits) == 0 {
		return k, ""
	}
	for a := role; a != ""; a = parent(a) {
		limit, ok := t.limits[a]
		if !ok {
			continue
		}
		if c, reason := within(kernel.Quota{Role: a, Limit: limit}, t.used[a], each, k); c < k {
			k, why = c, reason
		}
	}
	return k, why
}

// within is Room for one limit.
func within(q kernel.Quota, used, each kernel.Resources, n int) (int, string) {
	lo, hi := 0, n // lo fits, hi+1 is not asked
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if len(q.Within(used, each.Times(int64(mid)))) == 0 {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	if lo == n {
		return n, ""
	}
	name := q.Within(used, each.Times(int64(lo+1)))[0]
	used = used.Add(each.Times(int64(lo)))
	return lo, fmt.Sprintf("quota of %s: %s: limit %s, used %s, one more instance asks %s",
		q.Role, name, amount(q.Limit, name), amount(used, name), amount(each, name))
}

func amount(r kernel.Resources, name string) string {
	switch name {
	case "cpus":
		return fmt.Sprintf("%g", float64(r.MilliCPU)/1000)
	case "mem":
		return kernel.FormatBytes(r.Mem)
	case "disk":
		return kernel.FormatBytes(r.Disk)
	default:
		return fmt.Sprint(r.GPUs)
	}
}

// View is one role: its limit and what counts against it.
func (t *Tree) View(role string) kernel.QuotaView {
	v := kernel.QuotaView{Role: role, Used: t.used[role]}
	if l, ok := t.limits[role]; ok {
		v.Limit = &l
	}
	return v
}

// Views lists every role that has a limit or use, by path.
func (t *Tree) Views() []kernel.QuotaView {
	roles := map[string]bool{}
	for r := range t.limits {
		roles[r] = true
	}
	for r := range t.used {
		roles[r] = true
	}
	out := make([]kernel.QuotaView, 0, len(roles))
	for _, r := range slices.Sorted(maps.Keys(roles)) {
		out = append(out, t.View(r))
	}
	return out
}

// parent is the next role on the way to the root, empty after it.
func parent(role string) string {
	if role == "/" || role == "" {
		return ""
	}
	if i := strings.LastIndexByte(role, '/'); i > 0 {
		return role[:i]
	}
	return "/"
}
