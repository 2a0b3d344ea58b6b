package core

import (
	"maps"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/row"
)

// Effects are the consequences of a Step. Writes come first: nothing of the rest may leave the process before they, and
// those of every earlier step, are durable.
type Effects struct {
	Writes  []row.Row        // rows whose value changed; State.Ops encodes them
	Sends   []Send           // in order for each session
	Ends    []SessionEnd     // sessions to close, after their Sends
	Replies []Reply          // one for each request event
	Changes []*kernel.Record // latest value of each instance that changed, once; Removed marks the last of an instance

	Charges []Charge // what was placed, resized and ended, in order

	Complete bool      // Changes.Complete of the kernel's watches, as of now
	Room     bool      // Changes.Room of the kernel's watches
	Wake     time.Time // when a Tick is due; zero: never
}

// Charge is a placement that begins or ends, with all it takes and holds, or else takes as much more.
type Charge struct {
	invariant.Placement
	Begins, Ends bool
}

// Send is a frame for a session.
type Send struct {
	Session event.SessionID
	Down    kernel.Down
}

// SessionEnd closes a session from the master's side.
type SessionEnd struct {
	Session event.SessionID
	Why     string // for the log and for the agent
}

// Reply answers a request. Err is of an errdefs kind.
type Reply struct {
	Request   event.RequestID
	Launch    *kernel.LaunchResult
	Exposed   []kernel.EndpointPort
	Withdrawn []kernel.InstanceID
	Removal   *kernel.Removal
	Err       error
}

// step gathers the effects of one Step.
type step struct {
	fx      Effects
	rows    map[row.Row]struct{} // that changed
	changed []*instance
	touched []*agent // with an outbox
	retry   bool     // capacity appeared: try the queue

	launched []launched // to be answered at the end
}

// outbox gathers the messages to a session until the end of the step.
type outbox struct {
	sync      bool
	instances []*instance
	drops     []kernel.InstanceID
	releases  []string
	acks      []kernel.StatusAck
}

func (st *step) dirty(r row.Row) { st.rows[r] = struct{}{} }
func (st *step) reply(r Reply)   { st.fx.Replies = append(st.fx.Replies, r) }
func (st *step) charge(c Charge) { st.fx.Charges = append(st.fx.Charges, c) }
func (st *step) send(s Send)     { st.fx.Sends = append(st.fx.Sends, s) }
func (st *step) endSession(id event.SessionID, why string) {
	st.fx.Ends = append(st.fx.Ends, SessionEnd{id, why})
}

// capacityAppeared tells watchers, and tries the queue at the end of the step.
func (st *step) capacityAppeared() {
	st.fx.Room = true
	st.retry = true
}

// change adds an instance to those that watchers are told of, once.
func (st *step) change(i *instance) {
	if !i.changed {
		i.changed = true
		st.changed = append(st.changed, i)
	}
}

// outbox returns the agent's outbox of this step.
func (st *step) outbox(a *agent) *outbox {
	if a.out == nil {
		a.out = &outbox{}
		st.touched = append(st.touched, a)
	}
	return a.out
}

// tell tells an instance to its agent, once.
func (st *step) tell(i *instance) {
	if !i.told {
		i.told = true
		out := st.outbox(i.agent)
		out.instances = append(out.instances, i)
	}
}

// drop tells an agent that an instance is over.
func (st *step) drop(i *instance) {
	out := st.outbox(i.agent)
	out.drops = append(out.drops, i.ID())
}

// empty takes out what an agent was to be told.
func (a *agent) empty() {
	for _, i := range a.out.instances {
		i.told = false
	}
	*a.out = outbox{}
}

// finish returns what gathered, but for frames, and begins anew. Agents' outboxes are empty by then.
func (st *step) finish() Effects {
	fx := st.fx
	for _, a := range st.touched {
		a.out = nil
	}
	for _, i := range st.changed {
		i.changed = false
		fx.Changes = append(fx.Changes, i.Record)
	}
	fx.Writes = slices.SortedFunc(maps.Keys(st.rows), row.Row.Compare)
	clear(st.rows)
	*st = step{rows: st.rows, changed: st.changed[:0], touched: st.touched[:0], launched: st.launched[:0]}
	return fx
}
