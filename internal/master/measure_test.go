package master_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/store/memory"
)

func TestBatchesCommitsAndSessionsAreMeasured(t *testing.T) {
	m := metrics.New("test")
	h := lead(t, memory.New(), master.Config{}, func(d *master.Deps) { d.Metrics = m })
	newStub("a1", 4000).connect(t, h)
	h.agents(t, 1)
	if _, err := h.Launch(t.Context(), kernel.LaunchRequest{Key: "/app@1", Spec: app(t, "/app"),
		Instances: ids("app", 3)}); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body := w.Body.String()
	for _, want := range []string{"marina_master_instances 3\n", "marina_master_waiting_instances 0\n",
		`marina_master_machines{state="connected"} 1`,
		`marina_master_agent_sessions_total{event="begun"} 1`, "marina_master_load_duration_seconds_count 1\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics have no %q", want)
		}
	}
	for _, never := range []string{"marina_master_commit_rows_count 0", "marina_master_batch_events_count 0",
		"marina_master_step_duration_seconds_count 0"} {
		if strings.Contains(body, never) {
			t.Errorf("metrics have %q after a launch", never)
		}
	}
}
