package check

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marinaos/marina/internal/agent/locks"
	"github.com/marinaos/marina/internal/kernel"
)

func TestHealthFollowsItsChecks(t *testing.T) {
	const ok, bad, none = 'o', 'x', '-'
	for _, c := range []struct {
		name     string
		check    kernel.Check
		outcomes string // one a second from the second after the start
		tells    string // "." silent, "A" told alive, "D" told not alive
		failures int
	}{
		{"first success", kernel.Check{MaxFailed: 3}, "ooo", "A..", 0},
		{"failures before any success count at once", kernel.Check{MaxFailed: 3}, "xo", "DA", 0},
		{"alive until the last of MaxFailed", kernel.Check{MaxFailed: 3}, "oxxxx", "A..D.", 4},
		{"told again at each multiple", kernel.Check{MaxFailed: 2}, "xxxxx", "DD.D.", 5},
		{"a success starts over", kernel.Check{MaxFailed: 2}, "oxoxoxx", "A.....D", 2},
		{"zero is one, and never told again", kernel.Check{}, "oxxx", "AD..", 3},
		{"grace", kernel.Check{MaxFailed: 1, Grace: 4 * time.Second}, "xxxx", "...D", 1},
		{"grace ends with the first success", kernel.Check{MaxFailed: 1, Grace: 9 * time.Second}, "xox", ".AD", 1},
		{"ignored outcomes change nothing", kernel.Check{MaxFailed: 1}, "-o-x-", ".A.D.", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			started := time.Unix(1000, 0)
			var h kernel.Health
			var tells strings.Builder
			for i, o := range c.outcomes {
				at := started.Add(time.Duration(i+1) * time.Second)
				var tell bool
				h, tell = Next(&c.check, h, started, Outcome{OK: o == ok, Ignore: o == none, Cause: "no", At: at})
				switch {
				case !tell:
					tells.WriteByte('.')
				case h.Alive:
					tells.WriteByte('A')
				default:
					tells.WriteByte('D')
				}
				if o == bad && h.LastBad != at || o == ok && h.LastGood != at {
					t.Errorf("outcome %d: got %+v, want its time kept", i, h)
				}
			}
			if tells.String() != c.tells || h.Failures != c.failures {
				t.Errorf("got %s and %d failures, want %s and %d", tells.String(), h.Failures, c.tells, c.failures)
			}
		})
	}
}

func TestChecksComeAtTheirIntervalAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &kernel.Check{Interval: 10 * time.Second, Timeout: 4 * time.Second}
		began := time.Now()
		var at []time.Duration
		hang := false
		var causes []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			Repeat(ctx, c, 3*time.Second, time.Time{}, make(locks.Slots, 1), func(ctx context.Context) Outcome {
				at = append(at, time.Since(began))
				if hang {
					<-ctx.Done()
					return Outcome{Cause: "cut off"}
				}
				return Outcome{OK: true}
			}, func(o Outcome) bool {
				causes = append(causes, o.Cause)
				hang = true
				return len(causes) < 4
			})
		}()
		<-done
		cancel()
		if len(at) != 4 || at[0] != 3*time.Second {
			t.Fatalf("checked at %v, want four times, first after 3s", at)
		}
		for i := 1; i < len(at); i++ {
			if d := at[i] - at[i-1]; d < 9500*time.Millisecond || d > 10500*time.Millisecond {
				t.Errorf("between checks %d and %d: %s, want 10s give or take a twentieth", i-1, i, d)
			}
		}
		if causes[0] != "" || causes[1] != "no answer within 4s" {
			t.Errorf("got causes %q, want none and then a timeout", causes)
		}
	})
}

// A task that needs a second to serve gets traffic then, and not an interval later; one that never serves is asked no
// more often than others once its failures count.
func TestFreshTasksAreAskedSoonerUntilTheyServe(t *testing.T) {
	for what, tc := range map[string]struct {
		serves time.Duration
		before time.Duration // of the first success
		most   int           // checks in the first minute
	}{
		"serves after 1s": {time.Second, 2100 * time.Millisecond, 11},
		"never serves":    {time.Hour, 0, 14},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				c := &kernel.Check{Interval: 10 * time.Second, Timeout: 4 * time.Second}
				began, asked, first := time.Now(), 0, time.Duration(0)
				Repeat(ctx, c, 0, began.Add(30*time.Second), make(locks.Slots, 1), func(context.Context) Outcome {
					asked++
					return Outcome{OK: time.Since(began) >= tc.serves}
				}, func(o Outcome) bool {
					if o.OK && first == 0 {
						first = time.Since(began)
					}
					return true
				})
				if first > tc.before {
					t.Errorf("first success after %s, want it within %s", first, tc.before)
				}
				if asked > tc.most {
					t.Errorf("asked %d times in a minute, want at most %d", asked, tc.most)
				}
			})
		})
	}
}

func TestChecksAsk(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if !r.Close {
			t.Error("the check's connection stays open")
		}
	})
	mux.Handle("/moved", http.RedirectHandler("/broken", http.StatusFound))
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/switch", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Upgrade", "x")
		w.Header().Set("Connection", "Upgrade")
		w.WriteHeader(http.StatusSwitchingProtocols)
	})
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer secure.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	var p Prober
	for _, c := range []struct {
		name  string
		check kernel.Check
		at    net.Addr
		want  Outcome
	}{
		{"http", kernel.Check{Kind: kernel.CheckHTTP, Path: "/ok"}, plain.Listener.Addr(), Outcome{OK: true}},
		{"path without slash", kernel.Check{Kind: kernel.CheckHTTP, Path: "ok"}, plain.Listener.Addr(), Outcome{OK: true}},
		{"redirect is not followed", kernel.Check{Kind: kernel.CheckHTTP, Path: "/moved"}, plain.Listener.Addr(), Outcome{OK: true}},
		{"500", kernel.Check{Kind: kernel.CheckHTTP, Path: "/broken"}, plain.Listener.Addr(), Outcome{Cause: "500"}},
		{"endless body", kernel.Check{Kind: kernel.CheckHTTP, Path: "/endless"}, plain.Listener.Addr(), Outcome{OK: true}},
		{"101 counts", kernel.Check{Kind: kernel.CheckHTTP, Path: "/switch"}, plain.Listener.Addr(), Outcome{Cause: "101"}},
		{"101 ignored", kernel.Check{Kind: kernel.CheckHTTP, Path: "/switch", Ignore1xx: true}, plain.Listener.Addr(), Outcome{Ignore: true}},
		{"https", kernel.Check{Kind: kernel.CheckHTTPS, Path: "/ok"}, secure.Listener.Addr(), Outcome{OK: true}},
		{"https of no https", kernel.Check{Kind: kernel.CheckHTTPS, Path: "/ok"}, plain.Listener.Addr(), Outcome{Cause: "HTTP response to HTTPS"}},
		{"tcp", kernel.Check{Kind: kernel.CheckTCP}, plain.Listener.Addr(), Outcome{OK: true}},
		{"tcp refused", kernel.Check{Kind: kernel.CheckTCP}, closed.Addr(), Outcome{Cause: "connection refused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			at := netip.MustParseAddrPort(c.at.String())
			got := p.Probe(ctx, &c.check, "", at.Addr(), at.Port())
			if got.OK != c.want.OK || got.Ignore != c.want.Ignore || !strings.Contains(got.Cause, c.want.Cause) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
