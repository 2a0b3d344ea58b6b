package master

import (
	"sync"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/core"
)

// snapshot shows readers the state without asking its owner, as it was when a batch was durable.
type snapshot struct {
	*core.Views
	once sync.Once
	list []kernel.AgentView // of the machines, made by the first reader
}

// publish shows the state to readers. The owner calls it once all that the state holds is durable, and before it
// releases the batch: whoever has an answer or a change finds in the snapshot all that was decided before it.
func (m *Master) publish(s *core.State) {
	views, old := s.Views(), m.shown.Load()
	if old != nil && old.Views == views {
		return
	}
	m.shown.Store(&snapshot{Views: views})
	if old == nil {
		close(m.loaded)
	}
}

// snapshot returns the newest, nil once the leadership is over. It waits for the first.
func (m *Master) snapshot() *snapshot {
	select {
	case <-m.loaded:
	case <-m.done:
		return nil
	}
	select {
	case <-m.done:
		return nil
	default:
		return m.shown.Load()
	}
}

// Agents is kernel.Kernel's; nothing once the leadership is over. It asks nobody: proxies call it for every request.
func (m *Master) Agents() []kernel.AgentView {
	s := m.snapshot()
	if s == nil {
		return nil
	}
	s.once.Do(func() {
		s.list = make([]kernel.AgentView, len(s.Machines))
		for k, v := range s.Machines {
			s.list[k] = *v
		}
	})
	return s.list
}

// Reservations is kernel.Kernel's; nothing once the leadership is over. It asks nobody.
func (m *Master) Reservations(framework string) []kernel.ReservationView {
	if s := m.snapshot(); s != nil {
		return s.Reservations[framework]
	}
	return nil
}
