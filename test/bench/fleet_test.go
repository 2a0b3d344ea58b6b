package bench

//lint:file-ignore SA1019 one connection that the other side dialed: net/http serves listeners and dials itself

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/test/testbed"
)

const (
	stubs     = 1000
	instances = 10_000
	rounds    = 3
	telling   = 3 * time.Second // for how long, after all run, agents are told where, at most
	reads     = 500             // of the API while the fleet stands, each round
)

// BenchmarkFleet measures the real daemon by its API: one app from none to 10,000 instances on 1,000 stub agents.
func BenchmarkFleet(b *testing.B) {
	h, c := open(b, "--pool", "100.64.0.0/10") // a /24 for each agent
	pid, err := h.PID("daemon")
	if err != nil {
		b.Fatal(err)
	}
	empty := pss(b, pid)
	f := join(b, h, stubs)
	defer f.leave()
	var machines struct{ Machines []struct{ Connected bool } }
	testbed.Until(b, patience, "all stubs to have joined", func() error {
		c.Ask(b, "GET", "/machines/v1", nil, 200, &machines)
		n := 0
		for _, m := range machines.Machines {
			if m.Connected {
				n++
			}
		}
		if n <= stubs {
			return fmt.Errorf("%d machines are connected", n)
		}
		return nil
	})

	app := sleeper(h, "/big", 0).With(testbed.Definition{"constraints": [][]string{{"stub", "IS", "yes"}}})
	c.Ask(b, "POST", testbed.Marathon+"/apps", app, 201, nil)
	c.Settle(b, "/big", patience)
	var answered, placed, ran, gone, busy, read []time.Duration
	var full float64
	for range rounds {
		begin := time.Now()
		c.Ask(b, "PATCH", testbed.Marathon+"/apps/big", testbed.Definition{"instances": instances}, 200, nil)
		answered = append(answered, time.Since(begin))
		placed = append(placed, counted(b, c, begin, func(staged, running int) bool { return staged+running >= instances }))
		ran = append(ran, counted(b, c, begin, func(_, running int) bool { return running >= instances }))
		c.Settle(b, "/big", patience)
		full = pss(b, pid)
		ask := func() time.Duration {
			begin := time.Now()
			c.Ask(b, "GET", testbed.Marathon+"/apps?id=/big", nil, 200, nil)
			return time.Since(begin)
		}
		for told := time.Now().Add(telling); time.Now().Before(told); {
			busy = append(busy, ask())
		}
		for range reads {
			read = append(read, ask())
		}
		begin = time.Now()
		c.Ask(b, "PATCH", testbed.Marathon+"/apps/big", testbed.Definition{"instances": 0}, 200, nil)
		c.Settle(b, "/big", patience)
		gone = append(gone, time.Since(begin))
	}
	c.Remove(b, "/big")
	how := fmt.Sprintf("median of %d and worst; %d stub agents and the daemon on the same cores, TLS, etcd with fsync, HTTPS API, VIP and host port", rounds, stubs)
	row(b, "one app, 0 to 10,000 instances: request answered", median(answered), "", how)
	row(b, "the same: all placed, durable and seen by the API", median(placed), "0.5 s (20,000 a second)", how)
	row(b, "the same: all running by the API", median(ran), "1 s", how)
	row(b, "one app, 10,000 to 0 instances: all gone by the API", median(gone), "", how)
	row(b, "API while agents are told of 10,000 new endpoints", spread(busy), "", fmt.Sprintf("%d times GET /v2/apps, HTTPS, in the first %v of each round", len(busy), telling))
	row(b, "API with 10,000 tasks", spread(read), "p99 10 ms", fmt.Sprintf("%d times GET /v2/apps, HTTPS", len(read)))
	row(b, "daemon with etcd, 1,000 agents and 10,000 tasks", fmt.Sprintf("%.0f MiB, %.0f MiB before", full, empty), "", "PSS")
}

func median(times []time.Duration) string {
	return fmt.Sprintf("%s, worst %s", brief(middle(times)), brief(slices.Max(times)))
}

// counted waits until the API counts as many tasks as enough wants, and returns how long that took since begin.
func counted(b *testing.B, c *testbed.Client, begin time.Time, enough func(staged, running int) bool) time.Duration {
	b.Helper()
	var counts struct {
		Apps []struct{ TasksStaged, TasksRunning int }
	}
	testbed.Until(b, patience, "10,000 instances", func() error {
		c.Ask(b, "GET", testbed.Marathon+"/apps?id=/big", nil, 200, &counts)
		if a := counts.Apps[0]; !enough(a.TasksStaged, a.TasksRunning) {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	return time.Since(begin)
}

// crowd is stub agents in this process: what they are told to run runs at once, what they are told to stop ends at
// once.
type crowd struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// join connects n stubs with certificates that the daemon signs.
func join(b *testing.B, h *testbed.Datacenter, n int) *crowd {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(h.Must(b, "token", "ca")))
	admin := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.State, "run", "admin.sock"))
	}}}
	ctx, cancel := context.WithCancel(b.Context())
	c := &crowd{cancel: cancel}
	for i := range n {
		id := fmt.Sprintf("stub-%04d", i)
		resp, err := admin.Post("http://admin/agent/certificate?id="+id, "application/octet-stream", bytes.NewReader(csr))
		if err != nil {
			b.Fatal(err)
		}
		der, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatalf("certificate of %s: %s %s %v", id, resp.Status, der, err)
		}
		conn, err := tls.Dial("tcp", h.Agents, &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{kernel.Protocol},
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		if err != nil {
			b.Fatal(err)
		}
		s := &stub{ctx: ctx, id: kernel.AgentID(id), statuses: map[kernel.TaskID]kernel.Status{}, specs: map[kernel.SpecID]kernel.Spec{}}
		mux := http.NewServeMux()
		mux.HandleFunc("POST "+kernel.SessionPath, s.session)
		c.wait.Go(func() { (&http2.Server{}).ServeConn(conn, &http2.ServeConnOpts{Handler: mux}) })
		context.AfterFunc(ctx, func() { conn.Close() })
	}
	return c
}

func (c *crowd) leave() {
	c.cancel()
	c.wait.Wait()
}

// stub is one agent without containers.
type stub struct {
	ctx      context.Context // of the crowd: handlers have no other way to hear of its end
	id       kernel.AgentID
	statuses map[kernel.TaskID]kernel.Status // owned by session, as are specs
	specs    map[kernel.SpecID]kernel.Spec
}

func (s *stub) session(w http.ResponseWriter, r *http.Request) {
	out := make(chan []kernel.Status, 1024)
	ctx, cancel := context.WithCancel(s.ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() { s.send(ctx, w, out) })
	for lines := bufio.NewReaderSize(r.Body, 64<<10); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		if at := bytes.Index(line, []byte(`,"endpoints":`)); at > 0 {
			line = append(line[:at], '}') // a stub makes nothing of them
		}
		var d kernel.Down
		if err := json.Unmarshal(line, &d); err != nil {
			return
		}
		if news := s.apply(&d); len(news) > 0 {
			out <- news
		}
	}
}

func (s *stub) apply(d *kernel.Down) (news []kernel.Status) {
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
	up := kernel.Up{Register: &kernel.Registration{Incarnation: string(s.id), Boot: "boot", Statuses: []kernel.Status{},
		Agent: kernel.Agent{ID: s.id, Hostname: string(s.id), Address: netip.MustParseAddr("192.0.2.1"), Attributes: map[string]string{"stub": "yes"},
			Total: kernel.Resources{MilliCPU: 64_000, Mem: 64 * kernel.GiB, Disk: 100 * kernel.GiB},
			Ports: kernel.PortRange{First: 31000, Last: 32000}, Version: "stub"}}}
	beat := time.NewTicker(kernel.HeartbeatInterval)
	defer beat.Stop()
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
	}
}
