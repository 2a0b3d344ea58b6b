package steward

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kubernetes/pki"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// patience bounds every wait of a test.
const patience = 20 * time.Second

var here = netip.MustParseAddr("10.128.0.5")

// world is followers, and a control plane with a steward that is told what to say.
type world struct {
	t         *testing.T
	followers *Followers
	keys      *pki.Authorities
	heard     chan Word
	wg        sync.WaitGroup
	server    *httptest.Server

	mu     sync.Mutex
	answer func(http.ResponseWriter, *http.Request) // of a status; guarded by mu, as all below
	told   []wire.Desired
	dials  []string
	down   bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	keys, err := pki.New("a", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, keys: keys, heard: make(chan Word, 100)}
	w.say("1", 0)
	files, err := keys.Files(pki.Subject{Plane: here, Services: here}, false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(files["steward.crt"], files["steward.key"])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(keys.CA)
	w.server = httptest.NewUnstartedServer(w)
	w.server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert}
	w.server.StartTLS()
	ctx, cancel := context.WithCancel(context.Background())
	w.followers = New(Config{Dial: w.dial, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Go:   func(f func(context.Context) error) { w.wg.Go(func() { _ = f(ctx) }) },
		Keys: func(context.Context, string) (*pki.Authorities, error) { return w.keys, nil },
		Hear: func(ctx context.Context, h Word) {
			select {
			case w.heard <- h:
			case <-ctx.Done():
			}
		}})
	t.Cleanup(func() {
		cancel()
		w.wg.Wait() // nobody is followed any more
		w.server.CloseClientConnections()
		w.server.Close()
	})
	return w
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dials = append(w.dials, address)
	down := w.down
	w.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	return (&net.Dialer{}).DialContext(ctx, network, w.server.Listener.Addr().String())
}

// say has the steward answer a poll of another revision at once, and others not at all.
func (w *world) say(rev string, pods int) {
	w.answers(func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("after") == rev {
			<-r.Context().Done()
			return
		}
		_ = json.NewEncoder(out).Encode(wire.Status{Rev: rev, Pods: wire.PodsStatus{Running: pods}})
	})
}

func (w *world) answers(f func(http.ResponseWriter, *http.Request)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = f
}

func (w *world) reachable(is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = !is
}

// cut closes all connections, as a control plane that restarts does.
func (w *world) cut() { w.server.CloseClientConnections() }

func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if cn := r.TLS.PeerCertificates[0].Subject.CommonName; cn != "marina:datacenter" {
		http.Error(out, cn, http.StatusForbidden)
		return
	}
	w.mu.Lock()
	answer := w.answer
	w.mu.Unlock()
	if r.Method != http.MethodPut {
		answer(out, r)
		return
	}
	var d wire.Desired
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, d)
}

// until takes what is heard until it is as it should be.
func (w *world) until(what string, ok func(Word) bool) Word {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case h := <-w.heard:
			if ok(h) {
				return h
			}
		case <-deadline:
			w.t.Fatalf("not heard within %v: %s", patience, what)
		}
	}
}

func (w *world) untilTold(what string, ok func([]wire.Desired) bool) []wire.Desired {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		told := w.told
		w.mu.Unlock()
		if ok(told) {
			return told
		}
		select {
		case <-deadline:
			w.t.Fatalf("not told within %v: %s: %+v", patience, what, told)
		case <-time.After(5 * time.Millisecond): // what the steward was told has no event of its own
		}
	}
}

func pods(n int) func(Word) bool {
	return func(h Word) bool { return h.Status != nil && h.Status.Pods.Running == n }
}

func want(nodes ...string) *wire.Desired { return &wire.Desired{Nodes: nodes} }

func TestAStewardIsHeardAndToldWhatIsWanted(t *testing.T) {
	w := newWorld(t)
	w.followers.Attend("a", "id-a", here, want("node-1"))
	if h := w.until("a first word", pods(0)); h.Name != "a" || h.ID != "id-a" {
		t.Errorf("heard of %s, %s", h.Name, h.ID)
	}
	first := w.untilTold("what is wanted", func(all []wire.Desired) bool { return len(all) > 0 })[0]
	if first.Rev != want("node-1").Revision() || len(first.Nodes) != 1 {
		t.Errorf("told %+v, want its revision with it", first)
	}
	w.say("2", 5)
	w.cut() // the poll that waits
	w.until("the next word", pods(5))
	for range 3 {
		w.followers.Attend("a", "id-a", here, want("node-1")) // nothing is otherwise
	}
	w.followers.Attend("a", "id-a", here, want("node-1", "node-2"))
	told := w.untilTold("that two nodes are wanted",
		func(all []wire.Desired) bool { return len(all[len(all)-1].Nodes) == 2 })
	if len(told) > 4 {
		t.Errorf("told %d times, want once for each connection and each change: %+v", len(told), told)
	}
}

// A control plane that comes back has forgotten nothing, but whoever restored one from a copy has.
func TestWhatIsWantedIsToldAnewWithEachConnection(t *testing.T) {
	w := newWorld(t)
	w.followers.Attend("a", "id-a", here, want("node-1"))
	w.untilTold("once", func(all []wire.Desired) bool { return len(all) > 0 })
	w.reachable(false)
	w.cut()
	w.until("that it is away", func(h Word) bool { return h.Err != nil })
	w.reachable(true)
	w.untilTold("again", func(all []wire.Desired) bool { return len(all) >= 2 && all[1].Rev == all[0].Rev })
}

func TestSilenceIsHeardWithItsReason(t *testing.T) {
	w := newWorld(t)
	for what, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		says   string
	}{
		"an error": {func(out http.ResponseWriter, _ *http.Request) {
			http.Error(out, "no room", http.StatusServiceUnavailable)
		}, "503 Service Unavailable: no room"},
		"no JSON": {func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write([]byte("hello")) }, "steward's status"},
		"without end": {func(out http.ResponseWriter, _ *http.Request) {
			_, _ = out.Write(bytes.Repeat([]byte(" "), maxStatus+1))
		}, "more than"},
		"a wrong type": {func(out http.ResponseWriter, _ *http.Request) {
			_, _ = out.Write([]byte(`{"nodes":[{"pods":"x"}]}`))
		}, "steward's status"},
	} {
		w.answers(c.answer)
		w.followers.Attend("a", "id-"+what, here, want())
		h := w.until(what, func(h Word) bool { return h.Err != nil && h.ID == "id-"+what })
		if !strings.Contains(h.Err.Error(), c.says) {
			t.Errorf("%s: heard %v, want %q", what, h.Err, c.says)
		}
		w.followers.End("id-" + what)
	}
	w.reachable(false)
	w.followers.Attend("a", "id-a", here, want())
	w.until("that nobody is there", func(h Word) bool {
		return h.Err != nil && strings.Contains(h.Err.Error(), "refused")
	})
	w.reachable(true)
	w.say("3", 7)
	w.until("a word, once it is there", pods(7))
}

// Whoever has another cluster's certificate is no steward of this one.
func TestAnotherClustersStewardIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	other, err := pki.New("b", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.keys = other
	w.followers.Attend("b", "id-b", here, want("node-1"))
	w.until("that it is not known", func(h Word) bool {
		return h.Err != nil && strings.Contains(h.Err.Error(), "certificate signed by unknown authority")
	})
	if len(w.told) != 0 {
		t.Errorf("a stranger was told %+v", w.told)
	}
}

func TestAControlPlaneIsFollowedWhereItIs(t *testing.T) {
	w := newWorld(t)
	addresses := func() map[string]bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		out := map[string]bool{}
		for _, d := range w.dials {
			out[d] = true
		}
		return out
	}
	w.followers.Attend("a", "id-a", netip.Addr{}, want()) // it does not run
	if len(w.followers.of) != 0 {
		t.Error("a control plane that does not run is followed")
	}
	w.followers.Attend("a", "id-a", here, want())
	w.until("a word", pods(0))
	there := here.Next()
	w.followers.Attend("a", "id-a", there, want())
	w.say("2", 2)
	w.until("a word from where it is now", pods(2)) // or the last one of the connection to where it was
	for limit := time.After(patience); len(addresses()) < 2; {
		select {
		case <-limit:
			t.Fatal("it is not followed to where it is now")
		case <-time.After(5 * time.Millisecond):
		}
	}
	if got := addresses(); !got["10.128.0.5:6444"] || !got["10.128.0.6:6444"] || len(got) != 2 {
		t.Errorf("dialled %v", got)
	}
	w.followers.Attend("a", "id-a", netip.Addr{}, want())
	w.followers.End("id-a") // twice is harmless
	w.wg.Wait()             // its follower has ended
}

// A word may be on its way while the control plane moves, or ends: what it tells is of the one before.
func TestTheLastWordOfAnEndedFollowerIsNotPresent(t *testing.T) {
	w := newWorld(t)
	w.followers.Attend("a", "id-a", here, want())
	old := w.until("a word from where it was", pods(0))
	if !w.followers.Present(old) {
		t.Error("the word of the present control plane is not present")
	}
	w.followers.Attend("a", "id-a", here, want("node-1")) // the same control plane
	if !w.followers.Present(old) {
		t.Error("another wish ends what its steward said")
	}
	w.followers.Attend("a", "id-a", here.Next(), want())
	if w.followers.Present(old) {
		t.Error("the word of a control plane that moved is present")
	}
	w.say("2", 2)
	fresh := w.until("a word from where it is", func(h Word) bool { return pods(2)(h) && w.followers.Present(h) })
	w.followers.End("id-a")
	if w.followers.Present(fresh) || w.followers.Present(Word{ID: "id-a"}) {
		t.Error("a word is present of a control plane that ended")
	}
}

func TestAFollowerThatPanicsGoesOn(t *testing.T) {
	w := newWorld(t)
	calls := 0
	w.followers.cfg.Keys = func(context.Context, string) (*pki.Authorities, error) {
		if calls++; calls == 1 {
			panic("planted")
		}
		return w.keys, nil
	}
	w.followers.Attend("a", "id-a", here, want())
	w.until("that it could not", func(h Word) bool { return h.Err != nil })
	w.until("a word all the same", pods(0))
}
