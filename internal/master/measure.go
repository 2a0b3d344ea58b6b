package master

import (
	"github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/metrics"
)

// measures are the master's instruments.
type measures struct {
	events, rows metrics.Histogram
	step, commit metrics.Histogram
	load         metrics.Histogram
	machines     metrics.GaugeVec
	instances    metrics.Gauge
	waiting      metrics.Gauge
	sessions     metrics.CounterVec
	slow         metrics.Counter
}

func newMeasures(m *metrics.Registry) measures {
	return measures{
		events: m.Histogram("marina_master_batch_events", "Events that went through the state at once.", metrics.Sizes),
		rows:   m.Histogram("marina_master_commit_rows", "Rows of one commit.", metrics.Sizes),
		step: m.Histogram("marina_master_step_duration_seconds",
			"Time the state took for the events of a batch, the audit included.", metrics.Durations),
		commit: m.Histogram("marina_master_commit_duration_seconds", "Time until what a batch led to was durable.",
			metrics.Durations),
		load: m.Histogram("marina_master_load_duration_seconds", "Time a new leader took to load the state.",
			metrics.Durations),
		machines: m.Gauges("marina_master_machines", "Machines of the datacenter, by whether their agent is connected.",
			"state"),
		instances: m.Gauge("marina_master_instances", "Instances placed."),
		waiting:   m.Gauge("marina_master_waiting_instances", "Instances that wait in the queue."),
		sessions: m.Counters("marina_master_agent_sessions_total",
			"Sessions with agents that began and ended: a reconnect is one of each.", "event"),
		slow: m.Counter("marina_master_slow_commits_total", "Commits that took longer than a second."),
	}
}

// count shows how much the state holds. The owner of the state calls it once a batch is durable.
func (m *Master) count(s *core.State) {
	m.mu.Lock()
	connected := len(m.sessions)
	m.mu.Unlock()
	machines, instances, waiting := s.Sizes()
	m.measures.machines.WithLabelValues("connected").Set(float64(connected))
	m.measures.machines.WithLabelValues("away").Set(float64(max(0, machines-connected)))
	m.measures.instances.Set(float64(instances))
	m.measures.waiting.Set(float64(waiting))
}
