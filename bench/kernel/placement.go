package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/moby/swarmkit/v2/manager/scheduler"
	"github.com/moby/swarmkit/v2/manager/state"
	"github.com/moby/swarmkit/v2/manager/state/store"
	"github.com/sirupsen/logrus"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/placement"
)

// A machine has room for perMachine instances, of cpus and memory alike; there are racks of them.
const (
	perMachine = 100
	cpuEach    = 100             // thousandths
	memEach    = 64 * kernel.MiB // bytes
	racks      = 50
	fillEach   = 500 // instances of each app that fills the pool
)

// shape is one case: so many machines, so full, k identical instances asked for at a time.
type shape struct {
	machines, full, k int
	spread            bool
}

func placements(tasks int) error {
	logrus.SetOutput(io.Discard)
	log.L.Logger.SetOutput(io.Discard)
	widths := []int{8, 5, 4, 7, 14, 10, 10, 14}
	row(widths, "machines", "full", "k", "spread", "Marina/s", "p50 ns", "p99 ns", "SwarmKit/s")
	for _, full := range []int{0, 50, 80} {
		for _, k := range []int{1, 50} {
			for _, spread := range []bool{false, true} {
				c := shape{5000, full, k, spread}
				rate, p50, p99 := c.marina()
				peer := "-"
				if tasks > 0 {
					n, err := c.swarmkit(tasks)
					if err != nil {
						return err
					}
					peer = count(n)
				}
				row(widths, c.machines, fmt.Sprint(full, "%"), k, spreadName(spread), count(rate), p50, p99, peer)
			}
		}
	}
	fmt.Println()
	row(widths, "machines", "full", "k", "spread", "Marina/s", "p50 ns", "p99 ns", "")
	for _, machines := range []int{1000, 10_000, 100_000} {
		for _, spread := range []bool{false, true} {
			c := shape{machines, 50, 1, spread}
			rate, p50, p99 := c.marina()
			row(widths, machines, "50%", 1, spreadName(spread), count(rate), p50, p99, "")
		}
	}
	return nil
}

func spreadName(spread bool) string {
	if spread {
		return "rack"
	}
	return "-"
}

// marina places for two seconds: distinct specs, k instances of each, with preparing and forgetting them. What was
// placed is given back whenever it is a twenty-fifth of the pool, off the clock.
func (c shape) marina() (rate float64, p50, p99 int64) {
	pool := placement.NewPool(kernel.StrategySpread)
	for i := range c.machines {
		m := placement.Machine{ID: kernel.AgentID(fmt.Sprint("a", i)), Hostname: fmt.Sprint("h", i), Attributes: map[string]string{"rack": fmt.Sprint("r", i%racks)},
			Total: kernel.Resources{MilliCPU: perMachine * cpuEach, Mem: perMachine * memEach}, Ports: kernel.PortRange{First: 31000, Last: 32000}}
		pool.Set(m)
		pool.Open(m.ID, true)
	}
	prepare := func(owner string, spread bool) *placement.Request {
		s := kernel.Spec{Framework: "f", Owner: owner, Network: kernel.Network{Mode: kernel.NetworkHost},
			Tasks: []kernel.TaskSpec{{Guarantee: kernel.Resources{MilliCPU: cpuEach, Mem: memEach}}}}
		if spread {
			s.Constraints = []kernel.Constraint{{Field: "rack", Operator: "GROUP_BY"}}
		}
		r, err := pool.Prepare(&s)
		if err != nil {
			panic(err)
		}
		return r
	}
	for n := range c.full * c.machines * perMachine / 100 / fillEach {
		pool.Place(prepare(fmt.Sprint("/fill", n), false), fillEach)
	}
	type done struct {
		r  *placement.Request
		at []placement.Placement
	}
	var round []done
	var took []int64
	var spent time.Duration
	placed := 0
	for n := 0; spent < 2*time.Second; n++ {
		began := time.Now()
		r := prepare(fmt.Sprint("/app", n), c.spread)
		at := pool.Place(r, c.k)
		d := time.Since(began)
		spent, took, placed = spent+d, append(took, d.Nanoseconds()), placed+len(at)
		if round = append(round, done{r, at}); len(round)*c.k >= c.machines*perMachine/25 {
			for _, d := range round {
				for _, at := range d.at {
					pool.Release(d.r, at)
				}
				pool.Drop(d.r)
			}
			round = round[:0]
		}
	}
	slices.Sort(took)
	return float64(placed) / spent.Seconds(), took[len(took)/2], took[len(took)*99/100]
}

// swarmkit has SwarmKit's scheduler place n tasks of n/k services on the same machines, filled alike, and returns tasks
// a second.
func (c shape) swarmkit(n int) (float64, error) {
	bare, err := c.swarmkitRun(0)
	if err != nil {
		return 0, err
	}
	took, err := c.swarmkitRun(n)
	if err != nil {
		return 0, err
	}
	return float64(n) / max(took-bare, time.Microsecond).Seconds(), nil
}

// swarmkitRun measures the time from the scheduler's start until the last task is assigned; of none, until it has
// read its nodes.
func (c shape) swarmkitRun(n int) (time.Duration, error) {
	s := store.NewMemoryStore(nil)
	defer s.Close()
	if err := c.swarmkitFill(s); err != nil {
		return 0, err
	}
	want := max(n, 1) // of none one, so that its end can be seen
	err := s.Batch(func(batch *store.Batch) error {
		for i := range want {
			if err := batch.Update(func(tx store.Tx) error {
				return store.CreateTask(tx, c.swarmkitTask(fmt.Sprint("t", i), fmt.Sprint("s", i/c.k), api.TaskStatePending, "", c.spread))
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	watch, cancel := state.Watch(s.WatchQueue(), api.EventUpdateTask{})
	defer cancel()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	sched := scheduler.New(s)
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- sched.Run(ctx) }()
	for got := 0; got < want; {
		ev := <-watch
		if u, ok := ev.(api.EventUpdateTask); ok && u.Task.Status.State == api.TaskStateAssigned {
			got++
		}
	}
	took := time.Since(began)
	sched.Stop()
	return took, <-ended
}

// swarmkitFill makes the machines, and what runs on them.
func (c shape) swarmkitFill(s *store.MemoryStore) error {
	return s.Batch(func(batch *store.Batch) error {
		for i := range c.machines {
			err := batch.Update(func(tx store.Tx) error {
				return store.CreateNode(tx, &api.Node{ID: fmt.Sprint("a", i),
					Spec:   api.NodeSpec{Annotations: api.Annotations{Name: fmt.Sprint("h", i), Labels: map[string]string{"rack": fmt.Sprint("r", i%racks)}}, Availability: api.NodeAvailabilityActive},
					Status: api.NodeStatus{State: api.NodeStatus_READY},
					Description: &api.NodeDescription{Engine: &api.EngineDescription{},
						Resources: &api.Resources{NanoCPUs: perMachine * cpuEach * 1e6, MemoryBytes: perMachine * int64(memEach)}}})
			})
			if err != nil {
				return err
			}
			for k := range c.full * perMachine / 100 {
				// As many tasks as there are would take the store minutes to make: one stands for all of a machine.
				if k > 0 {
					break
				}
				t := c.swarmkitTask(fmt.Sprint("f", i), "fill", api.TaskStateRunning, fmt.Sprint("a", i), false)
				all := int64(c.full * perMachine / 100)
				t.Spec.Resources.Reservations = &api.Resources{NanoCPUs: all * cpuEach * 1e6, MemoryBytes: all * int64(memEach)}
				if err := batch.Update(func(tx store.Tx) error { return store.CreateTask(tx, t) }); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (c shape) swarmkitTask(id, service string, st api.TaskState, node string, spread bool) *api.Task {
	t := &api.Task{ID: id, ServiceID: service, NodeID: node, DesiredState: api.TaskStateRunning, Status: api.TaskStatus{State: st},
		SpecVersion: &api.Version{Index: 1}, ServiceAnnotations: api.Annotations{Name: service},
		Spec: api.TaskSpec{Resources: &api.ResourceRequirements{Reservations: &api.Resources{NanoCPUs: cpuEach * 1e6, MemoryBytes: int64(memEach)}}}}
	if spread {
		t.Spec.Placement = &api.Placement{Preferences: []*api.PlacementPreference{{Preference: &api.PlacementPreference_Spread{
			Spread: &api.SpreadOver{SpreadDescriptor: "node.labels.rack"}}}}}
	}
	return t
}
