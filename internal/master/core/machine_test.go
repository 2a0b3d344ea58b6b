package core

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/endpoint"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/queue"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/store"
)

// machine drives a State by whatever may happen to it, in any order, and holds its insides against each other after
// every step. Where the simulator shows that the kernel is right among agents, networks and stores, this shows that
// what the State keeps twice is the same.
type machine struct {
	state   *State
	now     time.Time
	rows    map[string][]byte
	before  map[string][]byte // the last step
	written []store.Op        // in it
	books   *invariant.Totals
	agents  []*fake
	session event.SessionID
	serial  int
	request event.RequestID
	asked   map[kernel.InstanceID]bool     // somebody asked for its end
	ended   map[kernel.InstanceID]bool     // it is over for good
	specs   map[kernel.SpecID]*kernel.Spec // all there ever were
	owners  map[string]*kernel.Spec        // the newest of each
}

// fake is an agent: it runs what it was told to and says so when asked.
type fake struct {
	id      kernel.AgentID
	cpus    int64
	session event.SessionID
	up      uint64
	run     map[kernel.InstanceID]*ran

	version   uint64                 // of the endpoints that it holds, zero: none
	endpoints map[kernel.TaskID]bool // whether they are ready
	parts     map[kernel.TaskID]bool // of a full set
}

type ran struct {
	group kernel.Assignment
	seq   uint64
	state kernel.State
}

func TestStateMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), rows: map[string][]byte{},
			asked: map[kernel.InstanceID]bool{},
			ended: map[kernel.InstanceID]bool{}, specs: map[kernel.SpecID]*kernel.Spec{}, owners: map[string]*kernel.Spec{}}
		m.lead(t)
		for n := range rapid.IntRange(1, 4).Draw(t, "agents") {
			m.agents = append(m.agents, &fake{id: kernel.AgentID(fmt.Sprint("a", n)),
				cpus: rapid.Int64Range(2, 8).Draw(t, "cpus"), run: map[kernel.InstanceID]*ran{}})
			m.dial(t, m.agents[n])
		}
		t.Repeat(map[string]func(*rapid.T){
			"launch": m.launch, "launch more": m.launch, "status": m.status, "statuses": m.status, "stop": m.stop,
			"withdraw": m.withdraw, "resize": m.resize, "quota": m.quota, "reserve": m.reserve,
			"release": m.release, "forget": m.forget, "remove": m.remove, "agent": m.agent, "time": m.time, "failover": m.lead,
		})
	})
}

// lead begins with a new leader over the rows that are durable; agents dial it.
func (m *machine) lead(t *rapid.T) {
	m.state = NewState(Config{Epoch: 1, SubnetBits: 28, BackfillAfter: 4 * time.Second, BackfillFor: 6 * time.Second,
		VIPKeep: time.Hour, EndpointLog: 6})
	var items []store.Item
	for _, key := range slices.Sorted(maps.Keys(m.rows)) {
		items = append(items, store.Item{Key: key, Value: m.rows[key]})
	}
	if problems := m.state.Load(items); len(problems) > 0 {
		t.Fatalf("load: %v", problems)
	}
	m.books = NewAudit(m.state).totals
	for _, a := range m.agents {
		a.session, a.version = 0, 0
	}
	m.step(t, event.Tick{})
	for _, a := range m.agents {
		if rapid.IntRange(0, 3).Draw(t, "dials") > 0 {
			m.dial(t, a)
		}
	}
}

func (m *machine) dial(t *rapid.T, a *fake) {
	m.session++
	a.session, a.up = m.session, 1
	reg := kernel.Registration{Incarnation: fmt.Sprint(m.session), Epoch: 1, Endpoints: a.version,
		Agent: kernel.Agent{ID: a.id, Hostname: string(a.id), Address: netip.MustParseAddr("192.0.2.1"),
			Attributes: map[string]string{"rack": "r" + string(a.id[1:])}, Total: kernel.Resources{MilliCPU: a.cpus * 1000,
				Mem: 64 * kernel.GiB, Disk: 64 * kernel.GiB}, Ports: kernel.PortRange{First: 31000, Last: 31004}}}
	for _, id := range slices.Sorted(maps.Keys(a.run)) {
		reg.Statuses = append(reg.Statuses, a.run[id].status(m.now))
	}
	m.step(t, event.AgentUp{Session: a.session, Seq: 1, Registration: reg})
}

func (r *ran) status(now time.Time) kernel.Status {
	return kernel.Status{Task: kernel.TaskID(string(r.group.ID) + ".t"), Instance: r.group.ID, Seq: r.seq, State: r.state,
		Time: now}
}

// someAgent is an agent with a session, nil if there is none.
func (m *machine) someAgent(t *rapid.T) *fake {
	a := rapid.SampledFrom(m.agents).Draw(t, "agent")
	if a.session == 0 {
		return nil
	}
	return a
}

func (m *machine) agent(t *rapid.T) {
	a := rapid.SampledFrom(m.agents).Draw(t, "agent")
	switch {
	case a.session == 0:
		m.dial(t, a)
	case rapid.Bool().Draw(t, "lost"):
		s := a.session
		a.session = 0
		m.step(t, event.AgentDown{Session: s})
	default:
		a.cpus = rapid.Int64Range(2, 8).Draw(t, "cpus")
		m.dial(t, a)
	}
}

// time passes while connected agents are heard, or not.
func (m *machine) time(t *rapid.T) {
	end := m.now.Add(time.Duration(rapid.IntRange(1, 8000).Draw(t, "ms")) * time.Millisecond)
	heard := rapid.IntRange(0, 3).Draw(t, "heard") > 0
	for m.now.Before(end) {
		m.now = m.now.Add(500 * time.Millisecond)
		for _, a := range m.agents {
			if a.session != 0 && heard {
				a.up++
				m.step(t, event.Frame{Session: a.session, Up: kernel.Up{Seq: a.up}})
			}
		}
		m.step(t, event.Tick{})
	}
}

func (m *machine) launch(t *rapid.T) {
	role := rapid.SampledFrom([]string{"/", "/a", "/a/x", "/b"}).Draw(t, "role")
	owner := strings.TrimRight(role, "/") + "/" + rapid.SampledFrom([]string{"one", "two"}).Draw(t, "owner")
	m.serial++
	sp := kernel.Spec{Framework: "f", Owner: owner, Version: fmt.Sprint(m.serial), Role: role,
		Network:  kernel.Network{Mode: kernel.NetworkHost},
		Priority: rapid.SampledFrom([]int{0, 0, 0, -10, 10}).Draw(t, "priority"),
		Reserved: rapid.SampledFrom([]kernel.Reserved{kernel.ReservedToo, kernel.ReservedToo, kernel.ReservedNone,
			kernel.ReservedOnly}).Draw(t, "reserved"),
		Tasks: []kernel.TaskSpec{{Name: "t", Suffix: ".t", Shell: "true",
			Guarantee: kernel.Resources{MilliCPU: 500 * rapid.Int64Range(0, 8).Draw(t, "cpus"), Mem: kernel.MiB}}}}
	if old := m.owners[owner]; old != nil && rapid.Bool().Draw(t, "again") {
		sp = *old
	}
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		sp.Constraints = []kernel.Constraint{{Field: "rack", Operator: rapid.SampledFrom([]string{"UNIQUE", "GROUP_BY",
			"CLUSTER"}).Draw(t, "operator")}}
	case 1:
		sp.Tasks[0].Ports = []kernel.Port{{Protocol: "tcp", Host: rapid.SampledFrom([]int{0, 31000}).Draw(t, "port")}}
	case 2:
		sp.Reservation = &kernel.Reservation{Name: "c" + strings.ReplaceAll(owner, "/", "."),
			Volumes: []kernel.ReservedVolume{{Name: "v", Bytes: 16 * kernel.MiB}}}
	case 3:
		sp.Network.Mode = kernel.NetworkBridge
	}
	sealed, err := sp.Seal()
	if err != nil {
		t.Fatal(err)
	}
	m.specs[sealed.ID], m.owners[owner] = &sealed, &sealed
	var ids []kernel.InstanceID
	for range rapid.IntRange(1, 4).Draw(t, "instances") {
		m.serial++
		ids = append(ids, kernel.InstanceID(fmt.Sprint("g", m.serial)))
	}
	if over := slices.Sorted(maps.Keys(m.ended)); len(over) > 0 && rapid.Bool().Draw(t, "repeat") {
		ids = append(ids, rapid.SampledFrom(over).Draw(t, "ended"))
	}
	m.ask(t, func(r event.RequestID) event.Event {
		return event.Launch{Request: r, LaunchRequest: kernel.LaunchRequest{Key: owner + "@" + sealed.Version, Spec: sealed,
			Instances: ids}}
	}, errdefs.IsAlreadyExists, errdefs.IsInvalidArgument, errdefs.IsFailedPrecondition)
}

// ask makes a request; an error must be of one of the kinds that are expected.
func (m *machine) ask(t *rapid.T, make func(event.RequestID) event.Event, expected ...func(error) bool) {
	m.request++
	fx := m.step(t, make(m.request))
	if len(fx.Replies) != 1 || fx.Replies[0].Request != m.request {
		t.Fatalf("request %d: got replies %v, want one to it", m.request, fx.Replies)
	}
	r := fx.Replies[0]
	if r.Err != nil && !slices.ContainsFunc(expected, func(is func(error) bool) bool { return is(r.Err) }) {
		t.Fatalf("request: %v", r.Err)
	}
	if r.Launch != nil && r.Launch.Waiting > 0 && (r.Launch.Refusal == nil || r.Launch.Refusal.String() == "") {
		t.Fatalf("%d wait and nobody says why", r.Launch.Waiting)
	}
}

// some draws an instance that is placed, or waits.
func (m *machine) some(t *rapid.T, placed bool) (kernel.InstanceID, bool) {
	var ids []kernel.InstanceID
	if placed {
		for i := range m.state.instances.All {
			ids = append(ids, i.ID())
		}
	} else {
		for e := range m.state.queue.All {
			ids = append(ids, e.Instances...)
		}
	}
	slices.Sort(ids)
	if len(ids) == 0 {
		return "", false
	}
	return rapid.SampledFrom(ids).Draw(t, "group"), true
}

func (m *machine) stop(t *rapid.T) {
	if id, ok := m.some(t, rapid.IntRange(0, 3).Draw(t, "waits") > 0); ok {
		m.asked[id] = true
		m.ask(t, func(r event.RequestID) event.Event {
			return event.Stop{Request: r, Framework: "f", Instances: []kernel.InstanceID{id}, Why: "asked"}
		})
	}
}

func (m *machine) withdraw(t *rapid.T) {
	if id, ok := m.some(t, false); ok {
		e := m.state.queue.Of(id)
		groups := []kernel.InstanceID{id}
		if rapid.Bool().Draw(t, "all") {
			groups = nil
		}
		m.ask(t, func(r event.RequestID) event.Event {
			return event.Withdraw{Request: r, Framework: "f", Key: e.Key.Key, Instances: groups}
		})
	}
}

func (m *machine) resize(t *rapid.T) {
	if id, ok := m.some(t, true); ok {
		size := kernel.Size{Guarantee: kernel.Resources{MilliCPU: 500 * rapid.Int64Range(0, 8).Draw(t, "cpus"),
			Mem: kernel.MiB}}
		m.ask(t, func(r event.RequestID) event.Event {
			return event.Resize{Request: r, Framework: "f", Instance: id, Sizes: []kernel.Size{size}}
		},
			errdefs.IsResourceExhausted, errdefs.IsNotFound)
	}
}

func (m *machine) quota(t *rapid.T) {
	q := kernel.Quota{Role: rapid.SampledFrom([]string{"/", "/a", "/a/x", "/b"}).Draw(t, "role"), Limit: kernel.NoLimit}
	remove := false
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		remove = true
	case 1:
		q.Guarantee.MilliCPU = 1000 * rapid.Int64Range(0, 6).Draw(t, "guarantee")
		q.Weight = float64(rapid.IntRange(1, 3).Draw(t, "weight"))
	default:
		q.Limit.MilliCPU = 1000 * rapid.Int64Range(0, 20).Draw(t, "limit")
	}
	m.ask(t, func(r event.RequestID) event.Event { return event.SetQuota{Request: r, Quota: q, Remove: remove} },
		errdefs.IsNotFound, errdefs.IsInvalidArgument)
}

func (m *machine) reserve(t *rapid.T) {
	r := kernel.ReservedPart{Role: rapid.SampledFrom([]string{"/a", "/a/x", "/b"}).Draw(t, "role"),
		Amount: kernel.Resources{MilliCPU: 500 * rapid.Int64Range(0, 6).Draw(t, "cpus")}}
	id := rapid.SampledFrom(m.agents).Draw(t, "on").id
	m.ask(t, func(q event.RequestID) event.Event { return event.Reserve{Request: q, Agent: id, ReservedPart: r} },
		errdefs.IsNotFound, errdefs.IsInvalidArgument, errdefs.IsResourceExhausted)
}

func (m *machine) release(t *rapid.T) {
	claims := m.state.Reservations("f")
	if len(claims) == 0 {
		return
	}
	c := claims[0]
	m.ask(t, func(r event.RequestID) event.Event {
		return event.Release{Request: r, Framework: "f", Reservations: []string{c.Name}}
	}, errdefs.IsFailedPrecondition)
	for _, a := range m.agents {
		if a.id == c.Agent && a.session != 0 {
			a.up++
			m.step(t, event.Frame{Session: a.session, Up: kernel.Up{Seq: a.up, Released: []string{"f/" + c.Name}}})
		}
	}
}

func (m *machine) forget(t *rapid.T) {
	if id, ok := m.some(t, true); ok {
		m.ask(t, func(r event.RequestID) event.Event {
			return event.Forget{Request: r, Framework: "f", Instances: []kernel.InstanceID{id}}
		}, errdefs.IsFailedPrecondition)
	}
}

// remove takes a machine out, or asks for it in vain; sometimes another comes in its place.
func (m *machine) remove(t *rapid.T) {
	n := rapid.IntRange(0, len(m.agents)-1).Draw(t, "removed")
	a := m.agents[n]
	if m.state.fleet.byID[a.id] == nil {
		return
	}
	before := len(m.state.fleet.order)
	m.ask(t, func(r event.RequestID) event.Event {
		return event.RemoveAgent{Request: r, Agent: a.id, Force: rapid.Bool().Draw(t, "force")}
	}, errdefs.IsFailedPrecondition)
	if len(m.state.fleet.order) == before {
		return
	}
	m.prefixes(t, a.id)
	if m.dial(t, a); m.state.fleet.byID[a.id] != nil || len(a.run) > 0 {
		t.Fatalf("agent %s was removed and dialed again: it is a member, or runs %v", a.id, a.run)
	}
	m.serial++
	m.agents[n] = &fake{id: kernel.AgentID(fmt.Sprint("a", n, "-", m.serial)), cpus: a.cpus,
		run: map[kernel.InstanceID]*ran{}}
	if rapid.Bool().Draw(t, "another comes") {
		m.dial(t, m.agents[n])
	}
}

// prefixes loads each beginning of the last step's writes: all of them can be, and from the one on that says so
// nothing is left of the machine once a leader has begun.
func (m *machine) prefixes(t *rapid.T, id kernel.AgentID) {
	for n := range len(m.written) + 1 {
		said := false
		rows := m.after(t, n)
		for key, value := range rows {
			r, _ := row.Parse(key)
			said = said || r.Kind == row.Removed && r.ID == string(id)
			var c kernel.ReservationView
			left := (r.Kind == row.Agent || r.Kind == row.Assigned) && r.ID == string(id) ||
				r.Kind == row.Reservation && json.Unmarshal([]byte(value), &c) == nil && c.Agent == id && !c.Lost
			if left && rows[(row.Row{Kind: row.Removed, ID: string(id)}).Key()] != "" {
				t.Fatalf("machine %s was removed, and after %d of %d writes and another leader there is row %s %s", id, n,
					len(m.written), key, value)
			}
		}
		if n == len(m.written) && !said {
			t.Fatalf("machine %s was removed and no row says so", id)
		}
	}
}

// after is the rows once a leader has begun on what was there before the last step and its first n writes.
func (m *machine) after(t *rapid.T, n int) map[string]string {
	rows := maps.Clone(m.before)
	apply := func(ops []store.Op) {
		for _, op := range ops {
			if delete(rows, op.Key); op.Kind == store.OpPut {
				rows[op.Key] = op.Value
			}
		}
	}
	apply(m.written[:n])
	s := NewState(m.state.cfg)
	var items []store.Item
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		items = append(items, store.Item{Key: key, Value: rows[key]})
	}
	if problems := s.Load(items); len(problems) > 0 {
		t.Fatalf("load after %d writes: %v", n, problems)
	}
	ops, err := s.Ops(s.Step(m.now, event.Tick{}).Writes)
	if err != nil {
		t.Fatal(err)
	}
	apply(ops)
	out := map[string]string{}
	for key, value := range rows {
		out[key] = string(value)
	}
	return out
}

// status has an agent say how an instance fares, or repeat what it said.
func (m *machine) status(t *rapid.T) {
	a := m.someAgent(t)
	if a == nil || len(a.run) == 0 {
		return
	}
	r := a.run[rapid.SampledFrom(slices.Sorted(maps.Keys(a.run))).Draw(t, "group")]
	if !r.state.Terminal() && rapid.IntRange(0, 4).Draw(t, "new") > 0 {
		r.seq++
		r.state = rapid.SampledFrom([]kernel.State{kernel.Starting, kernel.Running, kernel.Killing, kernel.Finished,
			kernel.Failed, kernel.Killed}).Draw(t, "state")
	}
	st := r.status(m.now)
	if rapid.IntRange(0, 9).Draw(t, "late") == 0 && st.Seq > 1 {
		st.Seq--
		st.State = kernel.Staging
	}
	a.up++
	m.step(t, event.Frame{Session: a.session, Up: kernel.Up{Seq: a.up, Statuses: []kernel.Status{st}}})
}

// step lets one event happen, writes the rows, has agents hear, and judges.
func (m *machine) step(t *rapid.T, ev event.Event) Effects {
	fx := m.state.Step(m.now, ev)
	ops, err := m.state.Ops(fx.Writes)
	if err != nil {
		t.Fatal(err)
	}
	m.before, m.written = maps.Clone(m.rows), ops
	for _, op := range ops {
		if op.Kind == store.OpPut {
			m.rows[op.Key] = op.Value
		} else {
			delete(m.rows, op.Key)
		}
	}
	if err := (&Audit{m.books}).Judge(m.state, &fx); err != nil {
		t.Fatal(err)
	}
	for i := range fx.Changes {
		m.judgeChange(t, new(fx.Changes[i].Instance()))
	}
	for _, send := range fx.Sends {
		for _, a := range m.agents {
			if a.session == send.Session {
				a.hear(t, &send.Down)
			}
		}
	}
	for _, end := range fx.Ends {
		for _, a := range m.agents {
			if a.session == end.Session {
				a.session = 0
			}
		}
	}
	m.consistent(t)
	m.informed(t)
	m.shown(t)
	return fx
}

// shown holds what readers are shown, which is kept from step to step, against what there is.
func (m *machine) shown(t *rapid.T) {
	views := m.state.Views()
	var machines []kernel.AgentView
	for _, v := range views.Machines {
		machines = append(machines, *v)
	}
	alike := cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}
	if diff := cmp.Diff(m.state.Agents(), machines, alike); diff != "" {
		t.Fatalf("machines as readers are shown them (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(m.state.Reservations("f"), views.Reservations["f"], alike); diff != "" {
		t.Fatalf("claims as readers are shown them (-want +got):\n%s", diff)
	}
}

// learn takes in a change of the endpoints, which must follow from what the agent holds.
func (a *fake) learn(t *rapid.T, d *kernel.EndpointDelta) {
	if d.Full {
		if a.parts == nil {
			a.parts = map[kernel.TaskID]bool{}
		}
		for k := range d.Set {
			a.parts[d.Set[k].Task] = d.Set[k].Ready
		}
		if !d.More {
			a.endpoints, a.parts, a.version = a.parts, nil, d.To
		}
		return
	}
	if d.From != a.version || a.version == 0 {
		t.Fatalf("agent %s holds endpoints of version %d and is told what leads from %d to %d", a.id, a.version, d.From, d.To)
	}
	for _, id := range d.Remove {
		delete(a.endpoints, id)
	}
	for k := range d.Set {
		a.endpoints[d.Set[k].Task] = d.Set[k].Ready
	}
	a.version = d.To
}

// informed holds what agents that were told of the newest endpoints know against what there is.
func (m *machine) informed(t *rapid.T) {
	s := m.state
	version, settled := s.endpoints.Version()
	if !s.fleet.complete || !settled {
		return
	}
	want := map[kernel.TaskID]bool{}
	for i := range s.instances.All {
		for k := range i.Len() {
			if i.standings.Of(k) != endpoint.Hidden {
				want[i.TaskID(k)] = i.standings.Of(k) == endpoint.Ready
			}
		}
	}
	for _, a := range m.agents {
		if s.fleet.sessions[a.session] == nil { // or it is told that it was removed
			continue
		}
		if a.version != version || !maps.Equal(a.endpoints, want) {
			t.Fatalf("agent %s holds endpoints %d %v, want %d %v", a.id, a.version, a.endpoints, version, want)
		}
	}
}

func (a *fake) hear(t *rapid.T, d *kernel.Down) {
	if d.Endpoints != nil {
		a.learn(t, d.Endpoints)
	}
	told := map[kernel.InstanceID]bool{}
	for _, g := range d.Assignments {
		told[g.ID] = true
		if a.run[g.ID] == nil {
			a.run[g.ID] = &ran{group: g, seq: 1}
		}
		a.run[g.ID].group = g
	}
	for id := range a.run {
		if d.Sync && !told[id] {
			delete(a.run, id)
		}
	}
	for _, id := range d.Drop {
		delete(a.run, id)
	}
}

// judgeChange holds one instance's news against what was asked for.
func (m *machine) judgeChange(t *rapid.T, i *kernel.Instance) {
	if m.ended[i.ID] {
		t.Fatalf("group %s is heard of after its end", i.ID)
	}
	if i.Removed {
		m.ended[i.ID] = true
	}
	if i.Goal != kernel.GoalStop || m.asked[i.ID] || i.Removed {
		return
	}
	m.asked[i.ID] = true
	var owner string
	var priority, own int
	if n, _ := fmt.Sscanf(i.Why, "it makes way for %s which has priority %d, this %d", &owner, &priority, &own); n < 3 {
		if strings.HasPrefix(i.Why, "its task ") {
			return // tasks of an instance end together
		}
		t.Fatalf("group %s is to stop, and nobody asked for it: %q", i.ID, i.Why)
	}
	owner = strings.TrimSuffix(owner, ",")
	gone := m.specs[i.Spec]
	role := owner[:max(1, strings.LastIndexByte(owner, '/'))]
	if v := invariant.Rights(invariant.Work{Name: string(i.ID), Role: gone.Role, Priority: gone.Priority},
		invariant.Work{Name: owner, Role: role, Priority: priority}); v != nil {
		t.Fatal(v[0])
	}
}

// consistent holds what the state keeps twice against each other.
func (m *machine) consistent(t *rapid.T) {
	s := m.state
	used, instances := map[kernel.AgentID]kernel.Resources{}, map[kernel.AgentID]int{}
	all, preemptible := kernel.Resources{}, 0
	for i := range s.instances.All {
		if s.instance(i.ID()) != i || i.Removed() || i.Host != i.agent.site || i.agent.chunks[i.chunk] == nil ||
			!slices.Contains(i.agent.chunks[i.chunk], i) {
			t.Fatalf("group %s is not where it is said to be", i.ID())
		}
		used[i.agent.info.ID] = used[i.agent.info.ID].Add(i.need())
		instances[i.agent.info.ID]++
		all = all.Add(i.need())
		if i.spec.Preemptible() {
			preemptible++
		}
	}
	for c := range s.reservations.All {
		switch {
		case c.Lost != (s.fleet.byID[c.Agent] == nil):
			t.Fatalf("claim %s is on %s: lost %v", c.Name, c.Agent, c.Lost)
		case c.Lost:
		case c.Holder() == "":
			used[c.Agent], all = used[c.Agent].Add(c.Needs()), all.Add(c.Needs())
		case s.instance(c.Holder()) == nil:
			t.Fatalf("claim %s is held by group %s, which is gone", c.Name, c.Holder())
		}
	}
	waits, backfills := 0, 0
	for e := range s.queue.All {
		if len(e.Instances) == 0 || s.queue.Get(e.Key) != e {
			t.Fatalf("entry %s with %d groups is in the queue", e.Key.Key, len(e.Instances))
		}
		waits += len(e.Instances)
		for _, id := range e.Instances {
			if s.queue.Of(id) != e || s.instance(id) != nil {
				t.Fatalf("group %s waits and does not", id)
			}
		}
		if b := e.Backfill(); b != nil && b.Long {
			backfills++
		}
		m.rightlyWaits(t, e)
	}
	if waits != s.queue.Len() || waits != s.queue.Waits("f") || backfills != s.queue.LongBackfills() ||
		preemptible != s.capacity.preemptible {
		t.Fatalf("%d groups wait, kept as %d and %d; %d long backfills, kept as %d; %d preemptible, kept as %d",
			waits, s.queue.Len(), s.queue.Waits("f"), backfills, s.queue.LongBackfills(), preemptible, s.capacity.preemptible)
	}
	subnets := map[netip.Prefix]bool{}
	for k, a := range s.fleet.order {
		subnets[a.subnet] = true
		listed := a.number == k && s.fleet.byID[a.info.ID] == a && !s.removed.Has(a.info.ID)
		if !listed || !a.subnet.IsValid() || s.subnets.Holder(a.subnet) != a.info.ID {
			t.Fatalf("machine %s, number %d of %d, has subnet %v: listed %v", a.info.ID, a.number, k, a.subnet, listed)
		}
		if now, n := s.capacity.pool.Used(a.info.ID); now != used[a.info.ID] || n != instances[a.info.ID] {
			t.Fatalf("of machine %s %v is taken by %d instances, the pool says %v by %d", a.info.ID, used[a.info.ID],
				instances[a.info.ID], now, n)
		}
	}
	if len(subnets) != len(s.fleet.order) || s.subnets.Usage().Used != len(s.fleet.order) ||
		len(s.fleet.byID) != len(s.fleet.order) {
		t.Fatalf("%d machines, kept as %d, have %d subnets, kept as %d", len(s.fleet.order), len(s.fleet.byID), len(subnets),
			s.subnets.Usage().Used)
	}
	if v := s.capacity.quota.View("/"); v.Used != all {
		t.Fatalf("%v is used, the quota tree says %v", all, v.Used)
	}
	m.usedSpecs(t)
}

// usedSpecs holds that a spec is there while something is made from it, and no longer.
func (m *machine) usedSpecs(t *rapid.T) {
	uses := map[*spec.Spec]int{}
	for i := range m.state.instances.All {
		uses[i.spec]++
	}
	for e := range m.state.queue.All {
		uses[e.Spec] += len(e.Instances)
	}
	for sp := range m.state.specs.All {
		if uses[sp] != sp.Uses() || sp.Uses() == 0 {
			t.Fatalf("spec of %s has %d uses, kept as %d", sp.Owner, uses[sp], sp.Uses())
		}
	}
}

// rightlyWaits holds that nothing waits that could be placed: machines are not looked at again where nothing became
// free, and that must hide none.
func (m *machine) rightlyWaits(t *rapid.T, e *queue.Entry) {
	s := m.state
	if e.Spec.Reservation != nil || e.Backfill() != nil {
		return
	}
	if k, _, _ := s.capacity.admit(e.Spec, e.Spec.Need, 1); k == 1 {
		if id, fits := s.capacity.pool.Best(e.Spec.Request); fits {
			t.Fatalf("entry %s waits, and machine %s has room: %v", e.Key.Key, id, s.refusal(e))
		}
	}
}
