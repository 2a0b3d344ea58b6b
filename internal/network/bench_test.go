package network_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// many is services of three tasks each, each service with a VIP of its own, sorted by task.
func manyServices(services int) []kernel.Endpoint {
	var all []kernel.Endpoint
	at := netip.MustParseAddr("198.18.0.0")
	for s := range services {
		at = at.Next()
		name := fmt.Sprintf("s%05d", s)
		for i := range 3 {
			all = append(all, kernel.Endpoint{Task: kernel.TaskID(fmt.Sprintf("%s.%d", name, i)),
				Instance:  kernel.InstanceID(fmt.Sprintf("%s.%d", name, i)),
				Framework: "marathon", Owner: "/" + name, Discovery: name, Agent: "c0ffee-S1", Machine: machine,
				Address: netip.AddrFrom4([4]byte{10, 77, byte(s / 200 % 200), byte(10 + s%200)}), Running: true, Ready: true,
				Ports: []kernel.EndpointPort{{Name: "web", Protocol: "tcp", Container: uint16(8000 + i),
					VIPs: []kernel.EndpointVIP{{Name: name + ".marathon", Addr: at, Port: 80}}}}})
		}
	}
	return all
}

// BenchmarkApply10000Services is from one changed task among 30,000 until connections and names follow.
func BenchmarkApply10000Services(b *testing.B) {
	h := newTestbed(b)
	all := manyServices(10_000)
	start := time.Now()
	h.check(h.n.Apply(b.Context(), all))
	first := time.Since(start)
	var took []time.Duration
	i := 0
	for b.Loop() {
		e := &all[(i*7919)%len(all)]
		e.Ready = !e.Ready
		i++
		t := time.Now()
		h.check(h.n.Apply(b.Context(), all))
		took = append(took, time.Since(t))
	}
	slices.Sort(took)
	b.ReportMetric(float64(first.Milliseconds()), "ms-first")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
}
