package core

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
)

// BenchmarkStep places 10,000 instances with a VIP and a host port each on 1,000 agents, hears that all run, and ends
// them, by steps alone: what it allocates is the state's.
func BenchmarkStep(b *testing.B) {
	const agents, instances = 1000, 10_000
	b.ReportAllocs()
	for b.Loop() {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		s := NewState(Config{Suspect: time.Hour, Unreachable: 2 * time.Hour})
		step := func(events ...event.Event) Effects {
			now = now.Add(50 * time.Millisecond)
			return s.Step(now, events...)
		}
		seq := make([]uint64, agents)
		for n := range agents {
			seq[n] = 1
			step(event.AgentUp{Session: event.SessionID(n + 1), Seq: 1, Registration: kernel.Registration{Incarnation: "1",
				Agent: kernel.Agent{
					ID: kernel.AgentID(fmt.Sprint(n)), Hostname: fmt.Sprint(n), Address: netip.MustParseAddr("192.0.2.1"),
					Total: kernel.Resources{MilliCPU: 64_000, Mem: 64 * kernel.GiB}, Ports: kernel.PortRange{First: 31000,
						Last: 31999}}}})
		}
		spec, err := kernel.Spec{Framework: "f", Owner: "/o", Version: "1", Role: "/",
			Network: kernel.Network{Mode: kernel.NetworkBridge},
			Tasks: []kernel.TaskSpec{{Name: "t", Suffix: ".t", Image: "i", Guarantee: kernel.Resources{MilliCPU: 100},
				Ports: []kernel.Port{{Protocol: "tcp", Container: 80, VIPs: []kernel.VIP{{Name: "v", Port: 80}}}}}}}.Seal()
		if err != nil {
			b.Fatal(err)
		}
		launch := event.Launch{Request: 1, LaunchRequest: kernel.LaunchRequest{Key: "k", Spec: spec}}
		for n := range instances {
			launch.Instances = append(launch.Instances, kernel.InstanceID(fmt.Sprint("i", n)))
		}
		if fx := step(launch); len(fx.Replies[0].Launch.Placed) != instances {
			b.Fatalf("placed %d", len(fx.Replies[0].Launch.Placed))
		}
		for _, state := range []kernel.State{kernel.Running, kernel.Killed} {
			ups := make([][]kernel.Status, agents)
			for _, r := range s.Instances("f") {
				var n int
				_, _ = fmt.Sscan(string(r.Agent), &n)
				ups[n] = append(ups[n], kernel.Status{Task: r.TaskID(0), Instance: r.ID(), Seq: uint64(state) + 1, State: state,
					Time: now})
			}
			for n := range ups {
				seq[n]++
				step(event.Frame{Session: event.SessionID(n + 1), Up: kernel.Up{Seq: seq[n], Statuses: ups[n]}})
			}
		}
		if _, left, _ := s.Sizes(); left != 0 {
			b.Fatalf("%d are left", left)
		}
	}
}
