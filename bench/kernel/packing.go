package main

import (
	_ "embed"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/placement"
)

// traceShapes are the 8,152 pods of Alibaba's trace of a GPU cluster of 2023 (github.com/alibaba/clusterdata,
// cluster-trace-gpu-v2023, openb_pod_list_default.csv) by what they ask for: thousandths of a core, MiB, whole GPUs,
// and how many pods do. Its shared GPUs count as whole ones.
//
//go:embed shapes.csv
var traceShapes string

// traceMachine is the trace's largest machine, "G3": every shape fits on it.
var traceMachine = kernel.Resources{MilliCPU: 128_000, Mem: 786_432 * kernel.MiB, GPUs: 8}

const traceMachines = 3000

func packing(int) error {
	widths := []int{24, 8, 10, 10, 10}
	row(widths, "asked for", "seed", "Marina", "best fit", "bound")
	for _, c := range []struct {
		name    string
		machine kernel.Resources
		gpus    int64 // of what is asked for, times so much
	}{{"cpus, mem, gpus", traceMachine, 1}, {"cpus, mem", kernel.Resources{MilliCPU: traceMachine.MilliCPU, Mem: traceMachine.Mem}, 0},
		{"cpus, half the mem", kernel.Resources{MilliCPU: traceMachine.MilliCPU, Mem: traceMachine.Mem / 2}, 0}} {
		all, left, err := readTrace(c.machine, c.gpus)
		if err != nil {
			return err
		}
		var sum kernel.Resources
		for _, r := range all {
			sum = sum.Add(r)
		}
		bound := int64(0)
		whole := c.machine.Parts()
		for k, n := range sum.Parts() {
			if whole[k] > 0 {
				bound = max(bound, (n+whole[k]-1)/whole[k])
			}
		}
		for seed := range uint64(3) {
			rng := rand.New(rand.NewPCG(seed, 1))
			rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			used, err := packMarina(all, c.machine)
			if err != nil {
				return err
			}
			row(widths, c.name, seed, used, packBestFit(all, c.machine), bound)
		}
		fmt.Printf("  on machines of %v; %d instances in shuffled order, %d that fit on none left out\n", c.machine, len(all), left)
	}
	return nil
}

// readTrace lists what the trace's pods ask for, less those that do not fit on a machine.
func readTrace(machine kernel.Resources, gpus int64) (all []kernel.Resources, left int, err error) {
	for i, line := range strings.Split(strings.TrimSpace(traceShapes), "\n") {
		var cpu, mem, gpu int64
		var n int
		if i == 0 {
			continue
		}
		if _, err := fmt.Sscanf(line, "%d,%d,%d,%d", &cpu, &mem, &gpu, &n); err != nil {
			return nil, 0, fmt.Errorf("shapes, line %d: %w", i+1, err)
		}
		r := kernel.Resources{MilliCPU: cpu, Mem: mem * kernel.MiB, GPUs: gpu * gpus}
		if !r.Fits(machine) {
			left += n
			continue
		}
		for range n {
			all = append(all, r)
		}
	}
	return all, left, nil
}

// packMarina places all by the strategy binpack, each as an app of its own, and counts machines with any.
func packMarina(all []kernel.Resources, machine kernel.Resources) (int, error) {
	pool := placement.NewPool(kernel.StrategyBinpack)
	for i := range traceMachines {
		m := placement.Machine{ID: kernel.AgentID(fmt.Sprint("a", i)), Hostname: fmt.Sprint("h", i), Total: machine}
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

// packBestFit is the textbook's: of the machines in use on which an instance fits, the one that is left with the least,
// as the sum of the fractions of each resource; a new one if none fits.
func packBestFit(all []kernel.Resources, machine kernel.Resources) int {
	var free []kernel.Resources
	whole := machine.Parts()
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
			free = append(free, machine)
		}
		free[best] = free[best].Sub(need)
	}
	return len(free)
}
