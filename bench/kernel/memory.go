package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master"
	"github.com/marinaos/marina/internal/store"
)

func memory(s *sizes) error {
	widths := []int{8, 10, 12, 12, 12, 12, 12, 12}
	row(widths, "agents", "tasks", "heap MiB", "RSS MiB", "B/agent", "B/task", "row B/task", "load s")
	for _, c := range []sizes{{agents: 1000, tasks: 10_000}, {agents: 10_000, tasks: 100_000}, {agents: s.agents, tasks: s.tasks}} {
		if err := c.memory(widths); err != nil {
			return err
		}
	}
	fmt.Println("a master's State, without etcd: every task has a check that passes, a VIP and a host port, and reported its start; heap is what is live, RSS")
	fmt.Println("the whole process's after it was given back what is not; rows are those of agents and of what they run, with keys; load is from empty to all")
	fmt.Println("running, in one goroutine")
	return nil
}

// memory fills a state by the events a datacenter would send it.
func (c sizes) memory(widths []int) error {
	const apps = 100
	before := heap()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	cfg := master.Config{Epoch: 1, Pool: netip.MustParsePrefix("10.0.0.0/8"), SubnetBits: 27, Grace: 1000 * time.Hour}
	s := master.NewState(cfg)
	// An agent that never reports: until all have, nobody is told of endpoints, and it is the state that is looked at.
	first := master.NewState(cfg)
	fx := first.Step(now, master.AgentUp{Session: 1, Seq: 1, Registration: kernel.Registration{Incarnation: "1", Agent: kernel.Agent{ID: "ghost"}}})
	ops, err := first.Ops(fx.Writes)
	if err != nil {
		return err
	}
	for _, op := range ops {
		if problems := s.Load([]store.Item{{Key: op.Key, Value: op.Value}}); len(problems) > 0 {
			return problems[0]
		}
	}
	began := time.Now()
	for n := range c.agents {
		s.Step(now, master.AgentUp{Session: master.SessionID(n + 1), Seq: 1, Registration: kernel.Registration{Incarnation: "1", Agent: kernel.Agent{
			ID: agentID(n), Hostname: fmt.Sprintf("machine-%05d.example.com", n),
			Address: netip.AddrFrom4([4]byte{172, byte(16 + n>>16), byte(n >> 8), byte(n)}), Attributes: map[string]string{"rack": fmt.Sprintf("r%d", n%50)},
			Total: kernel.Resources{MilliCPU: 64_000, Mem: 256 * kernel.GiB}, Ports: kernel.PortRange{First: 20000, Last: 29999}, Version: "1.0", Kernel: "6.18", Cgroup: "v2"}}})
	}
	empty := heap()
	seqs := make([]uint64, c.agents+1)
	for n := range apps {
		spec, err := kernel.Spec{Framework: "marathon", Owner: fmt.Sprintf("/prod/app%d", n), Version: "2026-01-01T00:00:00.000Z", Role: "/prod",
			Network: kernel.Network{Mode: kernel.NetworkBridge}, Tasks: []kernel.TaskSpec{{Name: "_app", Suffix: "._app.1", Image: "app:1",
				Guarantee: kernel.Resources{MilliCPU: 100, Mem: 64 * kernel.MiB}, Ports: []kernel.Port{{Name: "http", Protocol: "tcp", Container: 80, VIPs: []kernel.VIP{{Name: "app", Port: 80}}}},
				Checks: []kernel.Check{{Kind: kernel.CheckHTTP, Path: "/", Interval: time.Second, Timeout: time.Second}}}}}.Seal()
		if err != nil {
			return err
		}
		groups := make([]kernel.GroupID, c.tasks/apps)
		for k := range groups {
			groups[k] = kernel.GroupID(fmt.Sprintf("prod_app%d.instance-%08x-1234-4567-89ab-%012x", n, k, n*c.tasks+k))
		}
		now = now.Add(time.Millisecond)
		fx := s.Step(now, master.Launch{Request: master.RequestID(n + 1), LaunchRequest: kernel.LaunchRequest{Key: spec.Owner, Spec: spec, Groups: groups}})
		for _, send := range fx.Sends {
			up := kernel.Up{}
			for _, g := range send.Down.Groups {
				id := kernel.GroupID(strings.Clone(string(g.ID)))
				up.Statuses = append(up.Statuses, kernel.Status{Task: spec.TaskIDs(id)[0], Group: id, Seq: 3, State: kernel.Running, Time: now, Started: now,
					PID: 1000, Health: []kernel.Health{{Known: true, Alive: true, First: now, LastGood: now}}})
			}
			seqs[send.Session]++
			up.Seq = seqs[send.Session] + 1
			s.Step(now, master.Frame{Session: send.Session, Up: up})
		}
	}
	took := time.Since(began)
	full := heap()
	running := 0
	for _, i := range s.Instances("") {
		if i.State() == kernel.Running {
			running++
		}
	}
	if running != c.tasks {
		return fmt.Errorf("%d tasks run, want %d", running, c.tasks)
	}
	stored, err := c.rows(s)
	if err != nil {
		return err
	}
	debug.FreeOSMemory()
	row(widths, count(float64(c.agents)), count(float64(c.tasks)), (full-before)>>20, rss()>>20, (empty-before)/uint64(c.agents), (full-empty)/uint64(c.tasks), stored/c.tasks,
		fmt.Sprintf("%.1f", took.Seconds()))
	runtime.KeepAlive(s)
	return nil
}

func agentID(n int) kernel.AgentID {
	return kernel.AgentID(fmt.Sprintf("%08x-0000-4000-8000-000000000000", n))
}

// rows is how many bytes the rows of agents and of what they run have, with their keys.
func (c sizes) rows(s *master.State) (bytes int, err error) {
	for n := range c.agents {
		rows := []master.Row{{Kind: master.RowAgent, ID: string(agentID(n))}}
		for chunk := 0; ; chunk++ {
			ops, err := s.Ops(append(rows, master.Row{Kind: master.RowAssigned, ID: string(agentID(n)), Chunk: chunk}))
			if err != nil {
				return 0, err
			}
			rows = nil
			for _, op := range ops {
				if op.Kind == store.OpPut {
					bytes += len(op.Key) + len(op.Value)
				}
			}
			if ops[len(ops)-1].Kind != store.OpPut { // there is no such chunk
				break
			}
		}
	}
	return bytes, nil
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// rss is what of this process is in memory.
func rss() (n int64) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, _ = fmt.Sscanf(text, "%d", &n) // zero without one
		}
	}
	return n << 10
}
