package core

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// A machine that was removed is no member any more: nothing of it is counted, waited for or kept, and what is its own
// (row, subnet, place in every list) is free. Its id stays among the removed, so that it cannot come back with what
// it ran: should its agent dial again, it is told to end everything and that it was removed. Whoever wants it back
// has it begin with a new id.

// removedMost is how many removed machines are remembered. One that is older and dials again joins anew, and ends
// what it still runs, as nothing is assigned to it.
const removedMost = 1024

// removed is the machines that were removed, and the sessions with them that have yet to hear so.
type removed struct {
	rows    map[kernel.AgentID]*removedRow
	order   []kernel.AgentID // oldest first
	leaving map[SessionID]farewell
}

// farewell is what a session with a removed machine is told.
type farewell struct {
	seq uint64 // of the frame that says so
	why string
}

func newRemoved() *removed {
	return &removed{rows: map[kernel.AgentID]*removedRow{}, leaving: map[SessionID]farewell{}}
}

func (r *removed) has(id kernel.AgentID) bool { return r.rows[id] != nil }

// load takes up a row; sort orders all of them after the last.
func (r *removed) load(id kernel.AgentID, row *removedRow) {
	r.rows[id] = row
	r.order = append(r.order, id)
}

func (r *removed) sort() {
	slices.SortFunc(r.order, func(a, b kernel.AgentID) int {
		return cmp.Or(r.rows[a].Removed.Compare(r.rows[b].Removed), cmp.Compare(a, b))
	})
}

// add remembers an id, and returns those that are forgotten for it.
func (r *removed) add(id kernel.AgentID, hostname string, now time.Time) (forgotten []kernel.AgentID) {
	r.load(id, &removedRow{Hostname: hostname, Removed: now.UTC().Round(0)})
	for len(r.order) > removedMost {
		delete(r.rows, r.order[0])
		forgotten = append(forgotten, r.order[0])
		r.order = r.order[1:]
	}
	return forgotten
}

// dismiss notes that a session is told by its frame seq that its machine was removed, and returns that frame.
func (r *removed) dismiss(session SessionID, seq uint64, epoch int64, id kernel.AgentID) Send {
	why := r.rows[id].why(id)
	r.leaving[session] = farewell{seq, why}
	return Send{Session: session, Down: kernel.Down{Epoch: epoch, Seq: seq, Sync: true, Removed: why}}
}

// left reports whether a session's machine has done what it was told, and can be closed: closed at once it might never
// hear of it.
func (r *removed) left(ev *Frame) (why string, ok bool) {
	f, ok := r.leaving[ev.Session]
	if !ok || ev.Up.Applied < f.seq {
		return "", false
	}
	delete(r.leaving, ev.Session)
	return f.why, true
}

// why is what an agent with a removed id is told.
func (r *removedRow) why(id kernel.AgentID) string {
	return fmt.Sprintf("machine %s (%s) was removed from the datacenter at %s: run `marina down` on it; to have it join as a new machine, delete "+
		"the file agent.id of its state directory then, and run `marina up`", r.Hostname, id, r.Removed.UTC().Format(time.RFC3339))
}
