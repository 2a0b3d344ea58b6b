package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/sim/timeline"
)

// Times of the stub agents.
const (
	heartbeat     = time.Second
	redialMin     = 300 * time.Millisecond
	redialMax     = 2 * time.Second
	repeatEnded   = 3 * time.Second // a terminal status that was not acknowledged
	readoptAfter  = 400 * time.Millisecond
	waitForPort   = 500 * time.Millisecond
	exitedSIGKILL = 137
	hostPorts     = 10 // that are given out on a machine
	fixedPorts    = 3  // the first of them, which specs ask for by number
)

// agent is a stub of one machine: its agent's process, its disk, and the containers that outlive the process. It speaks
// the frames of kernel and keeps to their contract.
type agent struct {
	timeline.Actor
	w    *World
	name string
	id   kernel.AgentID
	info kernel.Agent

	// The machine.
	on         bool // powered
	boot       int
	containers []*container
	nextPID    int
	sick       bool   // checks of its tasks fail
	foreign    uint16 // host port that somebody else listens on
	cut        bool   // off the network
	gone       bool   // it never comes back
	removed    bool   // it is no member any more

	// On its disk.
	seen      int64 // highest leader epoch
	instances []*local
	endpoints map[kernel.TaskID]endpoint
	version   uint64 // of endpoints, under seen; zero: none
	filling   bool   // endpoints come in parts

	// In its process.
	up          bool
	incarnation int
	link        *link
	upSeq       uint64
	applied     uint64
	spoke       time.Duration
	specs       []kernel.Spec // sent in this session
}

// container is ground truth: a process of a task on a machine.
type container struct {
	task    kernel.TaskID
	group   kernel.InstanceID
	ports   []uint16
	pid     int
	boot    int
	started time.Time
	code    int
	ended   bool
}

// endpoint is what an agent goes by when it connects somebody to a task.
type endpoint struct {
	ready   bool
	machine netip.Addr
}

// local is an instance as the agent keeps it on disk.
type local struct {
	kernel.Assignment
	spec    *kernel.Spec
	tasks   []kernel.Status
	acked   []bool
	dropped bool // to be ended and forgotten
	killing bool // in this process
}

func newAgent(w *World, n int) *agent {
	a := &agent{w: w, name: fmt.Sprintf("a%02d", n), id: kernel.AgentID(fmt.Sprintf("a%02d", n)), nextPID: 1000}
	a.info = kernel.Agent{
		ID: a.id, Hostname: a.name + ".example", Address: netip.AddrFrom4([4]byte{192, byte(n >> 8), 2, byte(n + 1)}),
		Attributes: map[string]string{"rack": fmt.Sprint("r", n%5)}, Region: "r", Zone: fmt.Sprint("z", n%3),
		Total:   kernel.Resources{MilliCPU: 4000 / w.climate.scarce, Mem: 8 * kernel.GiB / w.climate.scarce, Disk: 50 * kernel.GiB},
		Ports:   kernel.PortRange{First: 31000, Last: 31000 + hostPorts - 1},
		Version: "sim", Cgroup: "v2",
	}
	if n%8 == 0 {
		a.foreign = a.info.Ports.First + fixedPorts + uint16(n%(hostPorts-fixedPorts))
	}
	return a
}

func (a *agent) note(what, which string, x, y int64) { a.w.note(a.name, what, which, x, y) }

// powerOn boots the machine anew, with nothing running.
func (a *agent) powerOn() {
	a.on = true
	a.boot++
	a.note("machine boots, %d groups on disk", "", int64(len(a.instances)), 0)
	if a.boot > 1 && a.w.dice.Chance(0.3) { // it was given another address, or less memory
		b := a.info.Address.As4()
		b[2]++
		a.info.Address = netip.AddrFrom4(b)
		a.info.Total.Mem = int64(4+a.w.dice.IntN(5)) * kernel.GiB / a.w.climate.scarce
		a.w.reach(MachineChanged)
	}
	a.start()
}

// powerOff takes the machine and all that runs on it.
func (a *agent) powerOff() {
	a.note("machine dies with %d containers", "", int64(len(a.containers)), 0)
	a.on = false
	for _, c := range a.containers {
		a.w.judge.ended(a, c)
	}
	a.containers = nil
	a.kill()
}

// start begins an agent process: it reads its disk, looks at what runs and dials.
func (a *agent) start() {
	a.up = true
	a.incarnation++
	a.note("process starts, incarnation %d", "", int64(a.incarnation), 0)
	for _, g := range a.instances {
		g.killing = g.killing && a.w.plant.on(StopOnce)
	}
	if a.w.plant.on(AgentForgetsRunning) {
		a.instances = nil
	}
	a.w.After(a.w.dice.Between(0, readoptAfter), &a.Actor, func() {
		a.readopt()
		a.dial()
		a.beat()
	})
}

// kill ends the agent's process; containers go on.
func (a *agent) kill() {
	a.up = false
	a.Die()
	if l := a.link; l != nil {
		a.link = nil
		a.w.judge.connected(a, false)
		if l.agentEnd {
			l.agentEnd = false
			l.broken()
		}
	}
}

// readopt joins what the disk says with what runs.
func (a *agent) readopt() {
	for _, g := range append([]*local(nil), a.instances...) {
		for i := range g.tasks {
			s := &g.tasks[i]
			if s.State.Terminal() {
				continue
			}
			c := a.container(s.Task)
			switch {
			case c == nil && s.State > kernel.Staging:
				a.w.reach(TaskLostByReboot)
				a.report(g, i, kernel.Lost, kernel.ReasonReboot)
			case c != nil && c.ended:
				a.w.reach(TaskEndedWhileAway)
				a.report(g, i, kernel.Failed, kernel.ReasonExit)
			case c != nil:
				a.w.reach(TaskReadopted)
				a.w.judge.seen(a, c)
				if s.State < kernel.Running || s.State == kernel.Running && len(s.Health) > 0 && s.Health[0].Alive == a.sick {
					a.report(g, i, kernel.Running, kernel.ReasonNone)
				}
			}
		}
		a.pursue(g)
	}
}

// dial looks for a master that says it leads: mostly the newest, sometimes one that only believes so.
func (a *agent) dial() {
	if !a.up || a.link != nil {
		return
	}
	if m := a.w.someLeader(); m != nil && !a.cut && !m.Paused {
		l := &link{w: a.w, serial: a.w.serial(), agent: a, master: m, agentEnd: true, masterEnd: true, up: a.w.Now, down: a.w.Now}
		a.link, a.upSeq, a.applied, a.filling, a.specs = l, 0, 0, false, nil
		if a.w.plant.on(EpochInSession) {
			a.seen = 0
		}
		a.w.judge.dialed(a, m)
		a.note("dials, session %d to %d", m.name, int64(l.serial), m.epoch())
		m.links = append(m.links, l)
		a.send(kernel.Up{Register: a.registration()})
		return
	}
	a.w.After(a.w.slow(a.w.dice.Between(redialMin, redialMax)), &a.Actor, a.dial)
}

func (a *agent) registration() *kernel.Registration {
	r := &kernel.Registration{Agent: a.info, Incarnation: fmt.Sprint(a.name, ".", a.incarnation),
		Boot: a.bootID(), Epoch: a.seen, Endpoints: a.version}
	for _, g := range a.instances {
		for i := range g.tasks {
			if !g.acked[i] && !g.dropped {
				r.Statuses = append(r.Statuses, g.tasks[i])
			}
		}
	}
	return r
}

func (a *agent) bootID() string { return fmt.Sprint(a.name, ".boot", a.boot) }

// send sends one frame of the session, if there is one.
func (a *agent) send(f kernel.Up) {
	if a.link == nil {
		return
	}
	a.upSeq++
	f.Seq, f.Applied = a.upSeq, a.applied
	a.spoke = a.w.Now
	a.link.sendUp(f)
}

// beat sends heartbeats and repeats what was not acknowledged.
func (a *agent) beat() {
	a.w.After(a.w.slow(heartbeat), &a.Actor, a.beat)
	if a.link == nil {
		return
	}
	var again []kernel.Status
	for _, g := range a.instances {
		for i := range g.tasks {
			if s := &g.tasks[i]; s.State.Terminal() && !g.acked[i] && !g.dropped && a.w.Wall().Sub(s.Time) > repeatEnded {
				again = append(again, *s)
			}
		}
	}
	if len(again) > 0 {
		a.w.reach(StatusRepeated)
		a.send(kernel.Up{Statuses: again})
	} else if a.w.Now-a.spoke >= a.w.slow(heartbeat) {
		a.send(kernel.Up{})
	}
}

// lost hears that the session is over and dials again.
func (a *agent) lost(l *link) {
	if a.link == l {
		a.link = nil
		a.w.judge.connected(a, false)
		a.w.After(a.w.slow(a.w.dice.Between(redialMin, redialMax)), &a.Actor, a.dial)
	}
}

func (a *agent) hangUp(why string) {
	l := a.link
	l.closeBy(true, why)
	a.lost(l)
}

// receive takes a frame of the master: once, in order, and from no leader older than the newest it has heard of.
func (a *agent) receive(l *link, f kernel.Down) {
	if a.link != l {
		return
	}
	switch {
	case f.Epoch < a.seen && !a.w.plant.on(AgentTakesLowerEpoch):
		a.w.reach(FrameRefused)
		a.hangUp("its leader was replaced")
		return
	case f.Seq <= a.applied:
		a.w.reach(FrameRepeated)
		return
	case f.Seq != a.applied+1:
		a.w.reach(FrameGap)
		a.hangUp("a frame is missing")
		return
	}
	a.w.judge.applied(a, f.Epoch)
	if f.Epoch > a.seen {
		a.seen, a.version, a.filling = f.Epoch, 0, false
	}
	a.applied = f.Seq
	a.note("applies frame %d of epoch %d", "", int64(f.Seq), f.Epoch)
	a.apply(f)
}

func (a *agent) apply(f kernel.Down) {
	if f.Sync && !a.w.plant.on(AgentKeepsUnknown) {
		for _, g := range append([]*local(nil), a.instances...) {
			if !mentions(f.Assignments, g.ID) {
				a.w.reach(SyncDropped)
				a.drop(g)
			}
		}
	}
	for _, id := range f.Drop {
		if g := a.local(id); g != nil {
			a.drop(g)
		}
	}
	for _, ack := range f.Acks {
		a.acknowledge(ack)
	}
	a.specs = append(a.specs, f.Specs...)
	for i := range f.Assignments {
		a.assign(f.Assignments[i])
	}
	if f.Endpoints != nil {
		a.learn(f.Endpoints)
	}
}

// learn brings the agent's endpoints up to date.
func (a *agent) learn(d *kernel.EndpointDelta) {
	switch {
	case d.Full && !a.filling:
		a.endpoints = map[kernel.TaskID]endpoint{}
	case !d.Full && d.From != a.version:
		a.w.fail("agent %s holds endpoints of version %d and was sent what changed since %d", a.name, a.version, d.From)
	}
	for i := range d.Set {
		a.endpoints[d.Set[i].Task] = endpoint{d.Set[i].Ready, d.Set[i].Machine}
	}
	for _, id := range d.Remove {
		delete(a.endpoints, id)
	}
	if a.filling = d.More; !d.More {
		a.version = d.To
	}
}

func mentions(groups []kernel.Assignment, id kernel.InstanceID) bool {
	for i := range groups {
		if groups[i].ID == id {
			return true
		}
	}
	return false
}

func (a *agent) local(id kernel.InstanceID) *local {
	for _, g := range a.instances {
		if g.ID == id {
			return g
		}
	}
	return nil
}

// assign makes an instance, or changes the goal of one.
func (a *agent) assign(want kernel.Assignment) {
	g := a.local(want.ID)
	if g == nil {
		spec := a.specOf(want.Spec)
		if spec == nil {
			a.w.fail("agent %s was given group %s without its spec %s", a.name, want.ID, want.Spec)
			return
		}
		g = &local{Assignment: want, spec: spec, acked: make([]bool, len(spec.Tasks))}
		for _, id := range spec.TaskIDs(want.ID) {
			g.tasks = append(g.tasks, kernel.Status{Task: id, Instance: want.ID, State: kernel.Staging, Time: a.w.Wall()})
		}
		a.instances = append(a.instances, g)
		a.note("takes group on", string(want.ID), 0, 0)
	} else if g.dropped {
		a.w.fail("agent %s was given group %s again after it was dropped", a.name, want.ID)
		return
	}
	g.Goal, g.Why = want.Goal, want.Why
	a.pursue(g)
}

func (a *agent) specOf(id kernel.SpecID) *kernel.Spec {
	for i := range a.specs {
		if a.specs[i].ID == id {
			return &a.specs[i]
		}
	}
	for _, g := range a.instances {
		if g.spec.ID == id {
			return g.spec
		}
	}
	return nil
}

func (a *agent) drop(g *local) {
	g.dropped = true
	a.pursue(g)
}

func (a *agent) acknowledge(ack kernel.StatusAck) {
	for _, g := range a.instances {
		for i := range g.tasks {
			if s := &g.tasks[i]; s.Task == ack.Task && s.Seq <= ack.Seq && s.State.Terminal() {
				g.acked[i] = true
				a.forgetIfDone(g)
				return
			}
		}
	}
}

// forgetIfDone takes an instance off the disk once all its tasks ended and nobody needs to hear of it any more.
func (a *agent) forgetIfDone(g *local) {
	for i := range g.tasks {
		if !g.tasks[i].State.Terminal() || !g.acked[i] && !g.dropped {
			return
		}
	}
	for i, o := range a.instances {
		if o == g {
			a.instances = append(a.instances[:i], a.instances[i+1:]...)
			break
		}
	}
	for i := 0; i < len(a.containers); {
		if c := a.containers[i]; c.group == g.ID {
			a.containers = append(a.containers[:i], a.containers[i+1:]...)
			continue
		}
		i++
	}
	a.note("forgets", string(g.ID), 0, 0)
}
