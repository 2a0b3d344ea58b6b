package kubernetes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kernel/kerneltest"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/kubernetes/wire"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

// patience bounds every wait of a test.
const patience = 60 * time.Second

// world is clusters on the kernel's twin, with stewards that are told what to say.
type world struct {
	t      *testing.T
	kernel *kerneltest.Kernel
	faults *faults // between clusters and the kernel and the store
	memory *memory.Store
	store  store.Store
	exec   func(ctx context.Context, task kernel.TaskID, argv []string, in io.Reader, out io.Writer) (int, error)
	root   *identity.RootKey
	quotas []kernel.QuotaView
	images string

	mu       sync.Mutex
	stewards map[string]*standIn // by host:port they stand in for; guarded by mu

	clusters *Clusters
	ended    chan error // Run's, once
	stop     func()
}

// faults stands between clusters and what they work with. Each function may be set to fail or panic; nil: nothing
// goes wrong.
type faults struct {
	*kerneltest.Kernel

	mu      sync.Mutex
	launch  func(kernel.LaunchRequest) error // guarded by mu, as all below
	release func(reservation string) error   //
	expose  func(owner string) error         //
	get     func(key string) error           //
	exposed []string                         // owners, of every call
}

func (f *faults) set(change func(*faults)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// Launch fails as it is told.
func (f *faults) Launch(ctx context.Context, r kernel.LaunchRequest) (kernel.LaunchResult, error) {
	f.mu.Lock()
	fail := f.launch
	f.mu.Unlock()
	if fail != nil {
		if err := fail(r); err != nil {
			return kernel.LaunchResult{}, err
		}
	}
	return f.Kernel.Launch(ctx, r)
}

// Release fails as it is told.
func (f *faults) Release(ctx context.Context, framework string, reservations []string) error {
	f.mu.Lock()
	fail := f.release
	f.mu.Unlock()
	if fail != nil {
		if err := fail(reservations[0]); err != nil {
			return err
		}
	}
	return f.Kernel.Release(ctx, framework, reservations)
}

// Expose notes whose it is, and fails as it is told.
func (f *faults) Expose(ctx context.Context, framework, owner string, ports []kernel.Port) ([]kernel.EndpointPort,
	error) {
	f.mu.Lock()
	fail := f.expose
	f.exposed = append(f.exposed, owner)
	f.mu.Unlock()
	if fail != nil {
		if err := fail(owner); err != nil {
			return nil, err
		}
	}
	return f.Kernel.Expose(ctx, framework, owner, ports)
}

// shelf is the store behind the faults.
type shelf struct {
	*memory.Store
	f *faults
}

// Get fails as it is told.
func (s *shelf) Get(ctx context.Context, key string) (store.Item, error) {
	s.f.mu.Lock()
	fail := s.f.get
	s.f.mu.Unlock()
	if fail != nil {
		if err := fail(key); err != nil {
			return store.Item{}, err
		}
	}
	return s.Store.Get(ctx, key)
}

// standIn is for the one in a control plane.
type standIn struct {
	gone   chan struct{} // closed when the test ends
	server *httptest.Server

	mu      sync.Mutex
	status  wire.Status    // guarded by mu
	moved   chan struct{}  // closed when status changes; guarded by mu
	desired []wire.Desired // told so far; guarded by mu
}

func newWorld(t *testing.T) *world {
	root, err := identity.NewRootKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, kernel: kerneltest.New(time.Now), memory: memory.New(), root: root, images: t.TempDir(),
		stewards: map[string]*standIn{}}
	w.faults = &faults{Kernel: w.kernel}
	w.store = &shelf{w.memory, w.faults}
	w.exec = func(context.Context, kernel.TaskID, []string, io.Reader, io.Writer) (int, error) { return 0, nil }
	w.kernel.AddAgent("a1", 50)
	w.kernel.Bundle("a1", map[string]string{"kubernetes/v1.37": "v1.37.2"})
	w.kernel.Auto(true)
	w.lead()
	t.Cleanup(func() { w.stop() })
	return w
}

// lead has a new leader begin, after the one before ended.
func (w *world) lead() {
	if w.stop != nil {
		w.stop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := w.store.Campaign(ctx, "master", "test")
	if err != nil {
		w.t.Fatal(err)
	}
	w.clusters = New(Config{Store: w.store, Kernel: w.faults, Fence: l.Fence(), Root: w.root,
		Pool: netip.MustParsePrefix("10.128.0.0/16"),
		VIPs: netip.MustParsePrefix("198.18.0.0/16"), Images: w.images, Dial: w.dial,
		Quotas: func() []kernel.QuotaView { return w.quotas }, Tell: 200 * time.Millisecond,
		Exec: func(ctx context.Context, _ kernel.AgentID, task kernel.TaskID, argv []string, in io.Reader,
			out io.Writer) (int, error) {
			return w.exec(ctx, task, argv, in, out)
		}})
	why, finished, clusters := make(chan error, 1), make(chan struct{}), w.clusters
	w.ended = why
	go func() {
		why <- clusters.Run(ctx)
		close(finished)
	}()
	w.stop = func() {
		cancel()
		<-finished
		_ = l.Resign(context.Background())
		w.stop = func() {}
	}
	if err := clusters.loop.Do(ctx, func(context.Context, *scheduler.Change) error { return nil }); err != nil {
		w.t.Fatalf("clusters ended: %v, %v", err, <-why)
	}
}

// dial leads connections to stewards to those that stand in for them.
func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	s := w.stewards[address]
	w.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("nobody listens at %s", address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, s.server.Listener.Addr().String())
}

// steward begins to answer for a cluster's control plane, with the certificate that its agent gets.
func (w *world) steward(name string) *standIn {
	w.t.Helper()
	m := w.member(name, core.ControlPlane)
	secret, err := w.clusters.Secret(w.t.Context(), "a1", core.SecretRef(name, core.ControlPlane))
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(secret.Files["steward.crt"], secret.Files["steward.key"])
	if err != nil {
		w.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(secret.Files["ca.crt"])
	s := &standIn{moved: make(chan struct{}), gone: make(chan struct{}),
		status: wire.Status{Rev: "1", Version: "v1.37.2", Ready: true, DNS: true}}
	s.status.Addons.Applied, s.status.Probe.Done = true, true
	s.server = httptest.NewUnstartedServer(s)
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert}
	s.server.StartTLS()
	w.t.Cleanup(func() {
		close(s.gone) // or Close waits for a poll that came after all connections were closed
		s.server.CloseClientConnections()
		s.server.Close()
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stewards[netip.AddrPortFrom(netip.MustParseAddr(m.Address), wire.Port).String()] = s
	return s
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if cn := r.TLS.PeerCertificates[0].Subject.CommonName; cn != "marina:datacenter" {
		http.Error(w, cn, http.StatusForbidden)
		return
	}
	if r.Method == http.MethodPut {
		var d wire.Desired
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.change(func(st *wire.Status) {
			s.desired = append(s.desired, d)
			st.Desired = d.Rev
			st.Nodes = slices.DeleteFunc(slices.Clone(st.Nodes),
				func(n wire.NodeStatus) bool { return !slices.Contains(d.Nodes, n.Name) })
		})
		return
	}
	for {
		s.mu.Lock()
		st, moved := s.status, s.moved
		s.mu.Unlock()
		if st.Rev != r.URL.Query().Get("after") {
			_ = json.NewEncoder(w).Encode(st)
			return
		}
		select {
		case <-moved:
		case <-s.gone:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// change changes what the steward says.
func (s *standIn) change(f func(*wire.Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
	s.status.Rev += "+"
	close(s.moved)
	s.moved = make(chan struct{})
}

// join has nodes be ready, once they are wanted: what is said before that takes them out again.
func (s *standIn) join(names ...string) {
	for limit := time.After(patience); !s.wants(names); {
		s.mu.Lock()
		moved := s.moved
		s.mu.Unlock()
		if s.wants(names) {
			break
		}
		select {
		case <-moved:
		case <-limit:
			panic(fmt.Sprintf("the steward is not told to want %v within %v", names, patience))
		}
	}
	s.change(func(st *wire.Status) {
		for _, n := range names {
			st.Nodes = append(slices.Clone(st.Nodes), wire.NodeStatus{Name: n, Ready: true, Version: "v1.37.2"})
		}
	})
}

func (s *standIn) wants(names []string) bool {
	desired := s.lastDesired().Nodes
	return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(desired, n) })
}

func (s *standIn) lastDesired() wire.Desired {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.desired) == 0 {
		return wire.Desired{}
	}
	return s.desired[len(s.desired)-1]
}

// until waits for a cluster to look as it should.
func (w *world) until(name, what string, ok func(View) bool) View {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		v, changed, err := w.clusters.Get(name)
		if err == nil && ok(v) {
			return v
		}
		select {
		case <-changed:
		case <-deadline:
			raw, _ := json.MarshalIndent(v, "", " ")
			w.t.Fatalf("cluster %s: not %s within %v: %v %s", name, what, patience, err, raw)
		}
	}
}

// gone waits until a cluster does not exist any more.
func (w *world) gone(name string) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		_, changed, err := w.clusters.Get(name)
		if err != nil {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			w.t.Fatalf("cluster %s is there after %v", name, patience)
		}
	}
}

// member waits for one to be placed.
func (w *world) member(name, member string) Member {
	w.t.Helper()
	find := func(v View) int {
		return slices.IndexFunc(v.Members, func(m Member) bool { return m.Name == member && m.Task != "" && m.Address != "" })
	}
	v := w.until(name, member+" placed", func(v View) bool { return find(v) >= 0 })
	return v.Members[find(v)]
}

// ready makes a cluster and has it become ready.
func (w *world) ready(d Definition) *standIn {
	w.t.Helper()
	if err := w.clusters.Create(w.t.Context(), d); err != nil {
		w.t.Fatal(err)
	}
	s := w.steward(d.Name)
	count := 1
	if d.Nodes.Count != nil {
		count = *d.Nodes.Count
	}
	for n := range count {
		w.member(d.Name, core.NodeName(n+1))
		s.join(core.NodeName(n + 1))
	}
	w.until(d.Name, "ready", isReady)
	return s
}

func isReady(v View) bool { return v.State == Ready }

// groups lists the placed groups of a cluster.
func (w *world) groups(name string) []kernel.Instance {
	var out []kernel.Instance
	for _, i := range w.kernel.Instances() {
		if strings.HasPrefix(string(i.ID), Framework+"_"+name+"_") {
			out = append(out, i)
		}
	}
	return out
}
