package cluster_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/marinaos/marina/internal/cli"
	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/kubernetes"
)

// marina runs a command line at a terminal, and returns what it ends with.
func marina(t *testing.T, h http.Handler, term *clitest.Terminal, args ...string) <-chan int {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	code := make(chan int, 1)
	args = append([]string{"--url", srv.URL, "--token", "t", "--state", "/nowhere"}, args...)
	go func() { code <- clitest.RunOn(t, cli.Programs{}, term.Slave, term.Slave, term.Slave, args...) }()
	return code
}

func TestWaitingIsOneBlockThatIsDrawnInPlace(t *testing.T) {
	clitest.Home(t)
	var mu sync.Mutex
	looks := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		k := view("demo", 2)
		if looks++; looks < 3 {
			k.State, k.WaitsFor = kubernetes.Creating, []string{"node-2 joins"}
			k.Members[2].State, k.Members[2].Message = "starting", "pulls\x1b[2J images"
		}
		json.NewEncoder(w).Encode(k)
	})
	term := clitest.OpenTerminal(t)
	code := marina(t, h, term, "cluster", "wait", "demo")
	term.Await("waits for node-2 joins")
	if got := <-code; got != 0 {
		t.Errorf("exit %d, want 0", got)
	}
	term.Await("demo  ready  v1.37.2")
	term.Await("node-2         [####################] ready\r\n")
	screen := term.Screen()
	clitest.Same(t, "the screen", screen[strings.Index(screen, "\n"):], `
  control-plane  [####################] ready
  node-1         [####################] ready
  node-2         [####################] ready
`)
	if !strings.HasPrefix(screen, "demo  ready  v1.37.2\n") {
		t.Errorf("the screen begins with %q, want how the cluster is", screen)
	}
	if seen := term.Seen(); !strings.Contains(seen,
		"node-2         [##########..........] starting: pulls\uFFFD[2J images") {
		t.Errorf("seen %q, want how far node-2 is, and no escapes of others", seen)
	}
}

func TestABlockOfManyMembersFitsTheTerminal(t *testing.T) {
	clitest.Home(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := view("demo", 40)
		k.State, k.WaitsFor = kubernetes.Creating, []string{"a", "b", "c", "d", "e"}
		k.Members[7].State = "starting"
		json.NewEncoder(w).Encode(k)
	})
	term := clitest.OpenTerminal(t)
	term.Resize(80, 12)
	code := marina(t, h, term, "cluster", "wait", "demo", "--timeout", "300ms")
	if got := <-code; got != exit.Timeout {
		t.Errorf("exit %d, want that it gave up", got)
	}
	term.Await("try: ")
	block, _, _ := strings.Cut(term.Screen(), "\nmarina: ")
	lines := strings.Split(block, "\n")
	if len(lines) > 10 || !strings.Contains(block, "node-7") || !strings.Contains(block, "and 40 more, 40 of them ready") {
		t.Errorf("%d lines of a terminal of 12:\n%s\nwant the member that is not ready, and the others in a line",
			len(lines), block)
	}
}

func TestClustersAreDeletedByTheirNameAtATerminal(t *testing.T) {
	for typed, deleted := range map[string]bool{"demo\n": true, "y\n": false} {
		clitest.Home(t)
		p := newPool(t, view("demo", 1))
		term := clitest.OpenTerminal(t)
		code := marina(t, p, term, "cluster", "delete", "demo")
		term.Await("Cluster demo has 1 node and 0 pods running. Delete it and everything in it? Type its name: ")
		term.Type(typed)
		if got := <-code; (got == 0) != deleted {
			t.Errorf("typed %q: exit %d, want deleted %v", typed, got, deleted)
		}
		if sent := strings.Join(p.sent, "\n"); (sent == "DELETE /kubernetes/v1/clusters/demo") != deleted {
			t.Errorf("typed %q: sent %q, want deleted %v", typed, sent, deleted)
		}
	}
}

func TestFollowingEventsGoesOnUntilTheClusterIsGone(t *testing.T) {
	clitest.Home(t)
	looks := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		looks++
		events := []kubernetes.Event{{Time: born, Message: "created"}, {Time: born, Message: "ready"}}
		switch {
		case looks == 2: // a datacenter that restarts
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case looks == 3: // its new leader remembers none of the old ones
			events = []kubernetes.Event{{Time: born.Add(1e9), Message: "led\nanew"}}
		case looks > 4:
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message":"there is no cluster demo"}`)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"events": events})
	})
	r := clitest.Run(t, h, "", "cluster", "events", "demo", "-f")
	var said []string
	for line := range strings.Lines(r.Out) {
		_, message, _ := strings.Cut(strings.TrimSpace(line), "  ")
		said = append(said, message)
	}
	if got := strings.Join(said, ", "); r.Code != 0 || !strings.HasPrefix(got, "created, ready, led anew") {
		t.Errorf("exit %d, printed %q, error %q; want each event once, over the restart", r.Code, got, r.Err)
	}
	looks = 10
	clitest.Run(t, h, "", "cluster", "events", "demo", "-f").Says(t, "of none", exit.NotFound, "no cluster demo")
}
