package measure

import (
	"fmt"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/metrics"
)

// Agent is an agent's instruments.
type Agent struct {
	Registry *metrics.Registry // that holds them; nil: none does

	stages metrics.HistogramVec
	failed metrics.CounterVec
}

// New registers the instruments.
func New(m *metrics.Registry) Agent {
	return Agent{
		Registry: m,
		stages: m.Histograms("marina_agent_stage_duration_seconds",
			"Time that a stage of starting a group took, by stage, failures included.",
			metrics.Durations, "stage"),
		failed: m.Counters("marina_agent_stage_failures_total",
			"Groups that were not started because a stage failed, by stage.", "stage"),
	}
}

// Stage does one stage of a start and notes how it went, under the name of its type.
func (a *Agent) Stage(stage any, do func() error) error {
	name := strings.TrimPrefix(fmt.Sprintf("%T", stage), "agent.")
	began := time.Now()
	err := do()
	metrics.Since(a.stages.WithLabelValues(name), began)
	if err != nil {
		a.failed.WithLabelValues(name).Inc()
	}
	return err
}
