package allocator

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

func cpus(n int64) kernel.Resources { return kernel.Resources{MilliCPU: n * 1000} }

func quota(role string, guarantee, limit int64) kernel.Quota {
	q := kernel.Quota{Role: role, Guarantee: cpus(guarantee), Limit: kernel.NoLimit}
	if limit >= 0 {
		q.Limit.MilliCPU = limit * 1000
	}
	return q
}

func TestEveryLimitOnTheWayHolds(t *testing.T) {
	var tree Tree
	tree.Set(quota("/prod", 0, 10))
	tree.Set(quota("/prod/web", 0, 4))
	for _, c := range []struct {
		role     string
		n, want  int
		limiting string
	}{
		{"/prod/web", 8, 4, "/prod/web"}, {"/prod/web/api", 8, 4, "/prod/web"}, {"/prod/db", 12, 10, "/prod"},
		{"/dev", 100, 100, ""}, {"/", 3, 3, ""},
	} {
		if k, why, limiting := tree.Admit(c.role, cpus(1), c.n, false); k != c.want || limiting != c.limiting ||
			(why == "") != (k == c.n) {
			t.Errorf("admit %d of %s: got %d, %q, %q, want %d by %q", c.n, c.role, k, limiting, why, c.want, c.limiting)
		}
	}
	tree.Charge("/prod/db", cpus(8), false)
	k, why, _ := tree.Admit("/prod/web", cpus(1), 3, false)
	if want := "quota of /prod: cpus: limit 10, used 10, one more instance asks 1"; k != 2 || why != want {
		t.Errorf("beside a sibling's use: got %d, %q, want 2, %q", k, why, want)
	}
}

func TestAGuaranteeIsHeldForItsRole(t *testing.T) {
	var tree Tree
	tree.Machines(cpus(10), cpus(10))
	tree.Set(quota("/prod", 6, -1))
	for _, c := range []struct {
		role        string
		preemptible bool
		want        int
	}{{"/dev", false, 4}, {"/dev", true, 20}, {"/prod", false, 20}, {"/prod/web", false, 20}} {
		if k, why, _ := tree.Admit(c.role, cpus(1), 20, c.preemptible); k != c.want {
			t.Errorf("admit 20 of %s, preemptible %v: got %d, %s, want %d", c.role, c.preemptible, k, why, c.want)
		}
	}
	// Beyond its guarantee a role is as any other: what it asks for must be free beside what is held for others.
	tree.Set(quota("/dev", 3, -1))
	tree.Charge("/prod", cpus(6), false)
	tree.Machines(cpus(10), cpus(4))
	k, why, limiting := tree.Admit("/prod", cpus(1), 4, false)
	if want := "cpus: 3 free, held for the guarantees of others 3, one more instance asks 1"; k != 1 || why != want ||
		limiting != "" {
		t.Errorf("beyond a guarantee: got %d, %q, %q, want 1, %q", k, why, limiting, want)
	}
	// Preemptible use counts as free.
	tree.Charge("/prod", cpus(4), true)
	tree.Machines(cpus(10), cpus(0))
	if k, why, _ := tree.Admit("/dev", cpus(1), 3, false); k != 3 {
		t.Errorf("a guarantee that others borrow: got %d, %s, want 3", k, why)
	}
}

func TestAQuotaThatCannotBeIsRefused(t *testing.T) {
	var tree Tree
	tree.Machines(cpus(10), cpus(10))
	tree.Set(quota("/prod", 4, 8))
	tree.Set(quota("/prod/web", 3, -1))
	for _, c := range []struct {
		q     kernel.Quota
		force bool
		want  string // "" for none
	}{
		{quota("/prod/db", 5, -1), false, ""}, {quota("/prod/db", 6, -1), false,
			"guarantees in /prod would be 9 together, its limit is 8"},
		{quota("/prod", 4, 2), false, "its limit 2 is less than what is guaranteed to it and to roles below it, 4"},
		{quota("/prod", 0, 2), false, "its limit 2 is less than what is guaranteed to it and to roles below it, 3"},
		{quota("/prod/web", 4, -1), false, ""}, {quota("/dev", 6, -1), false, ""},
		{quota("/dev", 7, -1), false, "11 would be guaranteed of the 10"},
		{quota("/dev", 7, -1), true, ""}, {quota("dev", 1, -1), false, "a role is a path"},
		{quota("/dev", -1, -1), false, "a guarantee is zero or more"},
		{kernel.Quota{Role: "/dev", Limit: kernel.Resources{Mem: -2}}, false, "a limit is zero or more"},
		{kernel.Quota{Role: "/dev", Limit: kernel.NoLimit, Weight: 1001}, false, "a weight is from"},
	} {
		err := tree.Check(c.q, c.force)
		if (err == nil) != (c.want == "") || err != nil &&
			(!strings.Contains(err.Error(), c.want) || !errdefs.IsInvalidArgument(err)) {
			t.Errorf("check %+v: got %v, want %q", c.q, err, c.want)
		}
	}
}

// Whatever is set, launched and ended: no limit is exceeded by what the tree admitted, unused entitlements are free
// or used by preemptible work, every role can fill its guarantee, and an emptied tree has no nodes.
func TestTheTreeKeepsItsPromises(t *testing.T) {
	roles := []string{"/", "/a", "/a/x", "/a/x/y", "/a/z", "/b", "/b/x"}
	rapid.Check(t, func(t *rapid.T) {
		var tree Tree
		total := kernel.Resources{MilliCPU: 40, Mem: 40}
		used, firm := kernel.Resources{}, kernel.Resources{}
		type launched struct {
			role        string
			need        kernel.Resources
			preemptible bool
		}
		var all []launched
		updateMachines := func() { tree.Machines(total, total.Sub(used)) }
		amount := func(name string) int64 { return rapid.Int64Range(0, 12).Draw(t, name) }
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if n := tree.nodes["/"]; n != nil {
					if held := n.unused(); tree.guarantees > 0 && !held.Fits(total.Sub(firm)) {
						t.Fatalf("%v is held and not used, %v is free or preemptible", held, total.Sub(firm))
					}
				}
			},
			"set": func(t *rapid.T) {
				q := kernel.Quota{Role: rapid.SampledFrom(roles).Draw(t, "role"), Limit: kernel.NoLimit}
				if rapid.Bool().Draw(t, "guarantee") {
					q.Guarantee = kernel.Resources{MilliCPU: amount("cpus"), Mem: amount("mem")}
				} else {
					q.Limit.MilliCPU = amount("limit") * 2
				}
				updateMachines()
				if tree.Check(q, false) != nil {
					return
				}
				old, had := tree.Quota(q.Role)
				tree.Set(q)
				if !tree.nodes["/"].unused().Fits(total.Sub(firm)) { // so much is taken already: it will be held as it becomes free
					tree.Remove(q.Role)
					if had {
						tree.Set(old)
					}
				}
			},
			"launch": func(t *rapid.T) {
				l := launched{rapid.SampledFrom(roles).Draw(t, "role"),
					kernel.Resources{MilliCPU: amount("cpus"), Mem: amount("mem")}, rapid.Bool().Draw(t, "preemptible")}
				updateMachines()
				k, why, _ := tree.Admit(l.role, l.need, 1, l.preemptible)
				if n := tree.nodes[l.role]; k == 0 && n != nil && !l.preemptible && strings.Contains(why, "held for") {
					if l.need.Fits(n.quota.Guarantee.Sub(n.firm.Add(n.entitledBelow))) {
						t.Fatalf("%s may not fill its guarantee: %s", l.role, why)
					}
				}
				if k == 0 || !l.need.Fits(total.Sub(used)) {
					return
				}
				all, used = append(all, l), used.Add(l.need)
				if !l.preemptible {
					firm = firm.Add(l.need)
				}
				tree.Charge(l.role, l.need, l.preemptible)
				for role := l.role; role != ""; role = kernel.ParentRole(role) {
					if n := tree.nodes[role]; overBy(n, l.need) {
						t.Fatalf("%s uses %v of %v after a launch of %v", role, n.used, n.quota.Limit, l.need)
					}
				}
			},
			"end": func(t *rapid.T) {
				if len(all) == 0 {
					return
				}
				k := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				l := all[k]
				all, used = append(all[:k:k], all[k+1:]...), used.Sub(l.need)
				if !l.preemptible {
					firm = firm.Sub(l.need)
				}
				tree.Credit(l.role, l.need, l.preemptible)
			},
		})
		for _, l := range all {
			tree.Credit(l.role, l.need, l.preemptible)
		}
		for _, r := range roles {
			tree.Remove(r)
		}
		if len(tree.nodes) > 0 || tree.guarantees != 0 {
			t.Fatalf("an emptied tree has %d roles and counts %d guarantees", len(tree.nodes), tree.guarantees)
		}
	})
}

// overBy reports whether a node is over its limit in something that the launch asked for.
func overBy(n *node, need kernel.Resources) bool {
	asked, used, limit := need.Parts(), n.used.Parts(), n.quota.Limit.Parts()
	for c := range asked {
		if asked[c] > 0 && limit[c] != kernel.Unlimited && used[c] > limit[c] {
			return true
		}
	}
	return false
}
