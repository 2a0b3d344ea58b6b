package main

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/marinaos/marina/internal/allocator"
	"github.com/marinaos/marina/internal/kernel"
)

// claimant is a role that wants so many instances.
type claimant struct {
	role   string
	weight float64
	need   kernel.Resources
	want   int
}

func sharing(int) error {
	widths := []int{7, 12, 12, 14, 14}
	row(widths, "roles", "instances", "cases", "mean error", "largest error")
	for _, roles := range []int{2, 5, 20, 100} {
		const cases = 100
		mean, most, instances := 0.0, 0.0, 0
		for seed := range uint64(cases) {
			total, all := drawClaimants(rand.New(rand.NewPCG(seed, uint64(roles))), roles)
			exact := progressive(total, all)
			got := served(total, all)
			for i, c := range all {
				e := math.Abs(dominant(c.need, total)*float64(got[i])-exact[i]) * 100
				mean, most = mean+e/float64(roles*cases), max(most, e)
				instances += got[i]
			}
		}
		row(widths, roles, count(float64(instances)), cases, fmt.Sprintf("%.3f %%", mean), fmt.Sprintf("%.3f %%", most))
	}
	fmt.Println("the difference of each role's dominant share, in points of the pool, to exact weighted progressive filling with instances that can be divided;")
	fmt.Println("one instance is up to 0.1 % of the pool. Large errors are where a resource runs out: what is left of it is too little for one role's instance and enough")
	fmt.Println("for many of another's, which need little of it")
	return nil
}

// drawClaimants draws roles with weights 1 to 4 whose instances take up to a thousandth of each resource; a third want
// less than they could get.
func drawClaimants(rng *rand.Rand, n int) (kernel.Resources, []claimant) {
	total := kernel.Resources{MilliCPU: 10_000_000, Mem: 10_000_000, Disk: 10_000_000, GPUs: 10_000}
	all := make([]claimant, n)
	for i := range all {
		c := claimant{role: fmt.Sprintf("/r%03d", i), weight: float64(1 + rng.IntN(4)), want: math.MaxInt32}
		c.need = kernel.Resources{MilliCPU: 1 + rng.Int64N(10_000), Mem: rng.Int64N(10_000), Disk: rng.Int64N(3_000), GPUs: rng.Int64N(11)}
		if rng.IntN(3) == 0 {
			c.want = 1 + rng.IntN(1000/n+1)
		}
		all[i] = c
	}
	return total, all
}

func dominant(r, total kernel.Resources) (most float64) {
	whole := total.Parts()
	for c, n := range r.Parts() {
		most = max(most, float64(n)/float64(whole[c]))
	}
	return most
}

// progressive is the exact result: all dominant shares rise together, by their weights, until a role has all it wants
// or a resource it needs is used up.
func progressive(total kernel.Resources, all []claimant) []float64 {
	whole := total.Parts()
	share, left := make([]float64, len(all)), [len(kernel.Components)]float64{}
	for c := range left {
		left[c] = 1
	}
	stopped := make([]bool, len(all))
	for {
		var rate [len(kernel.Components)]float64 // of each resource, while all levels rise by one
		for i, c := range all {
			if stopped[i] {
				continue
			}
			d := dominant(c.need, total)
			for k, n := range c.need.Parts() {
				rate[k] += c.weight * float64(n) / float64(whole[k]) / d
			}
		}
		rise := math.Inf(1)
		for k := range rate {
			if rate[k] > 0 {
				rise = min(rise, left[k]/rate[k])
			}
		}
		for i, c := range all {
			if !stopped[i] {
				rise = min(rise, (dominant(c.need, total)*float64(c.want)-share[i])/c.weight)
			}
		}
		if math.IsInf(rise, 1) {
			return share
		}
		for k := range left {
			left[k] -= rise * rate[k]
		}
		for i, c := range all {
			if stopped[i] {
				continue
			}
			share[i] += rise * c.weight
			if dominant(c.need, total)*float64(c.want)-share[i] < 1e-12 {
				stopped[i] = true
			}
			for k, n := range c.need.Parts() {
				stopped[i] = stopped[i] || n > 0 && left[k] < 1e-12
			}
		}
	}
}

// served counts the whole instances each role gets by turns.
func served(total kernel.Resources, all []claimant) []int {
	var tree allocator.Tree
	tree.Machines(total, total)
	waiting, at := map[string]kernel.Resources{}, map[string]int{}
	for i, c := range all {
		tree.Set(kernel.Quota{Role: c.role, Limit: kernel.NoLimit, Weight: c.weight})
		waiting[c.role], at[c.role] = c.need, i
	}
	got, free := make([]int, len(all)), total
	round := tree.Round(waiting)
	for role, ok := round.Next(); ok; role, ok = round.Next() {
		i := at[role]
		if c := &all[i]; c.need.Fits(free) && got[i] < c.want {
			tree.Charge(role, c.need, false)
			free = free.Sub(c.need)
			got[i]++
			round.Served(role, c.need)
		} else {
			round.Done(role)
		}
	}
	return got
}
