package sim

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/sim/machine"
	"github.com/marinaos/marina/internal/sim/timeline"
	"github.com/marinaos/marina/internal/store"
)

// master is one master's process: the loop around the pure state machine, which commits what gathered while the last
// commit was under way, and lets nothing out before what it rests on is durable.
type master struct {
	timeline.Actor
	w    *World
	name string
	up   bool

	doomed bool // it dies with its next write under way

	// While it leads, or believes so.
	lead       *store.Leadership
	state      *brain.State
	scheduler  *scheduler
	marathon   *servicesLoop
	links      []*machine.Link
	committing bool
	releasing  bool
	inbox      []event.Event   // came during a commit
	held       []brain.Effects // not yet released: their writes, or earlier ones, are not durable
	requests   map[event.RequestID]func(brain.Reply)
	lastID     event.RequestID
	wake       time.Duration           // of the earliest tick that is scheduled, by the world's clock
	skew       time.Duration           // its own clock's, ahead of the world's
	news       []*kernel.Record        // not delivered yet: the latest of each
	complete   bool                    // as it is to be delivered
	missing    map[kernel.AgentID]bool // members that have yet to report to it
	telling    bool                    // a delivery is scheduled
}

// Name names the process.
func (m *master) Name() string { return m.name }

// Process returns the actor that time passes for.
func (m *master) Process() *timeline.Actor { return &m.Actor }

// Accept takes a new connection.
func (m *master) Accept(l *machine.Link) { m.links = append(m.links, l) }

// clock is the time by the master's own clock.
func (m *master) clock() time.Time { return m.w.Wall().Add(m.skew) }

// due returns the world's time at which that clock will show a time, if it goes on as it does.
func (m *master) due(at time.Time) time.Duration {
	return max(at.Add(-m.skew).Sub(timeline.Epoch), m.w.Now)
}

func (m *master) note(what, which string, a, b int64) { m.w.Note(m.name, what, which, a, b) }

// Epoch is the epoch of the leadership it believes to have.
func (m *master) Epoch() int64 {
	if m.lead == nil {
		return 0
	}
	return m.lead.Epoch()
}

func (m *master) link(s event.SessionID) *machine.Link {
	for _, l := range m.links {
		if event.SessionID(l.Serial) == s {
			return l
		}
	}
	return nil
}

func (m *master) send(sends []brain.Send) {
	for i := range sends {
		if m.w.Plant.On(bug.RemovedRunsOn) && sends[i].Down.Removed != "" {
			continue
		}
		if l := m.link(sends[i].Session); l != nil {
			l.SendDown(sends[i].Down)
		}
	}
}
