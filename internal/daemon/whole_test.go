package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/identity/ca"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/settings"
	"github.com/marinaos/marina/internal/store/memory"
)

// limit bounds what a test waits for.
const limit = 60 * time.Second

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	late := time.After(limit)
	for !so() {
		select {
		case <-late:
			t.Fatalf("%s: not within %v", what, limit)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// running is a whole daemon in the test's process: real store, certificates, gateway and admin socket. Its agent is
// this program again, which only says that it lives.
type running struct {
	*config
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

// port is one of loopback that nobody has at the moment.
func port(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func loopback(t *testing.T) settings.Datacenter {
	s := given(t)
	s.Advertise, s.Hostname = "127.0.0.1", "here"
	s.HTTPS, s.HTTP, s.AgentPort = port(t), port(t), port(t)
	return s
}

// start runs a daemon until the test ends, or stop.
func start(t *testing.T, s settings.Datacenter) *running {
	t.Helper()
	c, err := resolve(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.path("log"), 0o700); err != nil { // up makes it
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d := &running{config: c, t: t, stop: stop, done: make(chan error, 1)}
	go func() { d.done <- Run(ctx, s) }()
	t.Cleanup(func() {
		d.end()
		endAgent(t, c)
	})
	return d
}

// endAgent ends the agent of a state that nobody keeps any more. One that was only just started may not have said yet
// who it is.
func endAgent(t *testing.T, c *config) {
	if err := os.Remove(c.path("run", "agent.build")); err != nil {
		return // none was started, or it was ended
	}
	pid := durable.Holder(c.agentPID())
	for late := time.After(5 * time.Second); pid == 0; pid = durable.Holder(c.agentPID()) {
		select {
		case <-late:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := end(context.Background(), pid, time.Second); err != nil {
		t.Error(err)
	}
}

// end stops the daemon and returns what Run returned.
func (d *running) end() error {
	d.stop()
	select {
	case err := <-d.done:
		d.done <- nil
		return err
	case <-time.After(limit):
		d.t.Error("the daemon does not end")
		return nil
	}
}

// ask sends a request to the admin socket.
func (d *running) ask(method, path string, body io.Reader) (status int, answer []byte) {
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.socket())
		}}}
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://admin"+path, body)
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := hc.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil
	}
	return resp.StatusCode, answer
}

// told is what GET /info answers.
type told struct {
	URL, HTTP, CA, State, Build, Resolver string
	PID                                   int
	Healthy                               bool
	Units                                 []unit
}

func (d *running) info() (i told) {
	if status, b := d.ask(http.MethodGet, "/info", nil); status != http.StatusOK || json.Unmarshal(b, &i) != nil {
		return told{}
	}
	return i
}

func (i told) unit(name string) unit {
	for _, u := range i.Units {
		if u.Name == name {
			return u
		}
	}
	return unit{Output: "there is none"}
}

// leads waits until the daemon leads.
func (d *running) leads() told {
	d.t.Helper()
	var i told
	await(d.t, "a leader", func() bool {
		select {
		case err := <-d.done:
			d.t.Fatalf("the daemon ended: %v", err)
		default:
		}
		i = d.info()
		return i.unit("master").Healthy
	})
	return i
}

// agent waits until the machine's agent runs and returns its process.
func (d *running) agent() (pid int) {
	d.t.Helper()
	await(d.t, "an agent", func() bool {
		pid = durable.Holder(d.agentPID())
		return pid != 0
	})
	return pid
}

// get asks the gateway, with a token of the admin socket's.
func (d *running) get(i told, path string) (status int, answer string) {
	d.t.Helper()
	_, b := d.ask(http.MethodPost, "/token", strings.NewReader(`{"description":"test","ttlSeconds":600}`))
	var token struct{ Token string }
	if err := json.Unmarshal(b, &token); err != nil {
		d.t.Fatalf("token: %v", err)
	}
	_, pool, err := d.readDatacenter()
	if err != nil {
		d.t.Fatal(err)
	}
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, i.URL+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Token)
	resp, err := hc.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}

// served is get, once who answers has loaded what it leads with: until then it answers 503.
func (d *running) served(i told, path string) (status int, answer string) {
	d.t.Helper()
	await(d.t, path, func() bool {
		status, answer = d.get(i, path)
		return status != http.StatusServiceUnavailable
	})
	return status, answer
}

func TestADaemonTellsOnItsSocketHowTheDatacenterIs(t *testing.T) {
	s := loopback(t)
	d := start(t, s)
	i := d.leads()
	if i.URL != "https://"+s.HTTPS || i.HTTP != "http://"+s.HTTP || i.State != d.State || i.PID != os.Getpid() ||
		i.Build != Build() || i.Resolver != "" {
		t.Errorf("told %+v, want where it listens and which process it is", i)
	}
	if !i.unit("store").Healthy || !i.unit("services").Healthy || !i.unit("kubernetes").Healthy ||
		!i.unit("audit").Healthy {
		t.Errorf("units %+v, want store, schedulers and audit well", i.Units)
	}
	if agent := i.unit("agent"); agent.Healthy || agent.Output != "this machine has not joined yet" || i.Healthy {
		t.Errorf("agent %+v, all healthy %v, want that this machine has not joined", agent, i.Healthy)
	}
	if !Running(s) {
		t.Error("Running says no, want yes while it runs")
	}
	agent := d.agent()

	status, health := d.get(i, "/system/health/v1")
	var report struct {
		Units []struct {
			ID, Help string
			Health   int
		}
		Hostname string
	}
	if err := json.Unmarshal([]byte(health), &report); err != nil || status != http.StatusOK || report.Hostname != "here" {
		t.Errorf("health: %d %s (%v)", status, health, err)
	}
	well := map[string]bool{}
	for _, u := range report.Units {
		well[u.ID] = u.Health == 0
		if u.Help != "less "+d.path("log", "daemon.log") {
			t.Errorf("unit %s helps by %q", u.ID, u.Help)
		}
	}
	if !well["marina-store.service"] || !well["marina-master.service"] || !well["marina-services.service"] ||
		well["marina-agent.service"] {
		t.Errorf("health tells %v, want all but the agent well", well)
	}
	for path, want := range map[string]int{"/v2/info": 200, "/marathon/v2/apps": 200,
		"/service/marathon/v2/deployments": 200, "/machines/v1": 200, "/quota/v1": 200,
		"/net/v1/vips": 200, "/images/v1": 200, "/kubernetes/v1/clusters": 200, "/tasks/v1/none": 404, "/nowhere": 404} {
		if status, answer := d.served(i, path); status != want {
			t.Errorf("GET %s: %d %.200s, want %d", path, status, answer, want)
		}
	}
	if status, metrics := d.get(i, "/metrics"); status != http.StatusOK ||
		!strings.Contains(metrics, "marina_leading 1") || !strings.Contains(metrics, "marina_alarms 0") {
		t.Errorf("metrics: %d, want that it leads and has no alarms", status)
	}

	if err := d.end(); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if Running(s) {
		t.Error("Running says yes, want no once it ended")
	}
	if pid := durable.Holder(d.agentPID()); pid != agent {
		t.Errorf("the agent is process %d, want %d to outlive the daemon", pid, agent)
	}
}

func TestADatacenterIsItselfAfterEachStart(t *testing.T) {
	s := loopback(t)
	first := start(t, s)
	ca := first.leads().CA
	id, _, err := first.readDatacenter()
	if err != nil {
		t.Fatal(err)
	}
	agent := first.agent()
	if err := Run(t.Context(), s); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "daemon.pid") {
		t.Errorf("a second daemon on the state: %v, want it refused while the first runs", err)
	}
	first.end()

	s.Pool = "10.99.0.0/16"
	if err := Run(t.Context(), s); !errdefs.IsInvalidArgument(err) {
		t.Errorf("with another pool: %v, want it refused", err)
	}
	s.Pool = ""
	again := start(t, s)
	if got := again.leads(); got.CA != ca {
		t.Errorf("its CA is\n%s\nwant the first start's\n%s", got.CA, ca)
	}
	if later, _, err := again.readDatacenter(); err != nil || later != id {
		t.Errorf("datacenter %s (%v), want %s", later, err, id)
	}
	if pid := again.agent(); pid != agent {
		t.Errorf("the agent is process %d, want %d adopted: its build and settings are the same", pid, agent)
	}
	again.end()

	s.Hostname = "elsewhere"
	other := start(t, s)
	other.leads()
	await(t, "an agent with the new settings", func() bool {
		pid := durable.Holder(other.agentPID())
		return pid != 0 && pid != agent
	})
	other.end()

	if err := os.Remove(other.rootKey()); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), s); err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("with another root key: %v, want a refusal: what the store has sealed is lost", err)
	}
}

func TestAgentsGetCertificatesThatNameThemAndNothingElse(t *testing.T) {
	d := start(t, loopback(t))
	d.leads()
	id, err := d.agentID()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := d.askCertificate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	subject, err := ca.SubjectOf(cert.Leaf)
	dc, pool, derr := d.readDatacenter()
	if err != nil || derr != nil || subject.ID != id || subject.Role != ca.Agent || subject.Datacenter != dc {
		t.Errorf("certified as %+v (%v, %v), want agent %s of %s", subject, err, derr, id, dc)
	}
	if status, b := d.ask(http.MethodPost, "/agent/certificate?id="+id,
		strings.NewReader("no request")); status != http.StatusBadRequest {
		t.Errorf("what is no request: %d %s, want 400", status, b)
	}
	if status, _ := d.ask(http.MethodPost, "/agent/certificate?id="+id,
		bytes.NewReader(make([]byte, 2*maxRequest))); status == http.StatusOK {
		t.Error("a request of any size was signed")
	}

	// With it, and not without it, the agent's port answers.
	conf := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{*cert}, ServerName: "127.0.0.1",
		NextProtos: []string{"h2"}}
	source := ca.NewSource(d.logger(), d.askCertificate)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: ca.ClientTLS(source, pool, dc),
		ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	if _, err := (secrets{"https://" + d.AgentPort, client}).Secret(t.Context(), "none/of-mine"); err == nil ||
		errdefs.IsUnauthorized(err) {
		t.Errorf("a secret of no task of the agent's: %v, want a refusal of the secret", err)
	}
	conf.Certificates = nil
	if c, err := tls.Dial("tcp", d.AgentPort, conf); err == nil {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a stranger without a certificate was served")
		}
		c.Close()
	}
}

func TestWithoutADaemonAnAgentGetsNoCertificate(t *testing.T) {
	c := completed(t)
	if _, err := c.askCertificate(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want that the daemon does not answer", err)
	}
}

func TestAPortThatIsTakenEndsNoDaemon(t *testing.T) {
	s := loopback(t)
	holder, err := net.Listen("tcp", s.AgentPort)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	d := start(t, s)
	await(t, "its socket", func() bool { return d.info().State != "" })
	i := d.info()
	if lead := i.unit("master"); lead.Healthy || lead.Output != "no leader" {
		t.Errorf("master %+v, want that there is no leader while its port is taken", lead)
	}
	status, answer := d.get(i, "/v2/apps")
	if status != http.StatusServiceUnavailable || !strings.Contains(answer, "no leader") {
		t.Errorf("apps without a leader: %d %s, want 503", status, answer)
	}
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	d.leads()
	if status, answer := d.served(i, "/v2/apps"); status != http.StatusOK {
		t.Errorf("apps with a leader: %d %.200s, want 200", status, answer)
	}
}

func TestSecretsAreForAgentsOnly(t *testing.T) {
	root, err := identity.NewRootKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{config: completed(t)}
	if d.authority, err = ca.Open(t.Context(), memory.New(), root, "dc-1"); err != nil {
		t.Fatal(err)
	}
	for what, tc := range map[string]struct {
		method string
		tls    *tls.ConnectionState
		want   int
	}{
		"in clear":   {http.MethodGet, nil, http.StatusMethodNotAllowed},
		"written":    {http.MethodPut, &tls.ConnectionState{}, http.StatusMethodNotAllowed},
		"by anybody": {http.MethodGet, &tls.ConnectionState{}, http.StatusForbidden},
	} {
		req := httptest.NewRequestWithContext(t.Context(), tc.method, kernel.SecretsPath+"x", nil)
		req.TLS = tc.tls
		w := httptest.NewRecorder()
		d.serveSecret(w, req, "x")
		if w.Code != tc.want {
			t.Errorf("%s: %d %s, want %d", what, w.Code, w.Body, tc.want)
		}
	}
}
