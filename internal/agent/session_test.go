package agent_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kernel"
)

// skip makes the next frame's number another than it should be.
func (s *masterSession) skip(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq += uint64(n)
}

// ends waits for a session to end.
func (s *masterSession) ends(t *testing.T, why string) {
	t.Helper()
	select {
	case <-s.over:
	case <-time.After(limit):
		t.Fatalf("the session goes on after %s", why)
	}
}

func TestFramesOfAnOldLeaderAreRefusedForGood(t *testing.T) {
	w := newWorld(t)
	w.master.epoch = 5
	w.start()
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "web"})
	w.master.reaches("web.t0", kernel.Running)
	s := w.master.connected(0)
	s.send(4, kernel.Down{Drop: []kernel.InstanceID{"web"}})
	s.ends(t, "a frame of an older epoch")
	w.kill()
	w.master.mu.Lock()
	w.master.epoch = 4
	w.master.groups = map[kernel.InstanceID]kernel.Assignment{} // an old leader that knows nothing would have all stopped
	w.master.mu.Unlock()
	w.start()
	s = w.master.connected(1)
	if w.master.last.Epoch != 5 {
		t.Errorf("registered with epoch %d, want 5", w.master.last.Epoch)
	}
	s.ends(t, "a sync of an older epoch")
	if c := w.containers(); len(c) != 1 || !c[0].Running {
		t.Errorf("got %+v, want the task running", c)
	}
}

func TestGapsAndNonsenseEndTheSession(t *testing.T) {
	w := newWorld(t)
	w.start()
	for name, breakIt := range map[string]func(s *masterSession){
		"a gap":            func(s *masterSession) { s.skip(1); s.send(1, kernel.Down{}) },
		"no JSON":          func(s *masterSession) { _, _ = s.w.Write([]byte("{\"epoch\":\n")) },
		"too long a frame": func(s *masterSession) { _, _ = s.w.Write([]byte(strings.Repeat(" ", kernel.MaxFrame+10) + "\n")) },
		"a spec not sent": func(s *masterSession) {
			s.send(1, kernel.Down{Assignments: []kernel.Assignment{{ID: "x", Spec: "none", Goal: "run"}}})
		},
		"a delta from afar":  func(s *masterSession) { s.send(1, kernel.Down{Endpoints: &kernel.EndpointDelta{From: 77, To: 78}}) },
		"the connection cut": func(s *masterSession) { s.conn.Close() },
	} {
		n := w.sessions()
		s := w.master.connected(n - 1)
		breakIt(s)
		s.ends(t, name)
		w.master.connected(n) // and the next one begins
	}
}

func TestFrameIsAppliedOnce(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := w.master.connected(0)
	spec, _ := specOf("exec sleep 600").Seal()
	s.send(1, kernel.Down{Specs: []kernel.Spec{spec}, Assignments: []kernel.Assignment{{ID: "a", Spec: spec.ID, Goal: kernel.GoalRun}}})
	w.master.reaches("a.t0", kernel.Running)
	s.send(1, kernel.Down{Drop: []kernel.InstanceID{"a"}})
	w.master.reaches("a.t0", kernel.Killed)
	s.skip(-2)
	s.send(1, kernel.Down{Assignments: []kernel.Assignment{{ID: "a", Spec: spec.ID, Goal: kernel.GoalRun}}}) // again, late
	s.send(1, kernel.Down{})
	s.send(1, kernel.Down{Assignments: []kernel.Assignment{{ID: "b", Spec: spec.ID, Goal: kernel.GoalRun}}})
	w.master.reaches("b.t0", kernel.Running)
	if got := len(w.containers()); got != 1 {
		t.Errorf("got %d containers, want only b's", got)
	}
}

// endpointOf is a ready endpoint of a task.
func endpointOf(task kernel.TaskID, agent kernel.AgentID) kernel.Endpoint {
	return kernel.Endpoint{Task: task, Agent: agent, Running: true, Ready: true, Machine: netip.MustParseAddr("127.0.0.1"),
		Ports: []kernel.EndpointPort{{Protocol: "tcp", Host: 31000}}}
}

// tell makes endpoints the datacenter's.
func (m *master) tell(all ...kernel.Endpoint) {
	m.mu.Lock()
	from := m.version
	m.version++
	for _, e := range all {
		m.ends[e.Task] = e
	}
	to := m.version
	m.mu.Unlock()
	m.send(kernel.Down{Endpoints: &kernel.EndpointDelta{From: from, To: to, Set: all}})
}

func (w *world) becomesReady(want ...kernel.TaskID) {
	w.t.Helper()
	eventually(w.t, strings.Join(toStrings(want), ",")+" ready", func() bool { return slices.Equal(w.net.ready(), want) })
}

func toStrings(ids []kernel.TaskID) (out []string) {
	for _, id := range ids {
		out = append(out, string(id))
	}
	return out
}

func TestDeadTasksOfThisMachineGetNoConnectionsWithoutAMaster(t *testing.T) {
	w := newWorld(t)
	w.start()
	for _, g := range []kernel.InstanceID{"a", "b", "c"} {
		w.master.launch(specOf(`trap 'exit 1' TERM; while :; do sleep 0.01; done`), kernel.Assignment{ID: g})
	}
	for _, id := range []kernel.TaskID{"a.t0", "b.t0", "c.t0"} {
		w.master.reaches(id, kernel.Running)
	}
	me := w.master.last.Agent.ID
	w.master.tell(endpointOf("a.t0", me), endpointOf("b.t0", me), endpointOf("c.t0", me), endpointOf("far.t0", "other"))
	w.becomesReady("a.t0", "b.t0", "c.t0", "far.t0")

	w.master.mu.Lock()
	w.master.refuse = true
	w.master.mu.Unlock()
	w.master.drop()
	kill := func(id kernel.TaskID) {
		if err := w.procs.Signal(t.Context(), w.containerOf(id), 9); err != nil {
			t.Fatal(err)
		}
	}
	kill("a.t0")
	w.becomesReady("b.t0", "c.t0", "far.t0")

	// A new agent has no master to ask either, and does as well with what the last one wrote down.
	w.kill()
	w.start()
	eventually(t, "recovery", func() bool { return strings.Count(w.log.String(), "agent recovered") == 2 })
	kill("b.t0")
	w.becomesReady("c.t0", "far.t0")

	// Nor does it miss what ended while there was no agent.
	w.kill()
	kill("c.t0")
	w.start()
	w.becomesReady("far.t0")
}

func (w *world) containerOf(id kernel.TaskID) string {
	for _, f := range w.containers() {
		if f.Labels["marina.task"] == string(id) {
			return f.ID
		}
	}
	return ""
}

func TestStoppingTaskGetsNoConnectionsBeforeTERM(t *testing.T) {
	w := newWorld(t)
	w.cfg.Drain = 300 * time.Millisecond
	w.start()
	s := specOf(`trap 'exit 0' TERM; while :; do sleep 0.01; done`)
	s.Tasks[0].Ports = []kernel.Port{{Protocol: "tcp", VIPs: []kernel.VIP{{Name: "web", Port: 80}}}}
	w.master.launch(s, kernel.Assignment{ID: "a", HostPorts: []uint16{31000}})
	st := w.master.reaches("a.t0", kernel.Running)
	w.master.tell(endpointOf("a.t0", w.master.last.Agent.ID))
	w.becomesReady("a.t0")
	began := time.Now()
	w.master.end("a")
	w.becomesReady()
	if c := w.containers(); len(c) != 1 || !c[0].Running || c[0].Process.PID != st.PID {
		t.Errorf("when no connections come any more: got %+v, want it running still", c)
	}
	w.master.reaches("a.t0", kernel.Killed)
	if took := time.Since(began); took < w.cfg.Drain {
		t.Errorf("ended after %s, want a drain of %s first", took, w.cfg.Drain)
	}
}

func TestLargeEndpointSetsTakeEffectWhole(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := w.master.connected(0)
	s.send(1, kernel.Down{Endpoints: &kernel.EndpointDelta{To: 9, Full: true, More: true, Set: []kernel.Endpoint{endpointOf("x", "o")}}})
	s.send(1, kernel.Down{Endpoints: &kernel.EndpointDelta{To: 9, Full: true, Set: []kernel.Endpoint{endpointOf("y", "o")}}})
	s.send(1, kernel.Down{Endpoints: &kernel.EndpointDelta{From: 9, To: 10, Set: []kernel.Endpoint{endpointOf("z", "o")}}})
	w.becomesReady("x", "y", "z")
}

func TestRegistrationDescribesTheMachine(t *testing.T) {
	w := newWorld(t)
	w.cfg.Warnings = []string{"something"}
	w.start()
	w.master.connected(0)
	r := w.master.last
	if a := r.Agent; a.ID == "" || a.Hostname != "host1" || a.Attributes["rack"] != "r1" || a.Total.MilliCPU <= 0 || a.Total.Mem <= 0 ||
		a.Total.Disk <= 0 || a.Kernel == "" || a.Cgroup == "" || a.Attributes[kernel.UserNamespaces] != "no" || r.Boot != "boot-1" || r.Incarnation == "" || a.Ports.First == 0 {
		t.Errorf("got %+v, want it complete", r)
	}
	first := *r
	w.kill()
	w.start()
	w.master.connected(1)
	if got := w.master.last; got.Incarnation == first.Incarnation || cmp.Diff(got.Agent, first.Agent,
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) != "" {
		t.Errorf("after a restart: got %+v, want the same agent in another incarnation than %+v", got, first)
	}
}

// mutable is a connection that can go silent without ending, as when the machine at its other end is gone.
type mutable struct {
	net.Conn
	silent *atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (c *mutable) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.silent.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *mutable) Write(p []byte) (int, error) {
	if c.silent.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *mutable) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func TestSilentMasterIsGivenUp(t *testing.T) {
	w := newWorld(t)
	w.cfg.Suspect = 200 * time.Millisecond
	var silent atomic.Bool
	w.dial = func(ctx context.Context, address string) (net.Conn, error) {
		silent.Store(false)
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		return &mutable{Conn: c, silent: &silent, closed: make(chan struct{})}, err
	}
	w.start()
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "a"})
	w.master.reaches("a.t0", kernel.Running)
	silent.Store(true)
	w.master.connected(1)
	if st := w.master.reaches("a.t0", kernel.Running); st.Seq != 2 {
		t.Errorf("got %+v, want nothing new", st)
	}
}

func TestAgentTriesAllMasters(t *testing.T) {
	w := newWorld(t)
	web := httptest.NewTLSServer(nil) // speaks TLS, and is no master
	defer web.Close()
	pool := w.cfg.TLS.RootCAs.Clone()
	pool.AddCert(web.Certificate())
	w.cfg.TLS = &tls.Config{RootCAs: pool}
	w.cfg.Masters = []string{"127.0.0.1:1", web.Listener.Addr().String(), w.master.address()}
	w.start()
	w.master.connected(0)
	for _, want := range []string{"connection refused", "no application protocol"} {
		if !strings.Contains(w.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}
