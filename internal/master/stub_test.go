package master_test

//lint:file-ignore SA1019 one connection that the other side dialed: net/http serves listeners and dials itself

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/identity/ca"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master"
	"github.com/marinaos/marina/internal/store"
)

const datacenter = "dc"

// hall is a leading master with a door for agents on loopback.
type hall struct {
	*master.Master
	authority *ca.Authority
	lead      *store.Leadership
	address   string
	ended     chan error // gets what Run returned
}

func lead(t testing.TB, st store.Store, cfg master.Config, change ...func(*master.Deps)) *hall {
	t.Helper()
	raw := make([]byte, 32)
	rand.Read(raw)
	root, err := identity.NewRootKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.Open(t.Context(), st, root, datacenter)
	if err != nil {
		t.Fatal(err)
	}
	return leadWith(t, st, cfg, authority, change...)
}

func leadWith(t testing.TB, st store.Store, cfg master.Config, authority *ca.Authority,
	change ...func(*master.Deps)) *hall {
	t.Helper()
	leadership, err := st.Campaign(t.Context(), "master", "m1")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	source := authority.ServerSource(log, "m1", []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)})
	h := &hall{authority: authority, lead: leadership, address: listener.Addr().String(), ended: make(chan error, 1)}
	deps := master.Deps{Store: st, Leadership: leadership, Log: log, Listener: listener,
		TLS: ca.ServerTLS(source, authority.Pool(), datacenter, ca.Agent),
		AgentID: func(cs tls.ConnectionState) (kernel.AgentID, error) {
			s, err := ca.Peer(cs, datacenter, ca.Agent)
			return kernel.AgentID(s.ID), err
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s", r.Proto,
				r.URL.Path)
		}),
	}
	for _, f := range change {
		f(&deps)
	}
	h.Master = master.New(cfg, deps)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { h.ended <- h.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return h
}

// dial connects as an agent, speaking one of the protocols.
func (h *hall) dial(t testing.TB, id string, protocols ...string) *tls.Conn {
	t.Helper()
	cert, err := h.authority.IssueClient(ca.Agent, id)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", h.address, &tls.Config{Certificates: []tls.Certificate{*cert},
		RootCAs:    h.authority.Pool(),
		ServerName: "localhost", NextProtos: protocols})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// stub is an agent without containers: what it is told to run runs at once, what it is told to stop ends at once.
type stub struct {
	info      kernel.Agent
	conn      net.Conn
	ended     func()      // waits until the master has hung up
	dismissed chan string // gets what it is told when it was removed

	mu        sync.Mutex
	statuses  map[kernel.TaskID]kernel.Status // guarded by mu
	specs     map[kernel.SpecID]kernel.Spec   // guarded by mu
	endpoints int                             // bytes of them received; guarded by mu
	epoch     int64                           // guarded by mu
	frames    int                             // guarded by mu
	applied   uint64                          // guarded by mu
}

func newStub(id string, cpus int64) *stub {
	return &stub{info: kernel.Agent{ID: kernel.AgentID(id), Hostname: id, Address: netip.MustParseAddr("192.0.2.1"),
		Total: kernel.Resources{MilliCPU: cpus, Mem: 64 * kernel.GiB, Disk: 100 * kernel.GiB},
		Ports: kernel.PortRange{First: 31000, Last: 32000}, Version: "stub"}, dismissed: make(chan string, 8),
		statuses: map[kernel.TaskID]kernel.Status{}, specs: map[kernel.SpecID]kernel.Spec{}}
}

// connect starts serving a connection; the test waits for it at its end.
func (s *stub) connect(t testing.TB, h *hall) {
	t.Helper()
	s.conn = h.dial(t, string(s.info.ID), kernel.Protocol)
	conn := s.conn
	var wg sync.WaitGroup
	wg.Go(func() { s.serve(conn) })
	s.ended = wg.Wait
	t.Cleanup(func() {
		conn.Close()
		wg.Wait()
	})
}

// serve answers the master on a connection until it ends.
func (s *stub) serve(conn net.Conn) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+kernel.SessionPath, s.session)
	mux.HandleFunc("GET /agent/v1/tasks/{id}/logs/{stream}", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			http.Error(w, "a token reached the agent", http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%s of %s from %s", r.PathValue("stream"), r.PathValue("id"), r.URL.Query().Get("tail"))
	})
	mux.HandleFunc("POST /agent/v1/tasks/{id}/exec", echo)
	mux.HandleFunc("GET /agent/v1/metrics", func(w http.ResponseWriter,
		_ *http.Request) {
		io.WriteString(w, "marina_agent_groups 1\n")
	})
	mux.HandleFunc("GET /agent/v1/tasks/{id}/files/{path...}", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.PathValue("path"))
	})
	(&http2.Server{}).ServeConn(conn, &http2.ServeConnOpts{Handler: mux})
}

func dialed(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return conn, nil }
}

// echo sends back each line in capitals before the next one comes.
func echo(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush()
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		w.Write(append(bytes.ToUpper(lines.Bytes()), '\n'))
		http.NewResponseController(w).Flush()
	}
}

func (s *stub) session(w http.ResponseWriter, r *http.Request) {
	out := make(chan []kernel.Status, 1024)
	ctx, cancel := context.WithCancel(r.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.send(ctx, w, out) })
	defer wg.Wait()
	defer cancel()
	lines := bufio.NewReaderSize(r.Body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var d kernel.Down
		s.mu.Lock()
		if at := bytes.Index(line, []byte(`,"endpoints":`)); at > 0 {
			s.endpoints += len(line) - at
			line = append(line[:at], '}') // a stub makes nothing of them
		}
		s.mu.Unlock()
		if err := json.Unmarshal(line, &d); err != nil {
			return
		}
		if statuses := s.apply(&d); len(statuses) > 0 {
			out <- statuses
		}
	}
}

func (s *stub) apply(d *kernel.Down) (news []kernel.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = d.Epoch
	s.frames++
	s.applied = d.Seq
	if d.Removed != "" {
		clear(s.statuses)
		s.dismissed <- d.Removed
	}
	for _, sp := range d.Specs {
		s.specs[sp.ID] = sp
	}
	for _, g := range d.Assignments {
		sp := s.specs[g.Spec]
		for _, id := range sp.TaskIDs(g.ID) {
			st, known := s.statuses[id]
			if known && (st.State.Terminal() || g.Goal == kernel.GoalRun) {
				continue
			}
			st.Task, st.Instance, st.Time = id, g.ID, time.Now()
			st.Seq++
			st.State = kernel.Running
			if g.Goal == kernel.GoalStop {
				st.State, st.Reason = kernel.Killed, kernel.ReasonKilled
			}
			s.statuses[id] = st
			news = append(news, st)
		}
	}
	for _, a := range d.Acks {
		delete(s.statuses, a.Task)
	}
	return news
}

func (s *stub) send(ctx context.Context, w http.ResponseWriter, out <-chan []kernel.Status) {
	reg := kernel.Registration{Agent: s.info, Incarnation: string(s.info.ID), Boot: "boot", Statuses: []kernel.Status{}}
	s.mu.Lock()
	for _, st := range s.statuses {
		reg.Statuses = append(reg.Statuses, st)
	}
	s.mu.Unlock()
	beat := time.NewTicker(kernel.HeartbeatInterval)
	defer beat.Stop()
	up := kernel.Up{Register: &reg}
	for seq := uint64(1); ; seq++ {
		up.Seq = seq
		if json.NewEncoder(w).Encode(&up) != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		up = kernel.Up{}
		select {
		case up.Statuses = <-out:
		case <-beat.C:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		up.Applied = s.applied
		s.mu.Unlock()
	}
}

func (s *stub) count(state kernel.State) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.statuses {
		if st.State == state {
			n++
		}
	}
	return n
}

// app is a sealed spec of small instances.
func app(t testing.TB, owner string) kernel.Spec {
	t.Helper()
	sp, err := kernel.Spec{Framework: "marathon", Owner: owner, Version: "1", Role: "/", Discovery: "app",
		Network: kernel.Network{Mode: kernel.NetworkBridge}, Tasks: []kernel.TaskSpec{{Name: "_app", Suffix: "._app.1",
			Image:     "image",
			Guarantee: kernel.Resources{MilliCPU: 100, Mem: 32 * kernel.MiB}, Ports: []kernel.Port{{Name: "web", Protocol: "tcp",
				Container: 8080, VIPs: []kernel.VIP{{Name: "app", Port: 80}}}}}}}.Seal()
	if err != nil {
		t.Fatal(err)
	}
	return sp
}

func ids(prefix string, n int) []kernel.InstanceID {
	out := make([]kernel.InstanceID, n)
	for k := range out {
		out[k] = kernel.InstanceID(fmt.Sprintf("%s.instance-%08d-0000-0000-0000-000000000000", prefix, k))
	}
	return out
}

// follow reads a watch until it has seen enough, and keeps the latest of each instance.
func follow(t testing.TB, w kernel.InstanceWatch, enough func(map[kernel.InstanceID]kernel.Instance,
	kernel.Changes) bool) map[kernel.InstanceID]kernel.Instance {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	seen := map[kernel.InstanceID]kernel.Instance{}
	for {
		c, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("watch with %d instances: %v", len(seen), err)
		}
		for _, i := range c.Instances {
			seen[i.ID()] = i.Instance()
		}
		if enough(seen, c) {
			return seen
		}
	}
}

// agents waits until n agents are connected.
func (h *hall) agents(t testing.TB, n int) {
	t.Helper()
	w := h.Watch("")
	defer w.Close()
	follow(t, w, func(map[kernel.InstanceID]kernel.Instance, kernel.Changes) bool {
		up := 0
		for _, a := range h.Agents() {
			if a.Connected {
				up++
			}
		}
		return up >= n
	})
}
