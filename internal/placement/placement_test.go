package placement

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

func testMachine(id int, cpus int64, rack string) Machine {
	return Machine{ID: kernel.AgentID(fmt.Sprintf("a%d", id)), Hostname: fmt.Sprintf("h%d", id),
		Attributes: map[string]string{"rack": rack},
		Total:      kernel.Resources{MilliCPU: cpus, Mem: 8 * kernel.GiB}, Ports: kernel.PortRange{First: 31000, Last: 31007},
		Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(id), 0}), 28)}
}

// TestNothingIsGivenTwice launches, ends and re-registers at random, and compares the pool with a plain account.
func TestNothingIsGivenTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewPool(kernel.StrategySpread)
		machines := map[kernel.AgentID]Machine{}
		for i := range rapid.IntRange(1, 6).Draw(t, "machines") {
			m := testMachine(i, rapid.Int64Range(0, 4000).Draw(t, "cpus"),
				rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "rack"))
			machines[m.ID] = m
			p.Set(m)
			p.Open(m.ID, rapid.IntRange(0, 4).Draw(t, "open") > 0)
		}
		type placed struct {
			Placement
			request *Request
			spec    kernel.Spec
		}
		var live []placed
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			if len(live) > 0 && rapid.Bool().Draw(t, "end") {
				k := rapid.IntRange(0, len(live)-1).Draw(t, "which")
				p.Release(live[k].request, live[k].Placement)
				live = append(live[:k], live[k+1:]...)
				continue
			}
			s := drawSpec(t)
			r, err := p.Prepare(&s)
			if err != nil {
				t.Fatal(err)
			}
			k := rapid.IntRange(1, 12).Draw(t, "k")
			got := p.Place(r, k)
			if len(got) < k {
				refusal := p.Explain(r)
				total := 0
				for _, c := range refusal.Reasons {
					total += c.Agents
				}
				if total != len(machines) || refusal.Agents != len(machines) {
					t.Fatalf("refusal explains %d of %d machines: %s", total, len(machines), refusal)
				}
			}
			for _, at := range got {
				live = append(live, placed{at, r, s})
			}
			// What is placed now is what Take would accept elsewhere.
			again := NewPool(kernel.StrategySpread)
			used := map[kernel.AgentID]kernel.Resources{}
			for _, m := range machines {
				again.Set(m)
			}
			unique := map[string]int{}
			for _, l := range live {
				if err := take(again, &l.spec, l.Placement); err != nil {
					t.Fatalf("placement %v: %v", l.Placement, err)
				}
				used[l.Agent] = used[l.Agent].Add(l.spec.Guarantee())
				for _, c := range l.spec.Constraints {
					if c.Operator == "UNIQUE" {
						unique[l.spec.Owner+l.spec.Version+string(l.Agent)]++
					}
				}
				checkPorts(t, &l.spec, l.Placement, machines[l.Agent])
			}
			for id, u := range used {
				if !u.Fits(machines[id].Total) {
					t.Fatalf("machine %s gives %v and has %v", id, u, machines[id].Total)
				}
				if got, _ := p.Used(id); got != u {
					t.Fatalf("machine %s: used %v, want %v", id, got, u)
				}
			}
			for who, n := range unique {
				if n > 1 {
					t.Fatalf("%s: %d instances on one machine, want 1", who, n)
				}
			}
		}
	})
}

func take(p *Pool, s *kernel.Spec, at Placement) error {
	r, err := p.Prepare(s)
	if err != nil {
		return err
	}
	return p.Take(r, at)
}

func drawSpec(t *rapid.T) kernel.Spec {
	s := kernel.Spec{Framework: "f", Owner: rapid.SampledFrom([]string{"/a", "/b", "/c"}).Draw(t, "owner"), Version: "1",
		Network: kernel.Network{Mode: rapid.SampledFrom([]kernel.NetworkMode{kernel.NetworkBridge,
			kernel.NetworkHost}).Draw(t, "mode")},
		Tasks: []kernel.TaskSpec{{Guarantee: kernel.Resources{MilliCPU: rapid.Int64Range(0, 1500).Draw(t, "cpus"),
			Mem: rapid.Int64Range(0, 3).Draw(t, "mem") * kernel.GiB}}}}
	for range rapid.IntRange(0, 3).Draw(t, "ports") {
		s.Tasks[0].Ports = append(s.Tasks[0].Ports,
			kernel.Port{Protocol: "tcp", Host: rapid.SampledFrom([]int{-1, 0, 0, 31001, 80}).Draw(t, "host")})
	}
	if s.Owner == "/a" { // an owner is unique in all of its instances or in none
		s.Constraints = []kernel.Constraint{{Field: "hostname", Operator: "UNIQUE"}}
	}
	if s.Owner == "/b" {
		s.Constraints = []kernel.Constraint{{Field: "rack", Operator: "GROUP_BY"}}
	}
	return s
}

func checkPorts(t *rapid.T, s *kernel.Spec, at Placement, m Machine) {
	for k, port := range s.Ports() {
		got := at.HostPorts[k]
		switch {
		case port.Host == kernel.NoHostPort && got != 0, port.Host > 0 && int(got) != port.Host,
			port.Host == kernel.AnyHostPort && !inPortRange(m.Ports, got):
			t.Fatalf("port asked for as %d: got %d", port.Host, got)
		}
	}
	if (s.Network.Mode == kernel.NetworkBridge) != at.Address.IsValid() {
		t.Fatalf("address in mode %s: got %v", s.Network.Mode, at.Address)
	}
}

func TestInstancesSpreadThenGoWhereMostIsFree(t *testing.T) {
	p := NewPool(kernel.StrategySpread)
	for i, cpus := range []int64{1000, 8000, 4000} {
		p.Set(testMachine(i, cpus, "r1"))
		p.Open(kernel.AgentID(fmt.Sprintf("a%d", i)), true)
	}
	s := kernel.Spec{Framework: "f", Owner: "/a", Network: kernel.Network{Mode: kernel.NetworkHost},
		Tasks: []kernel.TaskSpec{{Guarantee: kernel.Resources{MilliCPU: 600}}}}
	r, err := p.Prepare(&s)
	if err != nil {
		t.Fatal(err)
	}
	places := p.Place(r, 6)
	var got []kernel.AgentID
	for _, at := range places {
		got = append(got, at.Agent)
	}
	if diff := cmp.Diff([]kernel.AgentID{"a0", "a1", "a2", "a1", "a2", "a1"}, got); diff != "" {
		t.Errorf("machines (-want +got):\n%s", diff)
	}
}

func TestAddressGivenBackComesAgainLast(t *testing.T) {
	a := newAddresses(netip.MustParsePrefix("10.0.0.0/29"))
	first := a.takeNext()
	a.release(first)
	var got []string
	for range 5 {
		got = append(got, a.takeNext().String())
	}
	if diff := cmp.Diff([]string{"10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"}, got); diff != "" ||
		a.free() != 0 {
		t.Errorf("addresses (-want +got), %d free:\n%s", a.free(), diff)
	}
	if got := a.takeNext(); got.IsValid() {
		t.Errorf("address of a full subnet: got %v, want none", got)
	}
}

func TestWrongConstraintsAreRefusedByName(t *testing.T) {
	for _, c := range []kernel.Constraint{{Operator: "UNIQUE"}, {Field: "rack", Operator: "LIKE", Value: "("},
		{Field: "rack", Operator: "MAX_PER"},
		{Field: "rack", Operator: "MAX_PER", Value: "-1"}, {Field: "rack", Operator: "IS"}, {Field: "rack", Operator: "NEAR"},
		{Field: "rack", Operator: "UNIQUE", Value: "1"}, {Field: "rack", Operator: "GROUP_BY", Value: "x"}} {
		if _,
			err := NewPool(kernel.StrategySpread).Prepare(&kernel.Spec{Constraints: []kernel.Constraint{c}}); !errors.Is(err,
			errdefs.ErrInvalidArgument) {
			t.Errorf("constraint %v: got %v, want an errdefs.ErrInvalidArgument", c, err)
		}
	}
}

func TestAbsurdRequestsAreRefusedInNumbers(t *testing.T) {
	p := NewPool(kernel.StrategySpread)
	p.Set(testMachine(1, 4000, "r1"))
	p.Open("a1", true)
	s := kernel.Spec{Framework: "f", Owner: "/a",
		Tasks: []kernel.TaskSpec{{Guarantee: kernel.Resources{Mem: 1 << 62}}, {Guarantee: kernel.Resources{Mem: 1 << 62}}}}
	r, err := p.Prepare(&s)
	if err != nil {
		t.Fatal(err)
	}
	got, refusal := p.Place(r, 5), p.Explain(r)
	want := "0 of 1 machines fit: 1 lack mem (asks 8.589934592e+09 GiB, the most free on one machine is 8 GiB)"
	if len(got) != 0 || refusal.String() != want {
		t.Errorf("placed %d, refusal %q, want %q", len(got), refusal, want)
	}
}

// BenchmarkPlace prints placements a second of pure logic, and how long a call takes: distinct specs, each placed
// once, on machines in 50 racks that are filled to a share first.
func BenchmarkPlace(b *testing.B) {
	for _, machines := range []int{1000, 5000, 100_000} {
		for _, full := range []int{0, 50, 80} {
			for _, k := range []int{1, 50} {
				for _, rack := range []bool{false, true} {
					b.Run(fmt.Sprintf("machines=%d/full=%d%%/k=%d/rack=%v", machines, full, k, rack),
						func(b *testing.B) { benchPlace(b, machines, full, k, rack) })
				}
			}
		}
	}
}

func benchPlace(b *testing.B, machines, full, k int, rack bool) {
	const perMachine = 100
	p := NewPool(kernel.StrategySpread)
	for i := range machines {
		m := testMachine(0, 4000*perMachine/40, fmt.Sprintf("r%d", i%50))
		m.ID, m.Hostname = kernel.AgentID(fmt.Sprintf("a%d", i)), fmt.Sprintf("h%d", i)
		m.Total.Mem = perMachine * 64 * kernel.MiB
		p.Set(m)
		p.Open(m.ID, true)
	}
	prepare := func(owner string, rack bool) *Request {
		s := kernel.Spec{Framework: "f", Owner: owner, Network: kernel.Network{Mode: kernel.NetworkHost},
			Tasks: []kernel.TaskSpec{{Guarantee: kernel.Resources{MilliCPU: 100, Mem: 64 * kernel.MiB}}}}
		if rack {
			s.Constraints = []kernel.Constraint{{Field: "rack", Operator: "GROUP_BY"}}
		}
		r, err := p.Prepare(&s)
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	for n := range full * machines * perMachine / 100 / 500 {
		if got := p.Place(prepare(fmt.Sprintf("/fill%d", n), false), 500); len(got) != 500 {
			b.Fatalf("filling: %d placed", len(got))
		}
	}
	type done struct {
		r  *Request
		at []Placement
	}
	var round []done
	var took []time.Duration
	placed, n := 0, 0
	for b.Loop() {
		began := time.Now()
		r := prepare(fmt.Sprintf("/app%d", n), rack)
		at := p.Place(r, k)
		took = append(took, time.Since(began))
		placed += len(at)
		n++
		if round = append(round, done{r, at}); len(round)*k >= machines*perMachine/25 { // keep the share as it is
			b.StopTimer()
			for _, d := range round {
				for _, at := range d.at {
					p.Release(d.r, at)
				}
				p.Drop(d.r)
			}
			round = round[:0]
			b.StartTimer()
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(placed)/b.Elapsed().Seconds(), "placements/s")
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}
