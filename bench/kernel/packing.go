package main

import (
	_ "embed"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/placement"
)

// traceShapes are the 8,152 pods of Alibaba's trace of a GPU cluster of 2023 (github.com/alibaba/clusterdata, cluster-trace-gpu-v2023,
// openb_pod_list_default.csv) by what they ask for: thousandths of a core, MiB, whole GPUs, and how many pods do. Its shared GPUs count as whole ones.
//
//go:embed shapes.csv
var traceShapes string

// traceMachine is the trace's most frequent machine, "G2".
var traceMachine = kernel.Resources{MilliCPU: 96_000, Mem: 393_216 * kernel.MiB, GPUs: 8}

const traceMachines = 3000

func packing(*sizes) error {
	var all []kernel.Resources
	var sum kernel.Resources
	for i, line := range strings.Split(strings.TrimSpace(traceShapes), "\n") {
		var cpu, mem, gpus int64
		var n int
		if i == 0 {
			continue
		}
		if _, err := fmt.Sscanf(line, "%d,%d,%d,%d", &cpu, &mem, &gpus, &n); err != nil {
			return fmt.Errorf("shapes, line %d: %w", i+1, err)
		}
		r := kernel.Resources{MilliCPU: cpu, Mem: mem * kernel.MiB, GPUs: gpus}
		if !r.Fits(traceMachine) {
			return fmt.Errorf("shapes, line %d: %v does not fit on a machine", i+1, r)
		}
		for range n {
			all, sum = append(all, r), sum.Add(r)
		}
	}
	bound := int64(0)
	whole := traceMachine.Parts()
	for c, n := range sum.Parts() {
		if whole[c] > 0 {
			bound = max(bound, (n+whole[c]-1)/whole[c])
		}
	}
	widths := []int{18, 10, 10, 10}
	row(widths, "order of arrival", "Marina", "best fit", "bound")
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 1))
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		used, err := packMarina(all)
		if err != nil {
			return err
		}
		row(widths, fmt.Sprint("shuffled, seed ", seed), used, packBestFit(all), bound)
	}
	fmt.Printf("machines of %v used by %d instances of %d shapes\n", traceMachine, len(all), strings.Count(traceShapes, "\n")-1)
	return nil
}

// packMarina places all by the strategy binpack, each as an app of its own, and counts machines with any.
func packMarina(all []kernel.Resources) (int, error) {
	pool := placement.NewPool(kernel.StrategyBinpack)
	for i := range traceMachines {
		m := placement.Machine{ID: kernel.AgentID(fmt.Sprint("a", i)), Hostname: fmt.Sprint("h", i), Total: traceMachine}
		pool.Set(m)
		pool.Open(m.ID, true)
	}
	used := map[kernel.AgentID]bool{}
	for i, need := range all {
		r, err := pool.Prepare(&kernel.Spec{Framework: "f", Owner: fmt.Sprint("/app", i), Network: kernel.Network{Mode: kernel.NetworkHost}, Tasks: []kernel.TaskSpec{{Guarantee: need}}})
		if err != nil {
			return 0, err
		}
		at := pool.Place(r, 1)
		if len(at) == 0 {
			return 0, fmt.Errorf("instance %d, %v: %v", i, need, pool.Explain(r))
		}
		used[at[0].Agent] = true
	}
	return len(used), nil
}

// packBestFit is the textbook's: of the machines in use on which an instance fits, the one that is left with the least, as the sum of the fractions of each
// resource; a new one if none fits.
func packBestFit(all []kernel.Resources) int {
	var free []kernel.Resources
	whole := traceMachine.Parts()
	left := func(r kernel.Resources) (sum float64) {
		for c, n := range r.Parts() {
			if whole[c] > 0 {
				sum += float64(n) / float64(whole[c])
			}
		}
		return sum
	}
	for _, need := range all {
		best, least := -1, 0.0
		for i := range free {
			if !need.Fits(free[i]) {
				continue
			}
			if l := left(free[i].Sub(need)); best < 0 || l < least {
				best, least = i, l
			}
		}
		if best < 0 {
			best = len(free)
			free = append(free, traceMachine)
		}
		free[best] = free[best].Sub(need)
	}
	return len(free)
}
