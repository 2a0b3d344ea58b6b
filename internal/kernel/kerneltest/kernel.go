// Package kerneltest holds a twin of the kernel for the tests of schedulers: it keeps the contract of kernel.Kernel in
// memory, with agents that have room for a number of instances, and lets a test say what becomes of each instance.
//
// Nothing happens by itself unless Auto is on: then instances run and pass their checks as soon as they are placed, and
// end as soon as they are stopped. What a test does wrong (an unknown instance, an instance id used twice) panics.
package kerneltest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// Kernel is the twin. Make one with New. It is safe for concurrent use.
type Kernel struct {
	now func() time.Time

	mu           sync.Mutex // guards everything below
	agents       map[kernel.AgentID]*agent
	groups       map[kernel.InstanceID]*instance
	ended        map[kernel.InstanceID]bool
	queue        map[string]*entry // by framework and key
	watches      map[*watch]bool
	complete     bool
	auto         bool
	brake        bool // Forget is refused
	next         int  // for addresses and ports
	invalid      error
	full         error // of Resize
	reservations map[string]*reservation
	exposed      map[string][]uint16 // published ports, by framework and owner
	vips         map[string]netip.Addr
}

type agent struct {
	view kernel.AgentView
	room int
}

type instance struct {
	spec kernel.Spec
	inst kernel.Instance
}

type entry struct {
	spec kernel.Spec
	kernel.Waiting
}

var _ kernel.Kernel = (*Kernel)(nil)

// New returns a twin without agents, whose view is complete. now is its clock.
func New(now func() time.Time) *Kernel {
	return &Kernel{now: now, agents: map[kernel.AgentID]*agent{}, groups: map[kernel.InstanceID]*instance{},
		ended: map[kernel.InstanceID]bool{},
		queue: map[string]*entry{}, watches: map[*watch]bool{}, complete: true,
		reservations: map[string]*reservation{}, exposed: map[string][]uint16{}, vips: map[string]netip.Addr{}}
}

// AddAgent adds an agent with room for so many instances, or changes the room of one.
func (k *Kernel) AddAgent(id kernel.AgentID, room int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.agents[id]; a != nil {
		a.room = room
	} else {
		v := kernel.AgentView{Agent: kernel.Agent{ID: id, Hostname: string(id) + ".example",
			Address: netip.MustParseAddr("192.0.2.1")},
			Connected: true}
		k.agents[id] = &agent{v, room}
	}
	k.drain()
}

// Auto turns on or off that instances do what is expected of them at once; turning it on catches up.
func (k *Kernel) Auto(on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.auto = on
	if on {
		for _, g := range k.sorted() {
			k.live(g)
		}
	}
}

// Complete sets whether every agent has reported.
func (k *Kernel) Complete(is bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.complete = is
	for _, g := range k.groups {
		g.inst.Known = g.inst.Known || is
	}
	k.wakeAll()
}

// Brake sets whether Forget is refused.
func (k *Kernel) Brake(on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.brake = on
}

// RefuseSpecs has Launch refuse everything with err, until nil.
func (k *Kernel) RefuseSpecs(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.invalid = err
}

// Failover does what a change of leader does: the queue is gone, watches end, and what agents say is not known until
// they report. Complete(true) has them report.
func (k *Kernel) Failover() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.queue)
	k.complete = false
	for _, g := range k.groups {
		g.inst.Known = false
	}
	for w := range k.watches {
		w.lost = true
		w.signal()
	}
}

// Lose makes an agent unreachable; Return brings it back.
func (k *Kernel) Lose(id kernel.AgentID) { k.reach(id, k.now()) }

// Return makes an agent reachable again. Groups that were stopped or forgotten meanwhile end.
func (k *Kernel) Return(id kernel.AgentID) { k.reach(id, time.Time{}) }

func (k *Kernel) reach(id kernel.AgentID, away time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.agents[id]
	a.view.Connected, a.view.Away = away.IsZero(), away
	for _, g := range k.sorted() {
		if g.inst.Agent == id {
			g.inst.Away = away
			k.touch(g)
			if away.IsZero() && k.auto {
				k.live(g)
			}
		}
	}
	if away.IsZero() {
		k.drain()
	}
}

// Report changes the status of an instance's task; a terminal state ends the instance.
func (k *Kernel) Report(id kernel.InstanceID, change func(*kernel.Status)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[id]
	if g == nil {
		panic(fmt.Sprintf("kerneltest: no group %s", id))
	}
	k.report(g, change)
}

// Run reports that an instance runs and passes all its checks.
func (k *Kernel) Run(id kernel.InstanceID) {
	k.Report(id, func(s *kernel.Status) { k.run(k.groups[id], s, true) })
}

// RunUnchecked reports that an instance runs and no check has a result yet.
func (k *Kernel) RunUnchecked(id kernel.InstanceID) {
	k.Report(id, func(s *kernel.Status) { k.run(k.groups[id], s, false) })
}

// Sicken reports that an instance's checks fail, so often that they count.
func (k *Kernel) Sicken(id kernel.InstanceID) {
	k.Report(id, func(s *kernel.Status) {
		for i := range s.Health {
			s.Health[i] = kernel.Health{Known: true, Failures: max(1, k.groups[id].spec.Tasks[0].Checks[i].MaxFailed),
				LastBad: k.now(), LastCause: "no answer"}
		}
	})
}

// End reports that an instance ended in a state.
func (k *Kernel) End(id kernel.InstanceID, state kernel.State, why string) {
	k.Report(id, func(s *kernel.Status) { s.State, s.Message = state, why })
}

// Instances lists all placed instances by id.
func (k *Kernel) Instances() []kernel.Instance {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := []kernel.Instance{}
	for _, g := range k.sorted() {
		out = append(out, g.inst)
	}
	return out
}

func (k *Kernel) sorted() []*instance {
	out := []*instance{}
	for _, id := range slices.Sorted(maps.Keys(k.groups)) {
		out = append(out, k.groups[id])
	}
	return out
}

func (k *Kernel) run(g *instance, s *kernel.Status, checked bool) {
	s.State = kernel.Running
	if s.Started.IsZero() {
		s.Started = k.now()
	}
	s.Health = nil
	for range g.spec.Tasks[0].Checks {
		h := kernel.Health{}
		if checked {
			h = kernel.Health{Known: true, Alive: true, First: k.now(), LastGood: k.now()}
		}
		s.Health = append(s.Health, h)
	}
}

// live does what an instance on an agent that answers does when nothing goes wrong.
func (k *Kernel) live(g *instance) {
	if !g.inst.Away.IsZero() {
		return
	}
	k.report(g, func(s *kernel.Status) {
		if g.inst.Goal == kernel.GoalStop {
			s.State, s.Reason = kernel.Killed, kernel.ReasonKilled
		} else if s.State < kernel.Running {
			k.run(g, s, true)
		}
	})
}

func (k *Kernel) report(g *instance, change func(*kernel.Status)) {
	g.inst.Statuses = slices.Clone(g.inst.Statuses)
	s := &g.inst.Statuses[0]
	s.Health = slices.Clone(s.Health)
	change(s)
	s.Seq++
	s.Time = k.now()
	g.inst.Known = true
	if s.State.Terminal() {
		k.remove(g)
		return
	}
	k.touch(g)
}

func (k *Kernel) remove(g *instance) {
	g.inst.Removed = true
	k.touch(g)
	delete(k.groups, g.inst.ID)
	k.ended[g.inst.ID] = true
	for _, c := range k.reservations {
		if c.holder == g.inst.ID {
			c.holder = ""
		}
	}
	k.agents[g.inst.Agent].view.Instances--
	k.drain()
}

func (k *Kernel) touch(g *instance) {
	for w := range k.watches {
		if w.framework == g.inst.Framework {
			w.pending[g.inst.ID] = g.inst
			w.signal()
		}
	}
}

func (k *Kernel) wakeAll() {
	for w := range k.watches {
		for _, g := range k.groups {
			if w.framework == g.inst.Framework {
				w.pending[g.inst.ID] = g.inst
			}
		}
		w.changed = true
		w.signal()
	}
}

// drain places what waits, as far as there is room.
func (k *Kernel) drain() {
	for _, key := range slices.Sorted(maps.Keys(k.queue)) {
		e := k.queue[key]
		e.Tries++
		for len(e.Instances) > 0 && k.place(e.spec, e.Instances[0]) {
			e.Instances = slices.Clone(e.Instances[1:])
		}
		if len(e.Instances) == 0 {
			delete(k.queue, key)
		}
	}
}

func (k *Kernel) place(spec kernel.Spec, id kernel.InstanceID) bool {
	var best *agent
	for _, a := range slices.Sorted(maps.Keys(k.agents)) {
		if c := k.agents[a]; c.view.Connected && c.view.Instances < c.room &&
			(best == nil || c.view.Instances < best.view.Instances) {
			best = c
		}
	}
	if best == nil {
		return false
	}
	var held *reservation
	if spec.Reservation != nil {
		if held = k.reservationFor(&spec, best.view.ID); held == nil {
			return false
		}
		held.holder = id
	}
	best.view.Instances++
	k.next++
	g := &instance{spec: spec, inst: kernel.Instance{
		Assignment: kernel.Assignment{ID: id, Spec: spec.ID, Placed: k.now(), Goal: kernel.GoalRun},
		Framework:  spec.Framework, Owner: spec.Owner, Version: spec.Version, Agent: best.view.ID,
		Hostname: best.view.Hostname, Known: true}}
	if spec.Network.Mode == kernel.NetworkBridge {
		g.inst.Address = netip.AddrFrom4([4]byte{10, 1, byte(k.next >> 8), byte(k.next)})
	}
	for i := range spec.Ports() {
		g.inst.HostPorts = append(g.inst.HostPorts, uint16(20000+(k.next*8+i)%40000))
	}
	if held != nil && held.Address.IsValid() {
		g.inst.Address, g.inst.HostPorts = held.Address, held.HostPorts
	} else if held != nil {
		held.Address, held.HostPorts = g.inst.Address, g.inst.HostPorts
	}
	for _, t := range spec.TaskIDs(id) {
		g.inst.Statuses = append(g.inst.Statuses, kernel.Status{Task: t, Instance: id})
	}
	k.groups[id] = g
	k.touch(g)
	if k.auto {
		k.live(g)
	}
	return true
}

func queueKey(framework, key string) string { return framework + "\x00" + key }

// Launch implements kernel.Kernel.
func (k *Kernel) Launch(ctx context.Context, r kernel.LaunchRequest) (kernel.LaunchResult, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.invalid != nil {
		return kernel.LaunchResult{}, k.invalid
	}
	if r.Spec.ID == "" {
		return kernel.LaunchResult{}, fmt.Errorf("spec of %s is not sealed: %w", r.Spec.Owner, errdefs.ErrInvalidArgument)
	}
	e := k.queue[queueKey(r.Spec.Framework, r.Key)]
	if e == nil {
		e = &entry{spec: r.Spec, Waiting: kernel.Waiting{Key: r.Key, Owner: r.Spec.Owner, Version: r.Spec.Version,
			Since: k.now()}}
		k.queue[queueKey(r.Spec.Framework, r.Key)] = e
	}
	for _, id := range r.Instances {
		if k.ended[id] {
			panic(fmt.Sprintf("kerneltest: group %s is launched again", id))
		}
		if k.groups[id] == nil && !slices.Contains(e.Instances, id) {
			e.Instances = append(e.Instances, id)
		}
	}
	e.Refusal = kernel.Refusal{Agents: len(k.agents),
		Reasons: []kernel.Rejected{{Filter: "cpus", Agents: len(k.agents), Detail: "no slot is free"}}}
	waiting := len(e.Instances)
	k.drain()
	res := kernel.LaunchResult{}
	for _, id := range r.Instances {
		if g := k.groups[id]; g != nil {
			res.Placed = append(res.Placed, g.inst.Record())
		}
	}
	if k.queue[queueKey(r.Spec.Framework, r.Key)] != nil {
		res.Waiting = min(waiting, len(e.Instances))
		res.Refusal = &e.Refusal
	}
	return res, nil
}

// Withdraw implements kernel.Kernel.
func (k *Kernel) Withdraw(ctx context.Context, framework, key string,
	groups []kernel.InstanceID) (taken []kernel.InstanceID, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.queue[queueKey(framework, key)]
	if e == nil {
		return nil, nil
	}
	e.Instances = slices.DeleteFunc(slices.Clone(e.Instances), func(id kernel.InstanceID) bool {
		out := groups == nil || slices.Contains(groups, id)
		if k.ended[id] = k.ended[id] || out; out {
			taken = append(taken, id)
		}
		return out
	})
	if len(e.Instances) == 0 {
		delete(k.queue, queueKey(framework, key))
	}
	return taken, nil
}

// Stop implements kernel.Kernel.
func (k *Kernel) Stop(ctx context.Context, framework string, groups []kernel.InstanceID, why string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range groups {
		if g := k.groups[id]; g != nil {
			g.inst.Goal, g.inst.Why = kernel.GoalStop, why
			if k.auto {
				k.live(g)
			} else if g.inst.Away.IsZero() {
				k.report(g, func(s *kernel.Status) { s.State = kernel.Killing })
			}
		}
	}
	return nil
}

// Forget implements kernel.Kernel.
func (k *Kernel) Forget(ctx context.Context, framework string, groups []kernel.InstanceID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range groups {
		if g := k.groups[id]; k.brake || g != nil && g.inst.Away.IsZero() {
			return fmt.Errorf("forget %s: %w", id, errdefs.ErrFailedPrecondition)
		}
	}
	for _, id := range groups {
		if g := k.groups[id]; g != nil {
			g.inst.Statuses = slices.Clone(g.inst.Statuses)
			g.inst.Statuses[0].State, g.inst.Statuses[0].Reason = kernel.Gone, kernel.ReasonAgentGone
			k.remove(g)
		}
	}
	return nil
}

// Queue implements kernel.Kernel.
func (k *Kernel) Queue(framework string) []kernel.Waiting {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := []kernel.Waiting{}
	for _, key := range slices.Sorted(maps.Keys(k.queue)) {
		if e := k.queue[key]; e.spec.Framework == framework {
			w := e.Waiting
			w.Instances = slices.Clone(w.Instances)
			out = append(out, w)
		}
	}
	return out
}

// Agents implements kernel.Kernel.
func (k *Kernel) Agents() []kernel.AgentView {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := []kernel.AgentView{}
	for _, id := range slices.Sorted(maps.Keys(k.agents)) {
		out = append(out, k.agents[id].view)
	}
	return out
}

// watch is a kernel.InstanceWatch.
type watch struct {
	k         *Kernel
	framework string
	pending   map[kernel.InstanceID]kernel.Instance // guarded by k.mu
	changed   bool                                  // likewise
	lost      bool                                  // likewise
	wake      chan struct{}                         // holds a token when there may be something new
}

// Watch implements kernel.Kernel.
func (k *Kernel) Watch(framework string) kernel.InstanceWatch {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := &watch{k: k, framework: framework, pending: map[kernel.InstanceID]kernel.Instance{}, changed: true,
		wake: make(chan struct{}, 1)}
	for id, g := range k.groups {
		if g.inst.Framework == framework {
			w.pending[id] = g.inst
		}
	}
	k.watches[w] = true
	w.signal()
	return w
}

func (w *watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Next implements kernel.InstanceWatch.
func (w *watch) Next(ctx context.Context) (kernel.Changes, error) {
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return kernel.Changes{}, context.Cause(ctx)
		}
		if c, ok, err := w.take(); ok || err != nil {
			return c, err
		}
	}
}

func (w *watch) take() (c kernel.Changes, ok bool, err error) {
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	if w.lost {
		return c, false, fmt.Errorf("the leader changed: %w", errdefs.ErrUnavailable)
	}
	if len(w.pending) == 0 && !w.changed {
		return c, false, nil
	}
	c = kernel.Changes{Complete: w.k.complete}
	for _, id := range slices.Sorted(maps.Keys(w.pending)) {
		i := w.pending[id]
		c.Instances = append(c.Instances, i.Record())
	}
	clear(w.pending)
	w.changed = false
	return c, true, nil
}

// Close implements kernel.InstanceWatch.
func (w *watch) Close() {
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	delete(w.k.watches, w)
}

func key(framework, name string) string { return framework + "\x00" + name }

// claimed finds or makes the reservation of an instance about to be placed on an agent; it is nil when somebody holds
// it, or when it is elsewhere.
func (k *Kernel) reservationFor(spec *kernel.Spec, on kernel.AgentID) *reservation {
	c := k.reservations[key(spec.Framework, spec.Reservation.Name)]
	if c == nil {
		c = &reservation{ReservationView: kernel.ReservationView{Reservation: *spec.Reservation, Framework: spec.Framework,
			Role: spec.Role, Agent: on}}
		k.reservations[key(spec.Framework, spec.Reservation.Name)] = c
	}
	if c.holder != "" || c.Agent != on || c.Released {
		return nil
	}
	c.Volumes = spec.Reservation.Volumes
	return c
}
