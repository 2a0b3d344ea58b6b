package allocator

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

// demand is a number of instances that a role wants; zero for as many as fit.
type demand struct {
	role string
	need kernel.Resources
	want int
}

// fill serves demands by rounds until nothing more fits, and returns how many instances of each role there are then.
func fill(tree *Tree, total kernel.Resources, demands []demand) map[string]int {
	free := total
	tree.Machines(total, free)
	waiting, need, left := map[string]kernel.Resources{}, map[string]kernel.Resources{}, map[string]int{}
	for _, d := range demands {
		waiting[d.role], need[d.role], left[d.role] = d.need, d.need, d.want
		if d.want == 0 {
			left[d.role] = math.MaxInt
		}
	}
	got := map[string]int{}
	round := tree.Round(waiting)
	for role, ok := round.Next(); ok; role, ok = round.Next() {
		if k, _, _ := tree.Admit(role, need[role], 1, false); k == 0 || !need[role].Fits(free) || left[role] == 0 {
			round.Done(role)
			continue
		}
		tree.Charge(role, need[role], false)
		free = free.Sub(need[role])
		tree.Machines(total, free)
		got[role]++
		left[role]--
		round.Served(role, need[role])
	}
	return got
}

func TestRolesShareByTheirDominantResource(t *testing.T) {
	gib := kernel.GiB
	both := kernel.Resources{MilliCPU: 9000, Mem: 18 * gib}
	a, b := kernel.Resources{MilliCPU: 1000, Mem: 4 * gib}, kernel.Resources{MilliCPU: 3000, Mem: 1 * gib}
	hundred := kernel.Resources{MilliCPU: 100_000, GPUs: 100}
	cpu, gpu := kernel.Resources{MilliCPU: 1000}, kernel.Resources{GPUs: 1}
	for _, c := range []struct {
		name    string
		quotas  []kernel.Quota
		total   kernel.Resources
		demands []demand
		want    map[string]int
	}{
		// The example of the paper (Ghodsi et al., NSDI 2011, section 4.1): equal dominant shares of 2/3.
		{"two users", nil, both, []demand{{"/a", a, 0}, {"/b", b, 0}}, map[string]int{"/a": 3, "/b": 2}},
		{"weights", []kernel.Quota{{Role: "/a", Limit: kernel.NoLimit, Weight: 3}}, hundred,
			[]demand{{"/a", cpu, 0}, {"/b", cpu, 0}}, map[string]int{"/a": 75, "/b": 25}},
		{"what one leaves goes to the others", nil, hundred, []demand{{"/a", cpu, 10}, {"/b", cpu, 0}, {"/c", cpu, 0}},
			map[string]int{"/a": 10, "/b": 45, "/c": 45}},
		{"groups share, not their parts", nil, hundred,
			[]demand{{"/a/x", cpu, 0}, {"/a/y", cpu, 0}, {"/a/z", cpu, 0}, {"/b", cpu, 0}},
			map[string]int{"/a/x": 17, "/a/y": 17, "/a/z": 16, "/b": 50}},
		{"a group beside its own parts", nil, hundred, []demand{{"/a", cpu, 0}, {"/a/x", cpu, 0}, {"/b", cpu, 0}},
			map[string]int{"/a": 25, "/a/x": 25, "/b": 50}},
		// The example of the paper on hierarchies (Bhattacharya et al., SoCC 2013, section 4): parts that want different
		// things do not starve each other.
		{"complementary parts", nil, hundred, []demand{{"/a", gpu, 0}, {"/b/cpu", cpu, 0}, {"/b/gpu", gpu, 0}},
			map[string]int{"/a": 50, "/b/cpu": 100, "/b/gpu": 50}},
		{"guarantees first", []kernel.Quota{quota("/b", 30, -1)}, cpus(40), []demand{{"/a", cpu, 0}, {"/b", cpu, 0}},
			map[string]int{"/a": 10, "/b": 30}},
		{"a limit", []kernel.Quota{quota("/a", 0, 10)}, cpus(40), []demand{{"/a", cpu, 0}, {"/b", cpu, 0}},
			map[string]int{"/a": 10, "/b": 30}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tree Tree
			for _, q := range c.quotas {
				tree.Set(q)
			}
			got := fill(&tree, c.total, c.demands)
			for role, want := range c.want {
				if d := got[role] - want; d < -1 || d > 1 { // ties go to the first
					t.Errorf("got %v, want %v", got, c.want)
				}
			}
		})
	}
}

// The role with the smaller share is next, however much of the other waits.
func TestWhoHasLessIsNext(t *testing.T) {
	var tree Tree
	tree.Machines(cpus(100), cpus(40))
	tree.Charge("/a", cpus(40), false)
	tree.Charge("/b", cpus(20), false)
	round := tree.Round(map[string]kernel.Resources{"/a": cpus(1), "/b": cpus(1)})
	var order []string
	for range 30 {
		role, _ := round.Next()
		tree.Charge(role, cpus(1), false)
		round.Served(role, cpus(1))
		order = append(order, role)
	}
	if first := strings.Join(order[:20], ""); first != strings.Repeat("/b", 20) {
		t.Errorf("the first twenty turns are %s, want all /b", first)
	}
	if a := len(slices.DeleteFunc(order[20:], func(r string) bool { return r != "/a" })); a != 5 {
		t.Errorf("of ten turns after that %d are /a, want 5", a)
	}
}

// Of siblings, none that still wants more ends with less than another by more than one instance.
func TestSharesAreMaxMinFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := kernel.Resources{MilliCPU: 100_000, Mem: 1000, GPUs: 200}
		var tree Tree
		var demands []demand
		weights := map[string]float64{}
		for k := range rapid.IntRange(2, 8).Draw(t, "roles") {
			d := demand{role: fmt.Sprint("/r", k), want: rapid.IntRange(1, 400).Draw(t, "want"), need: kernel.Resources{
				MilliCPU: rapid.Int64Range(1, 3000).Draw(t, "cpus"), Mem: rapid.Int64Range(0, 30).Draw(t, "mem"),
				GPUs: rapid.Int64Range(0, 3).Draw(t, "gpus")}}
			weights[d.role] = float64(rapid.IntRange(1, 4).Draw(t, "weight"))
			tree.Set(kernel.Quota{Role: d.role, Limit: kernel.NoLimit, Weight: weights[d.role]})
			demands = append(demands, d)
		}
		// Served until one is refused for the first time: up to then every step was the poorest's.
		tree.Machines(total, total)
		waiting, got, free := map[string]kernel.Resources{}, map[string]int{}, total
		for _, d := range demands {
			waiting[d.role] = d.need
		}
		round := tree.Round(waiting)
		for role, ok := round.Next(); ok; role, ok = round.Next() {
			d := demands[slices.IndexFunc(demands, func(d demand) bool { return d.role == role })]
			if !d.need.Fits(free) {
				break
			}
			tree.Charge(role, d.need, false)
			free = free.Sub(d.need)
			if got[role]++; got[role] == d.want {
				round.Done(role)
				continue
			}
			round.Served(role, d.need)
		}
		level := func(d demand, n int) float64 {
			s, _ := tree.dominantShare(d.need.Times(int64(n)))
			return s / weights[d.role]
		}
		for _, a := range demands {
			for _, b := range demands {
				if got[a.role] < a.want && got[b.role] > 0 && level(b, got[b.role]-1) > level(a, got[a.role])+1e-9 {
					t.Fatalf("%s has %d, %s has %d: it had more before its last one than %s has now",
						a.role, got[a.role], b.role, got[b.role], a.role)
				}
			}
		}
	})
}

// BenchmarkRound prints what a round costs in which nothing fits: every role that waits is asked once.
func BenchmarkRound(b *testing.B) {
	for _, roles := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint("roles=", roles), func(b *testing.B) {
			var tree Tree
			tree.Machines(cpus(1_000_000), kernel.Resources{})
			waiting := map[string]kernel.Resources{}
			for k := range roles {
				role := fmt.Sprintf("/team-%d/app", k)
				waiting[role] = cpus(1)
				tree.Charge(role, cpus(int64(k)), false)
			}
			for b.Loop() {
				round := tree.Round(waiting)
				for role, ok := round.Next(); ok; role, ok = round.Next() {
					round.Done(role)
				}
			}
		})
	}
}
