package machine

import (
	"fmt"
	"net/netip"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/sim/rare"
)

// PowerOn boots the machine anew, with nothing running.
func (a *Agent) PowerOn() {
	a.On = true
	a.Boot++
	a.Note("machine boots, %d groups on disk", "", int64(len(a.Instances)), 0)
	if a.Boot > 1 && a.w.Dice.Chance(0.3) { // it was given another address, or less memory
		b := a.Info.Address.As4()
		b[2]++
		a.Info.Address = netip.AddrFrom4(b)
		a.Info.Total.Mem = int64(4+a.w.Dice.IntN(5)) * kernel.GiB / a.w.Scarce
		a.w.Reach(rare.MachineChanged)
	}
	a.Start()
}

// PowerOff takes the machine and all that runs on it.
func (a *Agent) PowerOff() {
	a.Note("machine dies with %d containers", "", int64(len(a.Containers)), 0)
	a.On = false
	for _, c := range a.Containers {
		a.w.Judge.Ended(a, c)
	}
	a.Containers = nil
	a.Kill()
}

// Start begins an agent process: it reads its disk, looks at what runs and dials.
func (a *Agent) Start() {
	a.Up = true
	a.incarnation++
	a.Note("process starts, incarnation %d", "", int64(a.incarnation), 0)
	for _, g := range a.Instances {
		g.killing = g.killing && a.w.Plant.On(bug.StopOnce)
	}
	if a.w.Plant.On(bug.AgentForgetsRunning) {
		a.Instances = nil
	}
	a.w.After(a.w.Dice.Between(0, readoptAfter), &a.Actor, func() {
		a.readopt()
		a.dial()
		a.beat()
	})
}

// Kill ends the agent's process; containers go on.
func (a *Agent) Kill() {
	a.Up = false
	a.Die()
	if l := a.Link; l != nil {
		a.Link = nil
		a.w.Judge.Connected(a, false)
		if l.AgentEnd {
			l.AgentEnd = false
			l.Broken()
		}
	}
}

// readopt joins what the disk says with what runs.
func (a *Agent) readopt() {
	for _, g := range append([]*Local(nil), a.Instances...) {
		for i := range g.tasks {
			s := &g.tasks[i]
			if s.State.Terminal() {
				continue
			}
			c := a.container(s.Task)
			switch {
			case c == nil && s.State > kernel.Staging:
				a.w.Reach(rare.TaskLostByReboot)
				a.report(g, i, kernel.Lost, kernel.ReasonReboot)
			case c != nil && c.Ended:
				a.w.Reach(rare.TaskEndedWhileAway)
				a.report(g, i, kernel.Failed, kernel.ReasonExit)
			case c != nil:
				a.w.Reach(rare.TaskReadopted)
				a.w.Judge.Seen(a, c)
				if s.State < kernel.Running || s.State == kernel.Running && len(s.Health) > 0 && s.Health[0].Alive == a.Sick {
					a.report(g, i, kernel.Running, kernel.ReasonNone)
				}
			}
		}
		a.pursue(g)
	}
}

// dial looks for a master that says it leads: mostly the newest, sometimes one that only believes so.
func (a *Agent) dial() {
	if !a.Up || a.Link != nil {
		return
	}
	if m := a.w.Leader(); m != nil && !a.Cut && !m.Process().Paused {
		l := &Link{w: a.w, Serial: a.w.Serial(), Agent: a, Master: m, AgentEnd: true, MasterEnd: true,
			up: a.w.Now, down: a.w.Now}
		a.Link, a.upSeq, a.applied, a.filling, a.specs = l, 0, 0, false, nil
		if a.w.Plant.On(bug.EpochInSession) {
			a.seen = 0
		}
		a.w.Judge.Dialed(a, m.Epoch())
		a.Note("dials, session %d to %d", m.Name(), int64(l.Serial), m.Epoch())
		m.Accept(l)
		a.send(kernel.Up{Register: a.registration()})
		return
	}
	a.w.After(a.w.Slow(a.w.Dice.Between(redialMin, redialMax)), &a.Actor, a.dial)
}

func (a *Agent) registration() *kernel.Registration {
	r := &kernel.Registration{Agent: a.Info, Incarnation: fmt.Sprint(a.Name, ".", a.incarnation),
		Boot: a.bootID(), Epoch: a.seen, Endpoints: a.version}
	for _, g := range a.Instances {
		for i := range g.tasks {
			if !g.acked[i] && !g.Dropped {
				r.Statuses = append(r.Statuses, g.tasks[i])
			}
		}
	}
	return r
}

func (a *Agent) bootID() string { return fmt.Sprint(a.Name, ".boot", a.Boot) }

// beat sends heartbeats and repeats what was not acknowledged.
func (a *Agent) beat() {
	a.w.After(a.w.Slow(heartbeat), &a.Actor, a.beat)
	if a.Link == nil {
		return
	}
	var again []kernel.Status
	for _, g := range a.Instances {
		for i := range g.tasks {
			if s := &g.tasks[i]; s.State.Terminal() && !g.acked[i] && !g.Dropped && a.w.Wall().Sub(s.Time) > repeatEnded {
				again = append(again, *s)
			}
		}
	}
	if len(again) > 0 {
		a.w.Reach(rare.StatusRepeated)
		a.send(kernel.Up{Statuses: again})
	} else if a.w.Now-a.spoke >= a.w.Slow(heartbeat) {
		a.send(kernel.Up{})
	}
}

// lost hears that the session is over and dials again.
func (a *Agent) lost(l *Link) {
	if a.Link == l {
		a.Link = nil
		a.w.Judge.Connected(a, false)
		a.w.After(a.w.Slow(a.w.Dice.Between(redialMin, redialMax)), &a.Actor, a.dial)
	}
}

func (a *Agent) hangUp(why string) {
	l := a.Link
	l.CloseBy(true, why)
	a.lost(l)
}

// receive takes a frame of the master: once, in order, and from no leader older than the newest it has heard of.
func (a *Agent) receive(l *Link, f kernel.Down) {
	if a.Link != l {
		return
	}
	switch {
	case f.Epoch < a.seen && !a.w.Plant.On(bug.AgentTakesLowerEpoch):
		a.w.Reach(rare.FrameRefused)
		a.hangUp("its leader was replaced")
		return
	case f.Seq <= a.applied:
		a.w.Reach(rare.FrameRepeated)
		return
	case f.Seq != a.applied+1:
		a.w.Reach(rare.FrameGap)
		a.hangUp("a frame is missing")
		return
	}
	a.w.Judge.Applied(a, f.Epoch)
	if f.Epoch > a.seen {
		a.seen, a.version, a.filling = f.Epoch, 0, false
	}
	a.applied = f.Seq
	a.Note("applies frame %d of epoch %d", "", int64(f.Seq), f.Epoch)
	a.apply(f)
}

func (a *Agent) apply(f kernel.Down) {
	if f.Sync && !a.w.Plant.On(bug.AgentKeepsUnknown) {
		for _, g := range append([]*Local(nil), a.Instances...) {
			if !Mentions(f.Assignments, g.ID) {
				a.w.Reach(rare.SyncDropped)
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
		a.Acknowledge(ack)
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
func (a *Agent) learn(d *kernel.EndpointDelta) {
	switch {
	case d.Full && !a.filling:
		a.Endpoints = map[kernel.TaskID]Endpoint{}
	case !d.Full && d.From != a.version:
		a.w.Fail("agent %s holds endpoints of version %d and was sent what changed since %d", a.Name, a.version, d.From)
	}
	for i := range d.Set {
		a.Endpoints[d.Set[i].Task] = Endpoint{d.Set[i].Ready, d.Set[i].Machine}
	}
	for _, id := range d.Remove {
		delete(a.Endpoints, id)
	}
	if a.filling = d.More; !d.More {
		a.version = d.To
	}
}

// Mentions reports whether a list has an instance.
func Mentions(groups []kernel.Assignment, id kernel.InstanceID) bool {
	for i := range groups {
		if groups[i].ID == id {
			return true
		}
	}
	return false
}

// assign makes an instance, or changes the goal of one.
func (a *Agent) assign(want kernel.Assignment) {
	g := a.local(want.ID)
	if g == nil {
		spec := a.specOf(want.Spec)
		if spec == nil {
			a.w.Fail("agent %s was given group %s without its spec %s", a.Name, want.ID, want.Spec)
			return
		}
		g = &Local{Assignment: want, spec: spec, acked: make([]bool, len(spec.Tasks))}
		for _, id := range spec.TaskIDs(want.ID) {
			g.tasks = append(g.tasks, kernel.Status{Task: id, Instance: want.ID, State: kernel.Staging, Time: a.w.Wall()})
		}
		a.Instances = append(a.Instances, g)
		a.Note("takes group on", string(want.ID), 0, 0)
	} else if g.Dropped {
		a.w.Fail("agent %s was given group %s again after it was dropped", a.Name, want.ID)
		return
	}
	g.Goal, g.Why = want.Goal, want.Why
	a.pursue(g)
}

func (a *Agent) specOf(id kernel.SpecID) *kernel.Spec {
	for i := range a.specs {
		if a.specs[i].ID == id {
			return &a.specs[i]
		}
	}
	for _, g := range a.Instances {
		if g.spec.ID == id {
			return g.spec
		}
	}
	return nil
}

func (a *Agent) drop(g *Local) {
	g.Dropped = true
	a.pursue(g)
}

// Acknowledge takes that a master has made an end durable.
func (a *Agent) Acknowledge(ack kernel.StatusAck) {
	for _, g := range a.Instances {
		for i := range g.tasks {
			if s := &g.tasks[i]; s.Task == ack.Task && s.Seq <= ack.Seq && s.State.Terminal() {
				g.acked[i] = true
				a.forgetIfDone(g)
				return
			}
		}
	}
}
