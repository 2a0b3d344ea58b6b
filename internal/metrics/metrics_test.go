package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func scrape(r *Registry) string {
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// A room that lives as long as a leadership is made anew with each: its counters go on.
func TestTheSameNameIsTheSameInstrument(t *testing.T) {
	r := New("v1")
	r.GaugeFunc("marina_test_now", "Now.", func() float64 { return 42 })
	for range 3 {
		r.Counter("marina_test_things_total", "Things.").Inc()
		r.Counters("marina_test_ends_total", "Ends.", "outcome").WithLabelValues("done").Inc()
		r.Histogram("marina_test_seconds", "Time.", Durations).Observe(0.002)
		r.Gauge("marina_test_queue", "Waiting.").Inc()
	}
	got := scrape(r)
	for _, want := range []string{"marina_test_things_total 3", `marina_test_ends_total{outcome="done"} 3`, "marina_test_seconds_count 3",
		"marina_test_queue 3", "marina_test_now 42", `marina_build_info{goversion="go`, `version="v1"} 1`, "process_open_fds", "go_goroutines"} {
		if !strings.Contains(got, want) {
			t.Errorf("scrape has no %q:\n%s", want, got)
		}
	}
}

func TestTheSameNameForSomethingElsePanics(t *testing.T) {
	r := New("v1")
	r.Counter("marina_test_things_total", "Things.")
	defer func() {
		if recover() == nil {
			t.Error("a gauge took a counter's name, want a panic")
		}
	}()
	r.Gauge("marina_test_things_total", "Things.")
}

func TestWithoutARegistryNothingIsRefused(t *testing.T) {
	var r *Registry
	r.Counter("a_total", "A.").Inc()
	r.Counters("b_total", "B.", "x").WithLabelValues("1").Inc()
	r.Gauges("c", "C.", "x").WithLabelValues("1").Set(1)
	r.Histograms("d", "D.", Sizes, "x").WithLabelValues("1").Observe(1)
}

func TestSinceObservesSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New("v1")
		h := r.Histogram("marina_test_seconds", "Time.", Durations)
		began := time.Now()
		time.Sleep(1500 * time.Millisecond) // the bubble's clock
		Since(h, began)
		if got := scrape(r); !strings.Contains(got, "marina_test_seconds_sum 1.5") {
			t.Errorf("scrape:\n%s\nwant a sum of 1.5 seconds", got)
		}
	})
}

func TestOnlyReadingIsAnswered(t *testing.T) {
	w := httptest.NewRecorder()
	New("v1").Handler().ServeHTTP(w, httptest.NewRequest("POST", "/metrics", nil))
	if w.Code != 405 {
		t.Errorf("POST: %d, want 405", w.Code)
	}
}

func TestOwnNamesKeepPrometheusConventions(t *testing.T) {
	r := New("v1")
	problems, err := testutil.GatherAndLint(r.reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v (%v), want nothing", problems, err)
	}
}

func BenchmarkCount(b *testing.B) {
	c := New("v1").Counter("marina_test_things_total", "Things.")
	b.ReportAllocs()
	for b.Loop() {
		c.Inc()
	}
}
