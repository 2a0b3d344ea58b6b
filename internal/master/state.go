package master

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/allocator"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/placement"
)

// State is everything a leader knows. It changes in Load and Step only; one goroutine owns it. The order of events decides
// everything: no map is iterated where the order could show.
type State struct {
	cfg Config

	agents   map[kernel.AgentID]*agent
	order    []*agent // all agents, those from the store first
	sessions map[SessionID]*agent
	subnets  map[netip.Prefix]kernel.AgentID

	subnetsFrom int // number of the lowest subnet that may be free
	specs       map[kernel.SpecID]*spec
	groups      map[kernel.GroupID]*instance
	ended       map[string]*ended   // by framework
	claims      map[string]*claim   // by Row.ID
	exposed     map[string]*exposed // by Row.ID
	vips        map[string]*vip
	vipAddrs    map[netip.Addr]*vip
	literals    map[netip.Addr]int // uses of literal VIP addresses by specs
	idleVIPs    []*vip             // in the order they became idle; some may be in use again

	entries map[entryKey]*entry
	queue   []*entry // in the order of waiting since
	waiting map[kernel.GroupID]*entry
	waits   map[string]int // groups waiting, by framework
	holds   int            // entries for which a machine is kept because they waited for long
	lent    int            // instances with a priority below zero
	attend  time.Time      // when some entry is to be attended to; zero: never

	pool  *placement.Pool
	quota allocator.Tree

	began     time.Time // of the first step
	now       time.Time // of this step
	complete  bool
	missing   int       // agents of the store that have not reported
	nextCheck time.Time // no agent's silence can matter before; zero: look now
	wakeAt    time.Time // when the last step asked for a Tick

	endpoints endpoints
	step      step
	past      []kernel.Instance // the last pastKept that ended, as a ring
	pastNext  int
}

// step is what gathers during one Step.
type step struct {
	number  uint64
	fx      Effects
	dirty   map[Row]struct{}
	changed []*instance
	touched []*agent // with something in their outbox
	retry   bool     // room appeared: try the queue
	fresh   []*entry // not in the queue: what is to be launched

	launched  []launched // to be answered at the end
	explained int        // refusals that the pool was asked for, until the next step
}

type agent struct {
	info       kernel.Agent
	subnet     netip.Prefix
	registered time.Time
	reserved   []kernel.Reservation // by role
	broken     string               // why nothing of it may be decided: a row could not be read
	chunks     [][]*instance        // as packed into rows
	count      int                  // of instances

	session     SessionID // zero: not connected
	upSeq       uint64
	downSeq     uint64
	incarnation string
	replaced    []string // incarnations another one took over from
	reported    bool     // under this leader
	heard       time.Time
	since       time.Time // of connected or not
	suspect     bool
	away        time.Time
	sent        map[*spec]struct{} // in this session
	baseline    bool               // this session's agent holds endpoints of the current version
	holds       uint64             // version it said it holds when it registered, zero: none

	out     outbox
	touched bool
}

// outbox is what a session is to be told at the end of the step.
type outbox struct {
	sync     bool
	groups   []*instance
	drops    []kernel.GroupID
	releases []string
	acks     []kernel.StatusAck
}

type spec struct {
	kernel.Spec
	request *placement.Request
	need    kernel.Resources
	ports   [][]kernel.EndpointPort // by task, but for host ports
	more    *exposed                // further ports of its owner
	vips    []*vip
	size    int // bytes encoded
	uses    int // instances and waiting groups
	placed  int // instances
	stored  bool
}

// fills is the role whose reservations instances of the spec use, empty if none.
func (sp *spec) fills() string {
	if sp.Reserved == kernel.ReservedNone {
		return ""
	}
	return sp.Role
}

type instance struct {
	kernel.Group
	spec     *spec
	agent    *agent
	need     kernel.Resources // the spec's, unless it was resized
	chunk    int
	statuses []kernel.Status // replaced whole, never written: readers hold it
	serving  []serving       // by task, as of the newest endpoints
	known    bool
	removed  bool
	changed  uint64 // step in which it was put into step.changed
	told     uint64 // step in which it was put into its agent's outbox
}

// NewState returns an empty state.
func NewState(cfg Config) *State {
	return &State{cfg: cfg.WithDefaults(), agents: map[kernel.AgentID]*agent{}, sessions: map[SessionID]*agent{},
		subnets: map[netip.Prefix]kernel.AgentID{}, specs: map[kernel.SpecID]*spec{}, groups: map[kernel.GroupID]*instance{},
		ended: map[string]*ended{}, claims: map[string]*claim{}, exposed: map[string]*exposed{}, vips: map[string]*vip{}, vipAddrs: map[netip.Addr]*vip{}, literals: map[netip.Addr]int{}, entries: map[entryKey]*entry{},
		waiting: map[kernel.GroupID]*entry{}, waits: map[string]int{}, pool: placement.NewPool(cfg.Strategy), endpoints: endpoints{version: 1, oldest: 1},
		step: step{dirty: map[Row]struct{}{}}}
}

// Instances lists what is placed of a framework, all frameworks' if it is empty, by agent.
func (s *State) Instances(framework string) []kernel.Instance {
	var out []kernel.Instance
	for _, a := range s.order {
		for i := range a.each {
			if framework == "" || i.spec.Framework == framework {
				out = append(out, i.view())
			}
		}
	}
	return out
}

// Instance is one placed group.
func (s *State) Instance(id kernel.GroupID) (kernel.Instance, bool) {
	if i := s.groups[id]; i != nil {
		return i.view(), true
	}
	return kernel.Instance{}, false
}

// Task finds the instance of a task: one that is placed, or one of the last that ended under this leader.
func (s *State) Task(id kernel.TaskID) (inst kernel.Instance, task int, ok bool) {
	for at := strings.LastIndexByte(string(id), '.'); at > 0; at = strings.LastIndexByte(string(id[:at]), '.') {
		if i := s.groups[kernel.GroupID(id[:at])]; i != nil {
			k := i.task(id)
			return i.view(), k, k >= 0
		}
	}
	for _, i := range s.past {
		for k := range i.Statuses {
			if i.Statuses[k].Task == id {
				return i, k, true
			}
		}
	}
	return kernel.Instance{}, 0, false
}

// Spec is a spec that is placed or waits.
func (s *State) Spec(id kernel.SpecID) (kernel.Spec, bool) {
	if sp := s.specs[id]; sp != nil {
		return sp.Spec, true
	}
	return kernel.Spec{}, false
}

// Complete is Changes.Complete of the kernel's watches.
func (s *State) Complete() bool { return s.complete }

// Agents lists the machines, those longest known first.
func (s *State) Agents() []kernel.AgentView {
	out := make([]kernel.AgentView, len(s.order))
	for k, a := range s.order {
		used, groups := s.pool.Used(a.info.ID)
		v := kernel.AgentView{Agent: a.info, Subnet: a.subnet, Connected: a.session != 0, Since: a.since, Away: a.away,
			Used: used, Groups: groups, Registered: a.registered, Reserved: a.reserved, Free: s.pool.Free(a.info.ID)}
		if v.Connected {
			v.Epoch = s.cfg.Epoch
		}
		if a.broken != "" {
			v.Warnings = append(append([]string(nil), v.Warnings...), a.broken)
		}
		out[k] = v
	}
	return out
}

// Queue lists what waits of a framework, longest waiting first.
func (s *State) Queue(framework string) []kernel.Waiting {
	var out []kernel.Waiting
	for _, e := range s.queue {
		if e.framework == framework {
			w := kernel.Waiting{Key: e.key, Owner: e.spec.Owner, Version: e.spec.Version, Groups: append([]kernel.GroupID(nil), e.groups...),
				Since: e.since, Refusal: s.refusal(e), Tries: e.tries, Priority: e.spec.Priority}
			if e.hold != nil {
				w.Hold = e.hold.agent.info.Hostname
			}
			out = append(out, w)
		}
	}
	return out
}

// Quotas lists the roles with a quota, with use, or with something that waits, by path.
func (s *State) Quotas() []kernel.QuotaView {
	s.quota.Machines(s.pool.Total())
	views := map[string]*kernel.QuotaView{}
	for _, v := range s.quota.Views() {
		views[v.Role] = &v
	}
	for _, e := range s.queue {
		for role := e.spec.Role; role != ""; role = kernel.ParentRole(role) {
			v := views[role]
			if v == nil {
				v = new(s.quota.View(role))
				views[role] = v
			}
			v.Waiting += len(e.groups)
			v.Asks = v.Asks.Add(e.spec.need.Times(int64(len(e.groups))))
			if role == e.spec.Role && v.Why == "" {
				v.Why = s.refusal(e).String()
			}
		}
	}
	out := make([]kernel.QuotaView, 0, len(views))
	for _, role := range slices.Sorted(maps.Keys(views)) {
		out = append(out, *views[role])
	}
	return out
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

// view is the instance as others see it.
func (i *instance) view() kernel.Instance {
	return kernel.Instance{Group: i.Group, Framework: i.spec.Framework, Owner: i.spec.Owner, Version: i.spec.Version,
		Agent: i.agent.info.ID, Hostname: i.agent.info.Hostname, Statuses: i.statuses, Removed: i.removed,
		Away: i.agent.away, Known: i.known}
}

// task is the index of a task of the instance, -1 if it has no such task.
func (i *instance) task(id kernel.TaskID) int {
	suffix, ok := strings.CutPrefix(string(id), string(i.ID))
	if ok {
		for k := range i.spec.Tasks {
			if i.spec.Tasks[k].Suffix == suffix {
				return k
			}
		}
	}
	return -1
}

// newInstance puts a group on an agent: into its rows, the indexes and what is used. Resources are the pool's already.
func (s *State) newInstance(g kernel.Group, sp *spec, a *agent, chunk int) *instance {
	i := &instance{Group: g, spec: sp, agent: a, need: g.Guarantee(&sp.Spec), chunk: chunk, statuses: make([]kernel.Status, len(sp.Tasks)),
		serving: make([]serving, len(sp.Tasks))}
	for k, id := range sp.TaskIDs(g.ID) {
		i.statuses[k] = kernel.Status{Task: id, Group: g.ID}
	}
	for len(a.chunks) <= chunk {
		a.chunks = append(a.chunks, nil)
	}
	a.chunks[chunk] = append(a.chunks[chunk], i)
	a.count++
	s.groups[g.ID] = i
	sp.uses++
	sp.placed++
	s.quota.Charge(sp.Role, i.need, sp.Lent())
	if sp.Lent() {
		s.lent++
	}
	return i
}

// room is the first chunk of an agent that takes another group.
func (a *agent) room() int {
	if a.count >= (len(a.chunks)-1)*groupsPerChunk { // the earlier ones may all be full: look at the last first
		if last := len(a.chunks) - 1; last >= 0 && len(a.chunks[last]) < groupsPerChunk {
			return last
		}
	}
	for k, c := range a.chunks {
		if len(c) < groupsPerChunk {
			return k
		}
	}
	return len(a.chunks)
}

// touch queues an instance to be told to its agent.
func (s *State) touch(i *instance) {
	if i.told != s.step.number {
		i.told = s.step.number
		s.outbox(i.agent).groups = append(s.outbox(i.agent).groups, i)
	}
	s.dirty(Row{Kind: RowAssigned, ID: string(i.agent.info.ID), Chunk: i.chunk})
}

// outbox is where an agent's messages of this step gather.
func (s *State) outbox(a *agent) *outbox {
	if !a.touched {
		a.touched = true
		s.step.touched = append(s.step.touched, a)
	}
	return &a.out
}

func (s *State) dirty(r Row) { s.step.dirty[r] = struct{}{} }

// change marks an instance as changed for watchers and for the endpoints.
func (s *State) change(i *instance) {
	if i.changed != s.step.number {
		i.changed = s.step.number
		s.step.changed = append(s.step.changed, i)
	}
	s.serve(i)
}
