package core

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/allocator"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/ended"
	"github.com/marinaos/marina/internal/master/endpoint"
	"github.com/marinaos/marina/internal/master/expose"
	"github.com/marinaos/marina/internal/master/interner"
	"github.com/marinaos/marina/internal/master/reservation"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/master/subnet"
	"github.com/marinaos/marina/internal/master/vip"
	"github.com/marinaos/marina/internal/placement"
)

// State is everything a leader knows. It changes in Load and Step only; one goroutine owns it. The order of events
// decides everything: no map is iterated where the order could show.
type State struct {
	cfg Config

	agents   map[kernel.AgentID]*agent
	order    []*agent // all agents, those from the store first
	sessions map[SessionID]*agent
	subnets  *subnet.Pool
	removed  removed
	leaving  map[SessionID]farewell

	specs        *spec.Table
	interner     interner.Interner
	instances    *kernel.Index[*instance]
	ended        ended.IDs
	past         ended.Past
	reservations *reservation.Table
	exposed      *expose.Table
	vips         *vip.Table

	entries map[entryKey]*entry
	queue   []*entry // in the order of waiting since
	waiting map[kernel.InstanceID]*entry
	waits   map[string]int // instances waiting, by framework
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

	endpoints *endpoint.Log[*instance]
	joined    []*agent // whose session began since the endpoints were flushed
	views     *Views
	outdated  outdated
	step      step
}

// step is what gathers during one Step.
type step struct {
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
	number     int           // in State.order
	altered    bool          // it is among outdated.agents
	info       *kernel.Agent // of the newest view, once there is one: it never changes
	site       *kernel.Host  // what all its instances show of it; another one when it changes
	subnet     netip.Prefix
	registered time.Time
	reserved   []kernel.ReservedPart // by role
	broken     string                // why nothing of it may be decided: a row could not be read
	chunks     [][]*instance         // as packed into rows
	count      int                   // of instances

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
	sent        []*spec.Spec // in this session
	reader      endpoint.Reader

	out *outbox // nil: nothing in this step
}

// outbox is what a session is to be told at the end of the step.
type outbox struct {
	sync     bool
	groups   []*instance
	drops    []kernel.InstanceID
	releases []string
	acks     []kernel.StatusAck
}

// NewState returns an empty state.
func NewState(cfg Config) *State {
	cfg = cfg.WithDefaults()
	s := &State{cfg: cfg, leaving: map[SessionID]farewell{}, removed: removed{rows: map[kernel.AgentID]*removedRow{}},
		agents: map[kernel.AgentID]*agent{}, sessions: map[SessionID]*agent{}, subnets: subnet.New(cfg.Pool, cfg.SubnetBits),
		instances: kernel.NewIndex[*instance](), entries: map[entryKey]*entry{}, waiting: map[kernel.InstanceID]*entry{}, waits: map[string]int{},
		pool: placement.NewPool(cfg.Strategy), endpoints: endpoint.NewLog[*instance](cfg.EndpointLog),
		views:    &Views{Reservations: map[string][]kernel.ReservationView{}},
		outdated: outdated{reservations: map[string]struct{}{}}, step: step{dirty: map[Row]struct{}{}}}
	s.vips = vip.New(cfg.VIPs, cfg.VIPKeep, func(name string) { s.dirty(Row{Kind: RowVIP, ID: name}) })
	s.exposed = expose.New(s.vips)
	s.specs = spec.New(s.pool, s.vips, s.exposed, func(id kernel.SpecID) { s.dirty(Row{Kind: RowSpec, ID: string(id)}) })
	s.reservations = reservation.New(func(c *reservation.Reservation) {
		s.dirty(Row{Kind: RowReservation, ID: c.ID()})
		s.outdated.reservations[c.Framework] = struct{}{}
	})
	return s
}

// Instances lists what is placed of a framework, all frameworks' if it is empty, by agent.
func (s *State) Instances(framework string) []*kernel.Record {
	out := make([]*kernel.Record, 0, s.specs.Placed(framework))
	for i := range s.all {
		if framework == "" || i.Framework == framework {
			out = append(out, i.Record)
		}
	}
	return out
}

func (s *State) instance(id kernel.InstanceID) *instance {
	i, _ := s.instances.Get(id)
	return i
}

// Task finds the instance of a task: one that is placed, or one of the last that ended under this leader.
func (s *State) Task(id kernel.TaskID) (inst *kernel.Record, task int, ok bool) {
	for at := strings.LastIndexByte(string(id), '.'); at > 0; at = strings.LastIndexByte(string(id[:at]), '.') {
		if i := s.instance(kernel.InstanceID(id[:at])); i != nil {
			k := i.Find(id)
			return i.Record, k, k >= 0
		}
	}
	return s.past.Find(id)
}

// Sizes counts the machines, the instances and the instances that wait.
func (s *State) Sizes() (machines, instances, waiting int) {
	return len(s.order), s.instances.Len(), len(s.waiting)
}

// Connected lists the agents that have a session, those longest known first.
func (s *State) Connected() (out []kernel.AgentID) {
	for _, a := range s.order {
		if a.session != 0 {
			out = append(out, a.info.ID)
		}
	}
	return out
}

// Complete is Changes.Complete of the kernel's watches.
func (s *State) Complete() bool { return s.complete }

// Queue lists what waits of a framework, longest waiting first.
func (s *State) Queue(framework string) []kernel.Waiting {
	var out []kernel.Waiting
	for _, e := range s.queue {
		if e.framework == framework {
			w := kernel.Waiting{Key: e.key, Owner: e.spec.Owner, Version: e.spec.Version, Instances: append([]kernel.InstanceID(nil), e.instances...),
				Since: e.since, Refusal: s.refusal(e), Tries: e.tries, Priority: e.spec.Priority}
			if e.hold != nil {
				w.Backfill = e.hold.agent.info.Hostname
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
			v.Waiting += len(e.instances)
			v.Asks = v.Asks.Add(e.spec.Need.Times(int64(len(e.instances))))
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

// all yields what is placed, by agent.
func (s *State) all(yield func(*instance) bool) {
	for _, a := range s.order {
		for i := range a.each {
			if !yield(i) {
				return
			}
		}
	}
}

// touch queues an instance to be told to its agent.
func (s *State) touch(i *instance) {
	if !i.told {
		i.told = true
		s.outbox(i.agent).groups = append(s.outbox(i.agent).groups, i)
	}
	s.dirty(Row{Kind: RowAssigned, ID: string(i.agent.info.ID), Chunk: int(i.chunk)})
}

// outbox is where an agent's messages of this step gather.
func (s *State) outbox(a *agent) *outbox {
	if a.out == nil {
		a.out = &outbox{}
		s.step.touched = append(s.step.touched, a)
	}
	return a.out
}

// empty takes out what an agent was to be told.
func (a *agent) empty() {
	for _, i := range a.out.groups {
		i.told = false
	}
	*a.out = outbox{}
}

func (s *State) charge(c Charge) { s.step.fx.Charges = append(s.step.fx.Charges, c) }

func (s *State) dirty(r Row) { s.step.dirty[r] = struct{}{} }

// join takes up an agent that is new to this leader.
func (s *State) join(a *agent) {
	a.number = len(s.order)
	s.agents[a.info.ID] = a
	s.order = append(s.order, a)
	s.altered(a)
}

// change marks an instance as changed for watchers and for the endpoints.
func (s *State) change(i *instance) {
	if !i.changed {
		i.changed = true
		s.step.changed = append(s.step.changed, i)
	}
	s.endpoints.Update(i)
}
