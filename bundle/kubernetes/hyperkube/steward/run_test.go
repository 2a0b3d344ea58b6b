package steward

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// running is a steward at work on a twin of an API server, and the datacenter that asks it.
type running struct {
	t      *testing.T
	api    *twin
	s      *Steward
	client *http.Client
	base   string
	stop   func() error // has it end
}

// run starts a steward whose bundle has one manifest.
func run(t *testing.T, api *twin) *running {
	t.Helper()
	d := testPKI(t, map[string]string{"steward": "marina:steward", "datacenter": datacenterName, "apiserver": "apiserver"})
	d.Server = fmt.Sprintf("https://127.0.0.1:%d", serveTLS(t, d, "apiserver", api))
	d.StateFile, d.Version = filepath.Join(t.TempDir(), "steward.json"), "v1.37.2"
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that was free a moment ago
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	_ = l.Close()
	cfg := &Config{Listen: at, Addons: bundleOf(t, map[string]string{"10-one.yaml": configMap("one")}), TunnelPort: 10260,
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		EgressSocket: filepath.Join(t.TempDir(), "egress.sock")}
	r := &running{t: t, api: api, base: "https://" + at}
	if r.s, err = New(cfg, *d); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.s.Run(ctx) }()
	r.stop = func() error {
		cancel()
		return <-done
	}
	t.Cleanup(func() { cancel() })
	own, err := tls.LoadX509KeyPair(d.pki("datacenter.crt"), d.pki("datacenter.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := d.pool()
	if err != nil {
		t.Fatal(err)
	}
	r.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{own}}}}
	return r
}

// status asks for its status; ok is false while it does not listen.
func (r *running) status() (st Status, ok bool) {
	resp, err := r.client.Get(r.base + "/v1/status")
	if err != nil {
		return st, false
	}
	defer resp.Body.Close()
	return st, json.NewDecoder(resp.Body).Decode(&st) == nil
}

func (r *running) until(what string, holds func(Status) bool) {
	r.t.Helper()
	eventually(r.t, what, func() bool {
		st, ok := r.status()
		return ok && holds(st)
	})
}

// desire tells it what is desired, once it listens.
func (r *running) desire(body string) {
	r.t.Helper()
	eventually(r.t, "it listens", func() bool {
		req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPut, r.base+"/v1/desired", strings.NewReader(body))
		if err != nil {
			r.t.Fatal(err)
		}
		resp, err := r.client.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			r.t.Fatalf("desired: %s", resp.Status)
		}
		return true
	})
}

const aNode = "/api/v1/nodes/"

// nodeObject is a node that is ready.
func nodeObject() object {
	return object{"status": object{"conditions": []object{{"type": "Ready", "status": "True"}},
		"addresses":   []object{{"type": "InternalIP", "address": "10.128.0.7"}},
		"allocatable": object{"cpu": "250m"}, "capacity": object{"memory": "1Gi", "cpu": "4"}}}
}

// A steward from its start to its end: it tells what is there, and what is desired is done.
func TestAStewardShowsItsClusterAndDoesWhatIsDesired(t *testing.T) {
	api := newTwin()
	api.put(aNode+"node-1", "Node", nodeObject())
	api.put(aNode+"node-2", "Node", nodeObject())
	r := run(t, api)
	r.until("it tells what is there", func(st Status) bool {
		return st.Ready && st.Addons.Applied && len(st.Nodes) == 2 && st.Version == "v1.37.2"
	})
	st, _ := r.status()
	if n := st.Nodes[0]; n.Name != "node-1" || !n.Ready || n.Address != "10.128.0.7" || n.MilliCPU != 250 || n.Mem != 1<<30 {
		t.Errorf("node-1: got %+v, want its size as the kubelet tells it", n)
	}
	api.put("/api/v1/namespaces/default/services/web", "Service", object{"metadata": object{"namespace": "default"},
		"spec": object{"type": "LoadBalancer", "ports": []object{{"port": 80, "nodePort": 31234, "protocol": "TCP"}}}})
	r.until("it tells of a load balancer", func(st Status) bool { return len(st.LoadBalancers) == 1 })
	r.desire(`{"rev":"r1","nodes":["node-1"],"loadBalancers":[{"namespace":"default","name":"web","ingress":["198.18.0.7"]}]}`)
	r.until("one node is left, as desired", func(st Status) bool { return len(st.Nodes) == 1 && st.Desired == "r1" })
	if got := api.writes("DELETE /api/v1/nodes"); !slices.Equal(got, []string{"DELETE " + aNode + "node-2"}) {
		t.Errorf("deleted: %v, want node-2 alone", got)
	}
	eventually(t, "the Service is told its address", func() bool {
		return len(api.writes("PATCH /api/v1/namespaces/default/services/web/status")) > 0
	})
	if err := r.stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, ok := r.status(); ok {
		t.Error("it answers after its end")
	}
	if again, err := readState(r.s.state.path); err != nil || again.desired().Rev != "r1" {
		t.Errorf("after a restart: %v, %v", again, err)
	}
}

// What is not seen yet must not be taken for absent, and what is refused is told and tried again.
func TestAServerThatAnswersWronglyIsAskedAgain(t *testing.T) {
	for what, wrong := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"an error": wrongly("/", http.StatusInternalServerError, `{"kind":"Status","status":"Failure","message":"etcd is full","code":500}`),
		"no JSON":  wrongly("/", http.StatusOK, `hello`),
		"nothing":  wrongly("/", http.StatusOK, ``),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			api := newTwin()
			api.put(aNode+"node-1", "Node", nodeObject())
			api.answerWrongly(wrong)
			r := run(t, api)
			r.desire(`{"rev":"r1","nodes":["node-1"]}`)
			eventually(t, "the add-ons are tried", func() bool {
				r.s.board.mu.Lock()
				defer r.s.board.mu.Unlock()
				return r.s.board.addons.Error != ""
			})
			if st, ok := r.status(); !ok || st.Addons.Applied || len(st.Nodes) != 0 {
				t.Errorf("meanwhile: got %+v, want that nothing is seen", st)
			}
			api.answerWrongly(nil)
			r.until("all is well", func(st Status) bool {
				return st.Ready && st.Addons.Applied && st.Addons.Error == "" && len(st.Nodes) == 1
			})
			if got := api.writes("DELETE /api/v1/nodes"); len(got) != 0 {
				t.Errorf("deleted: %v", got)
			}
			if err := r.stop(); err != nil {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// What no repetition mends ends the control plane, with the reason.
func TestAStewardThatCannotListenEnds(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for what, spoil := range map[string]func(*Config, *Deps) string{
		"a port that is taken": func(c *Config, _ *Deps) string { c.Listen = taken.Addr().String(); return "address already in use" },
		"no authority": func(_ *Config, d *Deps) string {
			d.PKIDir = t.TempDir()
			return "ca.crt"
		},
		"no place for the socket": func(c *Config, _ *Deps) string { c.EgressSocket = "/proc/none/egress.sock"; return "egress.sock" },
	} {
		d := testPKI(t, map[string]string{"steward": "marina:steward"})
		d.Server, d.StateFile = "https://127.0.0.1:1", filepath.Join(t.TempDir(), "steward.json")
		cfg := &Config{Listen: "127.0.0.1:0", EgressSocket: filepath.Join(t.TempDir(), "egress.sock")}
		if what != "no authority" { // whose files are read again at each use
			spoil(cfg, d)
		}
		s, err := New(cfg, *d)
		if err != nil {
			t.Fatal(err)
		}
		says := spoil(cfg, &s.deps)
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: it ended with %v, want %q", what, err, says)
		}
	}
}

func TestAStewardNeedsItsFiles(t *testing.T) {
	d := testPKI(t, map[string]string{"steward": "marina:steward"})
	d.Server, d.StateFile = "https://127.0.0.1:1", filepath.Join(t.TempDir(), "steward.json")
	if err := os.WriteFile(d.StateFile, []byte(`{"desired":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(&Config{}, *d); err == nil || !strings.Contains(err.Error(), "state: "+d.StateFile) {
		t.Errorf("a torn state: got %v, want an error that names the file", err)
	}
	d.StateFile += ".other"
	d.PKIDir = t.TempDir()
	if _, err := New(&Config{}, *d); err == nil {
		t.Error("without certificates it was made")
	}
}
