package core

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/endpoint"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/placement"
)

// fleet keeps the machines of the datacenter, which of them have a session, and when they were heard.
type fleet struct {
	byID     map[kernel.AgentID]*agent
	order    []*agent // those from the store first
	sessions map[event.SessionID]*agent
	joined   []*agent // whose session began since endpoints were flushed

	began     time.Time // of this leader
	complete  bool      // all have reported, or had the time to
	missing   int       // those of the store that have not
	nextCheck time.Time // no agent's silence can matter before; zero: look now
}

func newFleet() *fleet {
	return &fleet{byID: map[kernel.AgentID]*agent{}, sessions: map[event.SessionID]*agent{}}
}

// agent is a machine.
type agent struct {
	number     int           // in fleet.order
	altered    bool          // it is among views.agents
	info       *kernel.Agent // of the newest view, once there is one: it never changes
	site       *kernel.Host  // what all its instances show of it; another one when it changes
	subnet     netip.Prefix
	registered time.Time
	reserved   []kernel.ReservedPart // by role
	broken     string                // why nothing of it may be decided: a row could not be read
	chunks     [][]*instance         // as packed into rows
	count      int                   // of instances

	session     event.SessionID // zero: not connected
	upSeq       uint64
	downSeq     uint64
	incarnation string
	replaced    []string // incarnations another one took over from
	reported    bool     // under this leader
	heard       time.Time
	since       time.Time // of connected or not
	suspect     bool
	away        time.Time
	sent        []*spec.Spec // in this session
	reader      endpoint.Reader

	out *outbox // nil: nothing in this step
}

// row is the agent's row.
func (a *agent) row() row.Row { return row.Row{Kind: row.Agent, ID: string(a.info.ID)} }

// refreshSite replaces the Host that the agent's instances show, and reports whether it changed. Records made before
// keep the old one.
func (a *agent) refreshSite() bool {
	now := kernel.Host{Agent: a.info.ID, Hostname: a.info.Hostname, Away: a.away}
	if a.site != nil && *a.site == now {
		return false
	}
	a.site = &now
	return true
}

func (a *agent) machine() placement.Machine {
	return placement.Machine{ID: a.info.ID, Hostname: a.info.Hostname, Region: a.info.Region, Zone: a.info.Zone,
		Attributes: a.info.Attributes, Bundles: a.info.Bundles, Total: a.info.Total, Ports: a.info.Ports, Subnet: a.subnet}
}

// each yields an agent's instances in the order of its rows.
func (a *agent) each(yield func(*instance) bool) {
	for _, c := range a.chunks {
		for _, i := range c {
			if !yield(i) {
				return
			}
		}
	}
}

// openChunk returns the first chunk of an agent's rows that takes another instance.
func (a *agent) openChunk() int {
	if a.count >= (len(a.chunks)-1)*instancesPerChunk { // the earlier ones may all be full: look at the last first
		if last := len(a.chunks) - 1; last >= 0 && len(a.chunks[last]) < instancesPerChunk {
			return last
		}
	}
	for k, c := range a.chunks {
		if len(c) < instancesPerChunk {
			return k
		}
	}
	return len(a.chunks)
}

// place puts an instance into a chunk of the agent's rows, release takes it out.
func (a *agent) place(i *instance, chunk int) {
	for len(a.chunks) <= chunk {
		a.chunks = append(a.chunks, nil)
	}
	i.chunk = int32(chunk)
	a.chunks[chunk] = append(a.chunks[chunk], i)
	a.count++
}

func (a *agent) release(i *instance) {
	chunk := a.chunks[i.chunk]
	at := slices.Index(chunk, i)
	a.chunks[i.chunk] = slices.Delete(chunk, at, at+1)
	a.count--
}

// get is the agent of an id, nil if there is none.
func (f *fleet) get(id kernel.AgentID) *agent { return f.byID[id] }

// instances yields all that is placed, by agent.
func (f *fleet) instances(yield func(*instance) bool) {
	for _, a := range f.order {
		for i := range a.each {
			if !yield(i) {
				return
			}
		}
	}
}

// add takes up an agent that is new to this leader.
func (f *fleet) add(a *agent) {
	a.number = len(f.order)
	f.byID[a.info.ID] = a
	f.order = append(f.order, a)
}

// remove takes out an agent without a session, with nothing on it.
func (f *fleet) remove(a *agent, now time.Time) {
	delete(f.byID, a.info.ID)
	f.order = slices.Delete(f.order, a.number, a.number+1)
	for k := a.number; k < len(f.order); k++ {
		f.order[k].number = k
	}
	if !a.reported {
		f.missing--
	}
	f.nextCheck = now // complete may be due
}

// open begins an agent's session with a registration.
func (f *fleet) open(a *agent, ev *event.AgentUp, now time.Time) {
	reg := &ev.Registration
	if a.incarnation != "" && a.incarnation != reg.Incarnation {
		a.replaced = append(slices.DeleteFunc(a.replaced, func(i string) bool { return i == reg.Incarnation }), a.incarnation)
		if len(a.replaced) > replacedKept {
			a.replaced = a.replaced[1:]
		}
	}
	a.session, a.upSeq, a.downSeq = ev.Session, ev.Seq, 0
	a.incarnation = reg.Incarnation
	a.since = now
	a.sent = nil
	f.sessions[ev.Session] = a
	f.joined = append(f.joined, a)
}

// close ends an agent's session.
func (f *fleet) close(a *agent, now time.Time) {
	delete(f.sessions, a.session)
	a.session = 0
	a.since = now
	a.sent = nil
	if a.out != nil {
		a.empty()
	}
}

// report notes that an agent known from the store has said what it runs.
func (f *fleet) report(a *agent) {
	if !a.reported {
		a.reported = true
		f.missing--
	}
}

// hear notes a sign of life, and reports whether the agent was away.
func (f *fleet) hear(a *agent, now time.Time, suspect time.Duration) (back bool) {
	back = !a.away.IsZero()
	a.heard, a.away, a.suspect = now, time.Time{}, false
	if check := now.Add(suspect); f.nextCheck.IsZero() || check.Before(f.nextCheck) {
		f.nextCheck = check
	}
	return back
}

// expect counts all agents as yet to report, as after loading.
func (f *fleet) expect() { f.missing = len(f.order) }

// begin counts the silence of all agents from the first step on.
func (f *fleet) begin(now time.Time) {
	f.began = now
	for _, a := range f.order {
		a.heard, a.since = now, now
	}
}

// excuse does not count silence while this process itself was not listening: it was paused, or starved, and what
// agents said meanwhile has yet to be read.
func (f *fleet) excuse(late time.Duration) {
	for _, a := range f.order {
		if a.away.IsZero() {
			a.heard = a.heard.Add(late)
		}
	}
	if !f.complete {
		f.began = f.began.Add(late)
	}
}

// check tells the agents that are suspect or away from now on, as they have been silent for too long. It looks at them
// only when one can be.
func (f *fleet) check(now time.Time, cfg *Config, silent func(*agent)) {
	graceOver := f.began.Add(cfg.Grace)
	if !f.complete && (f.missing == 0 || !now.Before(graceOver)) {
		f.complete = true
	}
	if !f.nextCheck.IsZero() && now.Before(f.nextCheck) {
		return
	}
	next := time.Time{}
	if !f.complete {
		next = graceOver
	}
	for _, a := range f.order {
		at, changed := f.checkAgent(a, now, cfg)
		if changed {
			silent(a)
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	f.nextCheck = next
}

// checkAgent judges one agent's silence. It returns when to look again, zero for not before it is heard, and whether
// it is suspect or away from now on.
func (f *fleet) checkAgent(a *agent, now time.Time, cfg *Config) (next time.Time, changed bool) {
	if !a.away.IsZero() {
		return time.Time{}, false
	}
	gone := a.heard.Add(cfg.Unreachable)
	if !a.reported {
		gone = f.began.Add(cfg.Grace)
	}
	if !now.Before(gone) {
		a.away, a.suspect = now, true
		return time.Time{}, true
	}
	if a.session == 0 || a.suspect {
		return gone, false
	}
	if at := a.heard.Add(cfg.Suspect); now.Before(at) {
		return at, false
	}
	a.suspect = true
	return gone, true
}

// checkBrake refuses to give up what is away when a larger share of the agents is, in percent: the fault is more likely
// here or in the network.
func (f *fleet) checkBrake(percent int) error {
	away := 0
	for _, a := range f.order {
		if !a.away.IsZero() {
			away++
		}
	}
	if away*100 > percent*len(f.order) {
		return fmt.Errorf("%d of %d agents are away, more than %d%%: nothing is given up until some return: %w", away,
			len(f.order), percent, errdefs.ErrFailedPrecondition)
	}
	return nil
}
