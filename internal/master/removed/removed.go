package removed

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/row"
)

// most bounds the removed machines that are remembered. One that is older and dials again joins anew, and ends what it
// still runs, as nothing is assigned to it.
const most = 1024

// Machines keeps the machines that were removed, and the sessions with them that have yet to hear so.
type Machines struct {
	rows    map[kernel.AgentID]*row.Removal
	order   []kernel.AgentID // oldest first
	leaving map[event.SessionID]farewell
}

// Lost forgets a session.
func (m *Machines) Lost(session event.SessionID) { delete(m.leaving, session) }

// Row is the row of a removed machine, nil if there is none.
func (m *Machines) Row(id kernel.AgentID) *row.Removal { return m.rows[id] }

// farewell is the message to a session with a removed machine.
type farewell struct {
	seq uint64 // of the frame that says so
	why string
}

// New returns a table without a machine.
func New() *Machines {
	return &Machines{rows: map[kernel.AgentID]*row.Removal{}, leaving: map[event.SessionID]farewell{}}
}

// Has reports whether a machine is known to have been removed.
func (m *Machines) Has(id kernel.AgentID) bool { return m.rows[id] != nil }

// Load takes up a row; Sort orders all of them after the last.
func (m *Machines) Load(id kernel.AgentID, of *row.Removal) {
	m.rows[id] = of
	m.order = append(m.order, id)
}

// Sort orders what was loaded, the oldest first.
func (m *Machines) Sort() {
	slices.SortFunc(m.order, func(a, b kernel.AgentID) int {
		return cmp.Or(m.rows[a].Removed.Compare(m.rows[b].Removed), cmp.Compare(a, b))
	})
}

// Add remembers an id, and returns those that are forgotten for it.
func (m *Machines) Add(id kernel.AgentID, hostname string, now time.Time) (forgotten []kernel.AgentID) {
	m.Load(id, &row.Removal{Hostname: hostname, Removed: now.UTC().Round(0)})
	for len(m.order) > most {
		delete(m.rows, m.order[0])
		forgotten = append(forgotten, m.order[0])
		m.order = m.order[1:]
	}
	return forgotten
}

// Dismiss notes that a session is told by its frame seq that its machine was removed, and returns that frame, but for
// the epoch.
func (m *Machines) Dismiss(session event.SessionID, seq uint64, id kernel.AgentID) kernel.Down {
	why := m.Why(id)
	m.leaving[session] = farewell{seq, why}
	return kernel.Down{Seq: seq, Sync: true, Removed: why}
}

// Heard reports whether a session's machine has done what it was told, and can be closed: closed at once it might never
// hear of it.
func (m *Machines) Heard(ev *event.Frame) (why string, ok bool) {
	f, ok := m.leaving[ev.Session]
	if !ok || ev.Up.Applied < f.seq {
		return "", false
	}
	delete(m.leaving, ev.Session)
	return f.why, true
}

// Why says to a machine that it was removed, and what to do to have it back.
func (m *Machines) Why(id kernel.AgentID) string {
	gone := m.rows[id]
	return fmt.Sprintf("machine %s (%s) was removed from the datacenter at %s: run `marina down` on it; "+
		"to have it join as a new machine, delete the file agent.id of its state directory then, and run `marina up`",
		gone.Hostname, id, gone.Removed.UTC().Format(time.RFC3339))
}
