package agent_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/agent"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/metrics"
)

// Every stage of a start is timed under its name, and one that fails is counted.
func TestStagesOfAStartAreMeasured(t *testing.T) {
	w := newWorld(t)
	w.metrics = metrics.New("test")
	shell, _ := truth(t, "exec sleep 600")
	spec := fullSpec(w, shell)
	w.start()
	w.master.launch(spec, kernel.Assignment{ID: "g"})
	w.master.reaches("g.t0", kernel.Running)
	bad := spec
	bad.Tasks = append([]kernel.TaskSpec{}, spec.Tasks...)
	bad.Tasks[0].Image = "example/none:1"
	w.master.launch(named(bad), kernel.Assignment{ID: "h"})
	w.master.reaches("h.t0", kernel.Failed)
	scrape := httptest.NewRecorder()
	w.metrics.Handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	body := scrape.Body.String()
	for _, stage := range agent.Stages() {
		if !strings.Contains(body, `marina_agent_stage_duration_seconds_count{stage="`+stage+`"}`) {
			t.Errorf("stage %s is not measured", stage)
		}
	}
	if want := `marina_agent_stage_failures_total{stage="images"} 1`; !strings.Contains(body, want) {
		t.Errorf("metrics have no %s", want)
	}
}
