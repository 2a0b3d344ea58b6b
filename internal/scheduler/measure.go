package scheduler

import (
	"time"

	"github.com/marinaos/marina/internal/metrics"
)

// measures are the instruments of one scheduler; its name is their label.
type measures struct {
	name                 string
	requests             metrics.CounterVec
	settle, commit, rows metrics.Histogram
}

func newMeasures(m *metrics.Registry, name string) measures {
	return measures{name: name,
		requests: m.Counters("marina_scheduler_requests_total", "Requests for a change, by scheduler and outcome.",
			"scheduler", "outcome"),
		settle: m.Histograms("marina_scheduler_settle_duration_seconds",
			"Time a scheduler took to decide and carry out what followed from one thing that happened.",
			metrics.Durations, "scheduler").WithLabelValues(name),
		commit: m.Histograms("marina_scheduler_commit_duration_seconds",
			"Time until a transaction of a scheduler was durable.",
			metrics.Durations, "scheduler").WithLabelValues(name),
		rows: m.Histograms("marina_scheduler_commit_rows", "Rows of one transaction of a scheduler.", metrics.Sizes,
			"scheduler").WithLabelValues(name),
	}
}

func (m *measures) request(outcome string) { m.requests.WithLabelValues(m.name, outcome).Inc() }

func (m *measures) committed(began time.Time, rows int) {
	metrics.Since(m.commit, began)
	m.rows.Observe(float64(rows))
}
