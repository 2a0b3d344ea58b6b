package master

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// BenchmarkState prints what a State keeps in memory for each agent and each task that runs, with a check, a VIP and a host port, and
// what their rows have together.
func BenchmarkState(b *testing.B) {
	const agents, tasks, apps = 10_000, 100_000, 100
	for b.Loop() {
		begin := heap()
		s := NewState(Config{Epoch: 1, SubnetBits: 28})
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		rows := map[Row]struct{}{}
		step := func(ev ...Event) Effects {
			fx := s.Step(now, ev...)
			for _, r := range fx.Writes {
				rows[r] = struct{}{}
			}
			return fx
		}
		for n := range agents {
			step(AgentUp{Session: SessionID(n + 1), Seq: 1, Registration: kernel.Registration{Incarnation: "1", Agent: kernel.Agent{
				ID: kernel.AgentID(fmt.Sprintf("%08x-0000-4000-8000-000000000000", n)), Hostname: fmt.Sprintf("machine-%05d.example.com", n),
				Address: netip.AddrFrom4([4]byte{172, 16, byte(n >> 8), byte(n)}), Attributes: map[string]string{"rack": fmt.Sprintf("r%d", n%50)},
				Total: kernel.Resources{MilliCPU: 64_000, Mem: 256 * kernel.GiB}, Ports: kernel.PortRange{First: 20000, Last: 29999}, Version: "1.0", Kernel: "6.18", Cgroup: "v2"}}})
		}
		empty := heap()
		seqs := make([]uint64, agents+1)
		for n := range apps {
			spec, err := kernel.Spec{Framework: "marathon", Owner: fmt.Sprintf("/prod/app%d", n), Version: "2026-01-01T00:00:00.000Z", Role: "/prod",
				Network: kernel.Network{Mode: kernel.NetworkBridge}, Tasks: []kernel.TaskSpec{{Name: "_app", Suffix: "._app.1", Image: "app:1",
					Guarantee: kernel.Resources{MilliCPU: 100, Mem: 64 * kernel.MiB}, Ports: []kernel.Port{{Name: "http", Protocol: "tcp", Container: 80, VIPs: []kernel.VIP{{Name: "app", Port: 80}}}},
					Checks: []kernel.Check{{Kind: kernel.CheckHTTP, Path: "/", Interval: time.Second, Timeout: time.Second}}}}}.Seal()
			if err != nil {
				b.Fatal(err)
			}
			groups := make([]kernel.GroupID, tasks/apps)
			for k := range groups {
				groups[k] = kernel.GroupID(fmt.Sprintf("prod_app%d.instance-%08x-1234-4567-89ab-%012x", n, k, n*tasks+k))
			}
			now = now.Add(time.Second)
			fx := step(Launch{Request: RequestID(n + 1), LaunchRequest: kernel.LaunchRequest{Key: spec.Owner, Spec: spec, Groups: groups}})
			for _, send := range fx.Sends {
				up := kernel.Up{}
				for _, g := range send.Down.Groups {
					up.Statuses = append(up.Statuses, kernel.Status{Task: spec.TaskIDs(g.ID)[0], Group: kernel.GroupID(strings.Clone(string(g.ID))), Seq: 3, State: kernel.Running, Time: now, Started: now,
						PID: 1000, Health: []kernel.Health{{Known: true, Alive: true, First: now, LastGood: now}}})
				}
				seqs[send.Session]++
				up.Seq = seqs[send.Session] + 1
				step(Frame{Session: send.Session, Up: up})
			}
		}
		if n := len(s.groups); n != tasks {
			b.Fatalf("%d groups are placed, want %d", n, tasks)
		}
		full := heap()
		var stored int
		for r := range rows {
			ops, err := s.Ops([]Row{r})
			if err != nil {
				b.Fatal(err)
			}
			stored += len(ops[0].Key) + len(ops[0].Value)
		}
		b.ReportMetric(float64(empty-begin)/agents, "B/agent")
		b.ReportMetric(float64(full-empty)/tasks, "B/task")
		b.ReportMetric(float64(stored)/tasks, "row-B/task")
		runtime.KeepAlive(s)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
