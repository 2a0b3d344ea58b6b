package master

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/daemon/heap"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/services"
	marathonapi "github.com/marinaos/marina/internal/services/api"
	decide "github.com/marinaos/marina/internal/services/core"
	"github.com/marinaos/marina/internal/store/etcd"
)

// BenchmarkMemory prints what a leading process takes: embedded etcd, master and services, with all agents registered
// and all tasks running and healthy, launched by Marathon's API. There are no connections: registrations and statuses
// are handed to the owner of the state as sessions would, and what it tells agents goes nowhere. Endpoints wait, since
// sessions would drain them. MARINA_BENCH_AGENTS, MARINA_BENCH_TASKS and MARINA_BENCH_DIR, a directory on a real disk,
// override 100,000 agents, ten tasks on each, and the temporary directory.
func BenchmarkMemory(b *testing.B) {
	agents := 100_000
	if n, err := strconv.Atoi(os.Getenv("MARINA_BENCH_AGENTS")); err == nil {
		agents = n
	}
	tasks := 10 * agents
	if n, err := strconv.Atoi(os.Getenv("MARINA_BENCH_TASKS")); err == nil {
		tasks = n
	}
	heap.Tighten() // as the daemon does
	for range b.N {
		f := newFleet(b)
		f.shows("nothing", 0, 0)
		f.register(agents)
		f.shows("agents", agents, 0)
		f.launch(tasks)
		f.shows("tasks", agents, tasks)
		f.loads(tasks)
	}
}

// fleet is a leader whose agents are made up.
type fleet struct {
	b        *testing.B
	master   *Master
	services *services.Services
	began    time.Time
	seq      []uint64 // of each agent's last frame
	before   struct{ heap, agents, tasks int }
}

func newFleet(b *testing.B) *fleet {
	dir, err := os.MkdirTemp(os.Getenv("MARINA_BENCH_DIR"), "memory")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	st, err := etcd.OpenEmbedded(b.Context(), etcd.Embedded{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { st.Close() })
	lead, err := st.Campaign(b.Context(), "master", "m1")
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	f := &fleet{b: b, began: time.Now()}
	f.master = New(Config{Pool: netip.MustParsePrefix("10.0.0.0/8"), SubnetBits: 27, Suspect: time.Hour,
		Unreachable: 2 * time.Hour, EndpointsEvery: time.Hour},
		Deps{Store: st, Leadership: lead, Log: log})
	f.services = services.New(services.Config{Kernel: f.master, Store: st, Fence: lead.Fence(), Log: log,
		Policy: decide.DefaultPolicy})
	g, ctx := errgroup.WithContext(lead.Context())
	g.Go(func() error { return f.master.Run(ctx) })
	g.Go(func() error { return f.services.Run(ctx) })
	b.Cleanup(func() {
		if err := lead.Resign(context.Background()); err != nil {
			b.Log(err)
		}
		_ = g.Wait() // how a leadership ends that was given up
	})
	return f
}

func (f *fleet) register(agents int) {
	f.seq = make([]uint64, agents)
	for n := range agents {
		f.seq[n] = 1
		f.tell(event.AgentUp{Session: event.SessionID(n + 1), Seq: 1, Registration: kernel.Registration{Incarnation: "1",
			Agent: kernel.Agent{
				ID: kernel.AgentID(fmt.Sprintf("%08x-0000-4000-8000-000000000000",
					n)), Hostname: fmt.Sprintf("machine-%05d.example.com", n),
				Address: netip.AddrFrom4([4]byte{172, byte(16 + n>>16), byte(n >> 8), byte(n)}),
				Attributes: map[string]string{"rack": fmt.Sprintf("r%d",
					n%50)}, Region: "eu-" + strconv.Itoa(n%2), Zone: "eu-" + strconv.Itoa(n%6),
				Total: kernel.Resources{MilliCPU: 64_000, Mem: 256 * kernel.GiB}, Ports: kernel.PortRange{First: 20000, Last: 29999},
				Version: strings.Clone("1.0.0"), Kernel: strings.Clone("6.18.0-amd64"), Cgroup: strings.Clone("v2")}}})
	}
	f.master.Queue("") // answered after all that came before
	if len(f.master.Agents()) != agents {
		f.b.Fatalf("%d agents, want %d", len(f.master.Agents()), agents)
	}
}

func (f *fleet) tell(ev event.Event) {
	if err := f.master.submit(f.b.Context(), item{event: ev}); err != nil {
		f.b.Fatal(err)
	}
}

// launch has a hundred apps deployed, one after the other, and answers for the agents until all are.
func (f *fleet) launch(tasks int) {
	const apps = 100
	w := f.master.Watch(marathon.Framework)
	defer w.Close()
	running := 0
	for n := range apps {
		body := fmt.Sprintf(`{"instances": %d, "cpus": 0.1, "mem": 64, "networks": [{"mode": "container/bridge"}], "container": {"type": "MESOS", "docker": {"image": "app:1"},
			"portMappings": [{"containerPort": 80, "hostPort": 0, "labels": {"VIP_0": "/app%d:80"}}]}, "healthChecks": [{"protocol": "HTTP", "path": "/"}]}`, tasks/apps, n)
		f.ask(http.MethodPut, fmt.Sprintf("/v2/apps/prod/app%d", n), body)
		for running < (n+1)*(tasks/apps) {
			c, err := w.Next(f.b.Context())
			if err != nil {
				f.b.Fatal(err)
			}
			said := map[kernel.AgentID][]kernel.Status{}
			for _, r := range c.Instances {
				switch state := r.State(); {
				case r.Removed():
					f.b.Fatalf("instance %s ended: %v", r.ID(), r.Instance())
				case state == kernel.Staging:
					now := time.Now().UTC().Round(0)
					said[r.Agent] = append(said[r.Agent], kernel.Status{Task: r.TaskID(0),
						Instance: kernel.InstanceID(strings.Clone(string(r.ID()))), Seq: 3,
						State: kernel.Running, Time: now, Started: now, PID: 4711, Health: []kernel.Health{{Known: true, Alive: true,
							First: now, LastGood: now}}})
				case state == kernel.Running:
					running++
				}
			}
			for agent, statuses := range said {
				n, _ := strconv.ParseInt(string(agent[:8]), 16, 32)
				f.seq[n]++
				f.tell(event.Frame{Session: event.SessionID(n + 1), Up: kernel.Up{Seq: f.seq[n], Statuses: statuses}})
			}
		}
	}
	for late := time.Now().Add(time.Minute); f.ask(http.MethodGet, "/v2/deployments", "") != "[]"; {
		if time.Now().After(late) {
			f.b.Fatal("deployments go on")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (f *fleet) ask(method, path, body string) string {
	for late := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		r, w := httptest.NewRequest(method, path, bytes.NewBufferString(body)), httptest.NewRecorder()
		r.Header.Set("Content-Type", "application/json")
		if marathonapi.New(f.services, nil).ServeHTTP(w, r); w.Code < 300 {
			return strings.TrimSpace(w.Body.String())
		}
		if w.Code != http.StatusServiceUnavailable || time.Now().After(late) {
			f.b.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
}

// shows prints what the process takes now, and per agent or task what is live since the line before.
func (f *fleet) shows(what string, agents, tasks int) {
	took := time.Since(f.began)
	was := memoryOf()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.FreeOSMemory()
	is := memoryOf()
	each := ""
	if n := agents - f.before.agents + tasks - f.before.tasks; n > 0 {
		each = fmt.Sprintf(", %d B each", (int(m.HeapAlloc)-f.before.heap)/n)
	}
	fmt.Printf("%-8s %7d agents %8d tasks: live %4d MiB%s; resident %d MiB, %d of them anonymous, %d after what is free was given back, at most %d; %.1f s\n",
		what, agents, tasks, m.HeapAlloc>>20, each, was["VmRSS"]>>10, was["RssAnon"]>>10, is["VmRSS"]>>10, was["VmHWM"]>>10, took.Seconds())
	f.before.heap, f.before.agents, f.before.tasks = int(m.HeapAlloc), agents, tasks
}

// loads prints how long a new leader takes to load all there is.
func (f *fleet) loads(tasks int) {
	began := time.Now()
	s, err := f.master.load(f.b.Context())
	if err != nil {
		f.b.Fatal(err)
	}
	loaded := time.Since(began)
	core.NewAudit(s)
	machines, instances, _ := s.Sizes()
	if instances != tasks {
		f.b.Fatalf("%d groups were loaded, want %d", instances, tasks)
	}
	fmt.Printf("load     %7d agents %8d tasks: a new leader's state from the store in %.2f s, its audit in %.2f s\n",
		machines, tasks, loaded.Seconds(), time.Since(began).Seconds()-loaded.Seconds())
}

// memoryOf is /proc/self/status, in KiB.
func memoryOf() map[string]int {
	raw, _ := os.ReadFile("/proc/self/status") // not on Linux: nothing is known
	out := map[string]int{}
	for line := range strings.Lines(string(raw)) {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			out[name], _ = strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
		}
	}
	return out
}
