package scheduler

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// What a loop does is counted under its name: requests by outcome, settling and commits by time.
func TestEveryRequestAndCommitIsMeasured(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		for range 2 {
			if err := c.loop.Do(t.Context(), c.set("a", 1)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.loop.Do(t.Context(), func(context.Context, *Change) error { return errdefs.ErrNotFound }); err == nil {
			t.Fatal("a plan's error was lost")
		}
		if err := c.loop.Do(t.Context(), func(context.Context, *Change) error { panic("no") }); err == nil {
			t.Fatal("a plan's panic was lost")
		}
		w := httptest.NewRecorder()
		c.gauges.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		for _, want := range []string{
			`marina_scheduler_requests_total{outcome="done",scheduler="numbers"} 2`,
			`marina_scheduler_requests_total{outcome="refused",scheduler="numbers"} 1`,
			`marina_scheduler_requests_total{outcome="panicked",scheduler="numbers"} 1`,
			`marina_scheduler_commit_rows_count{scheduler="numbers"} 2`,
			`marina_scheduler_commit_duration_seconds_count{scheduler="numbers"} 2`,
		} {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("metrics have no %s", want)
			}
		}
	})
}
