package core

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/queue"
	"github.com/marinaos/marina/internal/master/reservation"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/placement"
)

// machineCapacity is the capacity of one machine of ten cores.
func machineCapacity() *capacity {
	c := newCapacity(kernel.StrategySpread)
	c.pool.Set(placement.Machine{ID: "a", Total: kernel.Resources{MilliCPU: 10_000, Mem: kernel.GiB,
		Disk: 10 * kernel.GiB},
		Ports: kernel.PortRange{First: 31000, Last: 31009}, Subnet: netip.MustParsePrefix("10.0.0.0/24")})
	c.pool.Open("a", true)
	return c
}

func asking(t interface{ Fatal(...any) }, c *capacity, priority int, reserved bool) *spec.Spec {
	k := kernel.Spec{Framework: "f", Owner: "/r/o", Version: "1", Role: "/r", Priority: priority,
		Network: kernel.Network{Mode: kernel.NetworkBridge},
		Tasks: []kernel.TaskSpec{{Name: "t", Suffix: ".t", Image: "i", Guarantee: kernel.Resources{MilliCPU: 1000},
			Ports: []kernel.Port{{Protocol: "tcp", Container: 80}}}}}
	if reserved {
		k.Reservation = &kernel.Reservation{Name: "c", Volumes: []kernel.ReservedVolume{{Name: "data", Bytes: kernel.GiB}}}
	}
	k, err := k.Seal()
	if err != nil {
		t.Fatal(err)
	}
	request, err := c.pool.Prepare(&k)
	if err != nil {
		t.Fatal(err)
	}
	return &spec.Spec{Spec: k, Request: request, Need: k.Guarantee(), Origin: k.Origin()}
}

// TestWhatIsPlacedIsGivenBack places, resizes and releases instances at random: machine and role have what those that
// are left need, and nothing once all are released.
func TestWhatIsPlacedIsGivenBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, a := machineCapacity(), someAgent("a")
		specs := []*spec.Spec{asking(t, c, 0, false), asking(t, c, -1, false)}
		var placed []*instance
		check := func() {
			var used kernel.Resources
			preemptible := 0
			for _, i := range placed {
				used = used.Add(i.need())
				if i.spec.Preemptible() {
					preemptible++
				}
			}
			on, n := c.pool.Used("a")
			if of := c.quota.View("/r").Used; on != used || n != len(placed) || of != used || c.preemptible != preemptible {
				t.Fatalf("%d instances need %v: the machine has %v of %d, the role %v; %d preemptible, kept as %d", len(placed),
					used, on, n, of,
					preemptible, c.preemptible)
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch step := rapid.IntRange(0, 3).Draw(t, "step"); {
			case step < 2:
				sp := rapid.SampledFrom(specs).Draw(t, "spec")
				for _, at := range c.pool.Place(sp.Request, 1) {
					g := kernel.Assignment{ID: "i", Spec: sp.ID, Address: at.Address, HostPorts: at.HostPorts, Goal: kernel.GoalRun}
					i := &instance{Record: kernel.NewRecord(sp.Origin, &kernel.Host{Agent: "a"}, &g, make([]kernel.Status, 1), true),
						spec: sp, agent: a}
					c.place(i)
					placed = append(placed, i)
				}
			case step == 2 && len(placed) > 0:
				i := rapid.SampledFrom(placed).Draw(t, "resize")
				g := i.Assignment()
				g.Sizes = []kernel.Size{{Guarantee: kernel.Resources{MilliCPU: rapid.Int64Range(0, 3000).Draw(t, "cpus")}}}
				need := g.Guarantee(&i.spec.Spec)
				if lacks := c.lacks(i, need.Sub(i.need())); (lacks != "") != (need.MilliCPU > i.need().MilliCPU &&
					need.MilliCPU-i.need().MilliCPU > c.pool.Free("a").MilliCPU) {
					t.Fatalf("from %v to %v with %v free: lacks %q", i.need(), need, c.pool.Free("a"), lacks)
				} else if lacks == "" {
					c.resize(i, need)
					i.Record, i.resized = i.Reassign(&g), true
				}
			case step == 3 && len(placed) > 0:
				c.release(placed[0], false)
				placed = placed[1:]
			}
			check()
		}
		for len(placed) > 0 {
			c.release(placed[0], false)
			placed = placed[1:]
		}
		check()
		if got := c.pool.Place(specs[0].Request, 20); len(got) != 10 {
			t.Fatalf("%d instances fit after all, want 10: addresses and ports are free again", len(got))
		}
	})
}

func TestAReservationsVolumesCountWithAndWithoutAHolder(t *testing.T) {
	c, table := machineCapacity(), reservation.New(func(*reservation.Reservation) {})
	sp := asking(t, c, 0, true)
	at := c.pool.Place(sp.Request, 1)[0]
	r := table.Add(&sp.Spec, at)
	table.Place(r, &sp.Spec, "i")
	g := kernel.Assignment{ID: "i", Spec: sp.ID, Address: at.Address, HostPorts: at.HostPorts, Goal: kernel.GoalRun}
	i := &instance{Record: kernel.NewRecord(sp.Origin, &kernel.Host{Agent: "a"}, &g, make([]kernel.Status, 1), true),
		spec: sp, agent: someAgent("a")}
	used := func() kernel.Resources {
		on, _ := c.pool.Used("a")
		if of := c.quota.View("/r").Used; of != on {
			t.Errorf("the machine has %v, the role %v", on, of)
		}
		return on
	}
	c.place(i)
	if got := used(); got.Disk != kernel.GiB || got.MilliCPU != 1000 {
		t.Errorf("held: got %v", got)
	}
	c.release(i, true)
	c.hold(r)
	if got := used(); got.Disk != kernel.GiB || got.MilliCPU != 0 {
		t.Errorf("without a holder: got %v", got)
	}
	if err := c.takeReserved(r); err == nil {
		t.Error("its address and ports are free while it is there")
	}
	c.returnReserved(r)
	if got := used(); !got.IsZero() {
		t.Errorf("given back: got %v", got)
	}
	if err := c.takeReserved(r); err != nil || used().Disk != kernel.GiB {
		t.Errorf("loaded: got %v and %v", err, used())
	}
	c.free(r)
	if got := used(); !got.IsZero() {
		t.Errorf("counted with its holder: got %v", got)
	}
}

func TestABackfillIsSetAside(t *testing.T) {
	c := machineCapacity()
	sp := asking(t, c, 0, false)
	b := &queue.Backfill{Agent: "a", Charged: true}
	c.setAside(sp, b, sp.Need.Times(9))
	if got := c.pool.Place(sp.Request, 3); len(got) != 1 {
		t.Errorf("nine of ten are kept: %d fit, want 1", len(got))
	}
	c.setAside(sp, b, sp.Need.Times(9).Neg())
	if got := c.pool.Place(sp.Request, 20); len(got) != 9 {
		t.Errorf("none is kept any more: %d fit beside the one, want 9", len(got))
	}
}
