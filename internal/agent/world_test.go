package agent_test

//lint:file-ignore SA1019 one connection that the other side dialed: net/http serves listeners and dials itself

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/http2"

	"github.com/marinaos/marina/internal/agent"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/runtime"
	"github.com/marinaos/marina/internal/runtime/process"
)

// limit bounds every wait of a test.
const limit = 20 * time.Second

// netTwin is agent.Network in memory. Like the real one it outlives the agents that use it.
type netTwin struct {
	mu       sync.Mutex
	attached map[kernel.InstanceID]kernel.Attachment // guarded by mu
	foreign  map[uint16]string                       // host ports of others, guarded by mu
	table    []kernel.Endpoint                       // guarded by mu
	judge    func([]kernel.Endpoint)                 // sees every table, guarded by mu
	subnet   netip.Prefix                            // guarded by mu
}

func newNetTwin() *netTwin {
	return &netTwin{attached: map[kernel.InstanceID]kernel.Attachment{}, foreign: map[uint16]string{}}
}

func (n *netTwin) Configure(_ context.Context, subnet netip.Prefix, _ kernel.NetworkInfo) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.subnet = subnet
	return nil
}

func (n *netTwin) Attach(ctx context.Context, a kernel.Attachment) (string, error) {
	return "", n.OpenPorts(ctx, a)
}

func (n *netTwin) OpenPorts(_ context.Context, a kernel.Attachment) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range a.Ports {
		if owner := n.foreign[p.Host]; p.Host != 0 && owner != "" {
			return fmt.Errorf("host port %d is held by %s: %w", p.Host, owner, errdefs.ErrAlreadyExists)
		}
	}
	n.attached[a.Instance] = a
	return nil
}

func (n *netTwin) Detach(_ context.Context, g kernel.InstanceID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.attached, g)
	return nil
}

func (n *netTwin) Attached(context.Context) ([]kernel.InstanceID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.attached)), nil
}

func (n *netTwin) Apply(_ context.Context, e []kernel.Endpoint) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.table = slices.Clone(e)
	if n.judge != nil {
		n.judge(e)
	}
	return nil
}

func (n *netTwin) Resolver() netip.Addr { return netip.MustParseAddr("10.0.0.1") }

// ready tells which tasks get new connections.
func (n *netTwin) ready() []kernel.TaskID {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []kernel.TaskID
	for _, e := range n.table {
		if e.Ready {
			out = append(out, e.Task)
		}
	}
	return out
}

// world is one machine: its runtime, network and disk, and the agent that runs on it now.
type world struct {
	metrics *metrics.Registry
	t       *testing.T
	rt      runtime.Runtime
	procs   *process.Runtime
	net     *netTwin

	dial    func(context.Context, string) (net.Conn, error)
	network agent.Network // what the agent gets: net, or something around it
	cfg     agent.Config
	log     *logBuffer
	secrets agent.Secrets
	around  func(stage string, undo bool, do func() error) error // see Agent.AroundStages; nil: nothing

	master *master
	stop   func() error // ends the agent as a kill would: its context, at once
	cancel atomic.Pointer[context.CancelFunc]
	agent  *agent.Agent
}

// logBuffer keeps the log for when a test fails.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	procs, err := process.New(filepath.Join(dir, "containers"), "example/image:1")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, rt: procs, procs: procs, net: newNetTwin(), log: &logBuffer{}, master: newMaster(t)}
	w.network = w.net
	w.cfg = agent.Config{State: filepath.Join(dir, "agent"), Hostname: "host1", Address: netip.MustParseAddr("127.0.0.1"),
		Boot: "boot-1", Masters: []string{w.master.address()}, TLS: w.master.clientTLS, Drain: 20 * time.Millisecond,
		Heartbeat: 50 * time.Millisecond, BackoffMax: 50 * time.Millisecond, Reconcile: 200 * time.Millisecond,
		LogInterval: 20 * time.Millisecond, DiskInterval: 50 * time.Millisecond, MinFreeDisk: 1, SandboxFree: 1,
		Attributes: map[string]string{"rack": "r1"}, Version: "test"}
	t.Cleanup(func() {
		w.kill()
		w.master.close()
		all, err := procs.Containers(context.Background())
		for _, f := range all {
			err = errors.Join(err, procs.Remove(context.Background(), f.ID))
		}
		if err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", w.log)
		}
	})
	return w
}

// start starts an agent on the machine.
func (w *world) start() {
	w.t.Helper()
	a, err := agent.New(w.cfg, agent.Deps{Runtime: w.rt, Network: w.network, Secrets: w.secrets, Dial: w.dial,
		Metrics: w.metrics, Log: slog.New(slog.NewTextHandler(w.log, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.around != nil {
		a.AroundStages(w.around)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	w.agent = a
	w.cancel.Store(&cancel)
	w.stop = func() error { cancel(); w.stop = nil; return <-done }
}

// kill ends the agent and leaves everything else as it is.
func (w *world) kill() {
	if w.stop == nil {
		return
	}
	if err := w.stop(); err != nil {
		w.t.Errorf("agent ended with %v, want nil", err)
	}
}

// containers lists what runs.
func (w *world) containers() []runtime.Found {
	w.t.Helper()
	all, err := w.procs.Containers(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// eventually waits for something to hold.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); !holds(); time.Sleep(2 * time.Millisecond) { // between looks
		if time.Since(began) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// master is a stub of the other side: it keeps assignments, speaks kernel's frames, judges the statuses it gets.
type master struct {
	t         testing.TB
	ln        net.Listener
	clientTLS *tls.Config
	conns     sync.WaitGroup

	mu       sync.Mutex
	epoch    int64                                   // of Down frames, guarded by mu
	specs    map[kernel.SpecID]kernel.Spec           // guarded by mu
	groups   map[kernel.InstanceID]kernel.Assignment // guarded by mu
	statuses map[kernel.TaskID]kernel.Status         // latest, guarded by mu
	history  map[kernel.TaskID][]kernel.Status       // each once, guarded by mu
	repeats  map[kernel.TaskID]int                   // terminal statuses that came again, guarded by mu
	last     *kernel.Registration                    // guarded by mu
	sessions int                                     // guarded by mu
	live     *masterSession                          // guarded by mu
	mute     bool                                    // acknowledges nothing, guarded by mu
	refuse   bool                                    // takes no connections, guarded by mu
	ends     map[kernel.TaskID]kernel.Endpoint       // guarded by mu
	version  uint64                                  // of ends, guarded by mu
	release  []string                                // told in each session, guarded by mu
	released []string                                // answers, guarded by mu
}

// masterSession is one session.
type masterSession struct {
	conn net.Conn
	cc   *http2.ClientConn
	w    *io.PipeWriter
	mu   sync.Mutex
	seq  uint64 // guarded by mu
	over chan struct{}
	told map[kernel.TaskID]bool // tasks heard of in it; the session's goroutine owns it
}

func newMaster(t testing.TB) *master {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{NextProtos: []string{kernel.Protocol},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	m := &master{t: t, ln: ln, clientTLS: &tls.Config{RootCAs: pool}, epoch: 1, specs: map[kernel.SpecID]kernel.Spec{},
		groups: map[kernel.InstanceID]kernel.Assignment{}, statuses: map[kernel.TaskID]kernel.Status{},
		history: map[kernel.TaskID][]kernel.Status{}, repeats: map[kernel.TaskID]int{},
		ends: map[kernel.TaskID]kernel.Endpoint{}}
	m.conns.Go(m.accept)
	return m
}

func (m *master) address() string { return m.ln.Addr().String() }

func (m *master) close() {
	m.ln.Close()
	m.drop()
	m.conns.Wait()
}

func (m *master) accept() {
	for {
		conn, err := m.ln.Accept()
		if err != nil {
			return
		}
		m.mu.Lock()
		refuse := m.refuse
		m.mu.Unlock()
		if refuse {
			conn.Close()
			continue
		}
		m.conns.Go(func() { m.serve(conn) })
	}
}

// serve runs a session as a master does: registration, sync, statuses, acknowledgements.
func (m *master) serve(conn net.Conn) {
	defer conn.Close()
	cc, err := (&http2.Transport{}).NewClientConn(conn)
	if err != nil {
		return
	}
	r, w := io.Pipe()
	req, _ := http.NewRequest(http.MethodPost, "https://agent"+kernel.SessionPath, r)
	res, err := cc.RoundTrip(req)
	if err != nil {
		return
	}
	defer res.Body.Close()
	s := &masterSession{conn: conn, cc: cc, w: w, over: make(chan struct{}), told: map[kernel.TaskID]bool{}}
	defer close(s.over)
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, kernel.MaxFrame)
	for first := true; lines.Scan(); first = false {
		var up kernel.Up
		if err := json.Unmarshal(lines.Bytes(), &up); err != nil {
			m.t.Errorf("frame %q: %v", lines.Text(), err)
			return
		}
		if first != (up.Register != nil) {
			m.t.Errorf("registration: got %t in frame %d, want it in the first only", up.Register != nil, up.Seq)
		}
		if up.Register != nil {
			m.register(s, up.Register)
		}
		m.mu.Lock()
		m.released = append(m.released, up.Released...)
		m.mu.Unlock()
		m.ack(s, m.take(s, up.Statuses))
	}
	m.mu.Lock()
	if m.live == s {
		m.live = nil
	}
	m.mu.Unlock()
}

func (m *master) register(s *masterSession, r *kernel.Registration) {
	acks := m.take(s, r.Statuses)
	m.mu.Lock()
	m.last, m.live = r, s
	m.sessions++
	d := kernel.Down{Sync: true, Release: m.release, Subnet: netip.MustParsePrefix("10.0.0.0/24"),
		Network: &kernel.NetworkInfo{
			Pool: netip.MustParsePrefix("10.0.0.0/8"), VIPs: netip.MustParsePrefix("198.18.0.0/16")}}
	for _, g := range m.groups {
		d.Assignments = append(d.Assignments, g)
	}
	for _, sp := range m.specs {
		d.Specs = append(d.Specs, sp)
	}
	if r.Endpoints != m.version {
		d.Endpoints = &kernel.EndpointDelta{To: m.version, Full: true, Set: slices.Collect(maps.Values(m.ends))}
	}
	epoch := m.epoch
	m.mu.Unlock()
	s.send(epoch, d)
	m.ack(s, acks)
}

func (m *master) ack(s *masterSession, acks []kernel.StatusAck) {
	m.mu.Lock()
	epoch := m.epoch
	m.mu.Unlock()
	if len(acks) > 0 {
		s.send(epoch, kernel.Down{Acks: acks})
	}
}

// send gives a frame its number.
func (s *masterSession) send(epoch int64, d kernel.Down) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	d.Epoch, d.Seq = epoch, s.seq
	b, _ := json.Marshal(d)
	_, _ = s.w.Write(append(b, '\n'))
}

// take judges statuses: each task's numbers rise by one, with no gap, and nothing follows a terminal one. It answers
// with the acknowledgements.
func (m *master) take(s *masterSession, all []kernel.Status) (acks []kernel.StatusAck) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, st := range all {
		was, seen := m.statuses[st.Task]
		switch {
		case seen && st.Seq <= was.Seq:
			if st.Seq == was.Seq && st.State != was.State {
				m.t.Errorf("task %s: status %d was %s and is now %s", st.Task, st.Seq, was.State, st.State)
			}
			if was.State.Terminal() {
				m.repeats[st.Task]++
			}
		case seen && was.State.Terminal():
			m.t.Errorf("task %s: got %s after %s", st.Task, st.State, was.State)
		default:
			if seen && st.Seq > was.Seq+1 && s.told[st.Task] { // the first of a session is the latest only
				m.t.Errorf("task %s: status %d after %d", st.Task, st.Seq, was.Seq)
			}
			s.told[st.Task] = true
			m.statuses[st.Task] = st
			m.history[st.Task] = append(m.history[st.Task], st)
		}
		if st.State.Terminal() && !m.mute {
			acks = append(acks, kernel.StatusAck{Task: st.Task, Seq: st.Seq})
			delete(m.groups, st.Instance)
		}
	}
	return acks
}

// drop breaks the session.
func (m *master) drop() {
	m.mu.Lock()
	s := m.live
	m.mu.Unlock()
	if s != nil {
		s.conn.Close()
		<-s.over
	}
}

// connected waits for a session later than the given number of them.
func (m *master) connected(after int) *masterSession {
	m.t.Helper()
	var s *masterSession
	eventually(m.t, "a session", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		s = m.live
		return s != nil && m.sessions > after
	})
	return s
}

// send sends a frame in the live session, if there is one; the next session's sync says the same.
func (m *master) send(d kernel.Down) {
	m.mu.Lock()
	s, epoch := m.live, m.epoch
	m.mu.Unlock()
	if s != nil {
		s.send(epoch, d)
	}
}

// launch assigns an instance.
func (m *master) launch(spec kernel.Spec, g kernel.Assignment) {
	m.t.Helper()
	spec, err := spec.Seal()
	if err != nil {
		m.t.Fatal(err)
	}
	g.Spec = spec.ID
	g.Goal = cmp.Or(g.Goal, kernel.GoalRun)
	m.mu.Lock()
	m.specs[spec.ID], m.groups[g.ID] = spec, g
	m.mu.Unlock()
	m.send(kernel.Down{Specs: []kernel.Spec{spec}, Assignments: []kernel.Assignment{g}})
}

// end asks for an instance's end.
func (m *master) end(id kernel.InstanceID) {
	m.mu.Lock()
	g, ok := m.groups[id]
	g.Goal, g.Why = kernel.GoalStop, "scaled down"
	if ok {
		m.groups[id] = g
	}
	m.mu.Unlock()
	if ok {
		m.send(kernel.Down{Assignments: []kernel.Assignment{g}})
	}
}

func (m *master) status(t kernel.TaskID) kernel.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statuses[t]
}

// reaches waits for a task's status to be in a state.
func (m *master) reaches(t kernel.TaskID, want kernel.State) kernel.Status {
	m.t.Helper()
	var got kernel.Status
	eventually(m.t, fmt.Sprintf("task %s in %s", t, want), func() bool {
		if got = m.status(t); got.State.Terminal() && got.State != want {
			m.t.Fatalf("task %s: got %s (%s: %s), want %s", t, got.State, got.Reason, got.Message, want)
		}
		return got.State == want
	})
	return got
}

// request asks the agent on the connection of the session.
func (m *master) request(method, path string, body io.Reader) *http.Response {
	m.t.Helper()
	s := m.connected(0)
	req, err := http.NewRequestWithContext(m.t.Context(), method, "https://agent"+path, body)
	if err != nil {
		m.t.Fatal(err)
	}
	res, err := s.cc.RoundTrip(req)
	if err != nil {
		m.t.Fatalf("%s %s: %v", method, path, err)
	}
	m.t.Cleanup(func() { res.Body.Close() })
	return res
}

// get reads a whole answer.
func (m *master) get(path string) (int, string) {
	m.t.Helper()
	res := m.request(http.MethodGet, path, nil)
	b, err := io.ReadAll(res.Body)
	if err != nil {
		m.t.Fatalf("%s: %v", path, err)
	}
	return res.StatusCode, string(b)
}

// specOf is a spec of tasks that run shell commands.
func specOf(shell ...string) kernel.Spec {
	s := kernel.Spec{Framework: "marathon", Owner: "/web", Role: "/", Network: kernel.Network{Mode: kernel.NetworkHost}}
	for i, c := range shell {
		s.Tasks = append(s.Tasks, kernel.TaskSpec{Name: fmt.Sprintf("t%d", i), Suffix: fmt.Sprintf(".t%d", i), Shell: c,
			Guarantee: kernel.Resources{MilliCPU: 100, Mem: 32 * kernel.MiB}})
	}
	return s
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
