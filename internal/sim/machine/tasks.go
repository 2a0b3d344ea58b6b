package machine

import (
	"slices"
	"time"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/sim/rare"
)

// pursue brings an instance towards its goal, from whatever point it was left at.
func (a *Agent) pursue(g *Local) {
	if g.Goal == kernel.GoalStop || g.Dropped {
		a.stop(g)
		a.forgetIfDone(g)
		return
	}
	for i := range g.tasks {
		if g.tasks[i].State == kernel.Staging && g.tasks[i].Seq == 0 {
			a.report(g, i, kernel.Staging, kernel.ReasonNone)
			a.step(g, i, a.w.Dice.Between(10*time.Millisecond, 800*time.Millisecond), a.create)
		} else if g.tasks[i].State < kernel.Running && a.container(g.tasks[i].Task) == nil {
			a.step(g, i, 10*time.Millisecond, a.create)
		}
	}
}

// step does the next thing to a task, unless its instance is to stop or it ended by then.
func (a *Agent) step(g *Local, i int, d time.Duration, do func(*Local, int)) {
	a.w.After(d, &a.Actor, func() {
		if !g.killing && !g.tasks[i].State.Terminal() {
			do(g, i)
		}
	})
}

// create makes a task's container, once its host ports are free.
func (a *Agent) create(g *Local, i int) {
	id := g.tasks[i].Task
	if a.container(id) != nil && !a.w.Plant.On(bug.AgentForgetsRunning) {
		return
	}
	ports := portsOf(g, i)
	if slices.Contains(ports, a.Foreign) {
		a.w.Reach(rare.PortTaken)
		a.report(g, i, kernel.Failed, kernel.ReasonPort)
		a.stop(g)
		return
	}
	if holder := a.holder(ports); holder != nil {
		if l := a.local(holder.Group); l == nil || !l.killing {
			a.w.Judge.Hold(invariant.SharedPort(a.ID, g.ID, holder.Group))
		}
		a.w.Reach(rare.PortWaited)
		a.step(g, i, waitForPort, a.create)
		return
	}
	a.nextPID++
	c := &Container{Task: id, Group: g.ID, ports: ports, PID: a.nextPID, Boot: a.Boot, Started: a.w.Wall()}
	a.Containers = append(a.Containers, c)
	a.w.Judge.Made(a, c)
	a.report(g, i, kernel.Starting, kernel.ReasonNone)
	a.step(g, i, a.w.Dice.Between(5*time.Millisecond, 200*time.Millisecond), func(g *Local, i int) {
		if !c.Ended {
			a.report(g, i, kernel.Running, kernel.ReasonNone)
		}
	})
}

func portsOf(g *Local, task int) []uint16 {
	at := 0
	for i := range task {
		at += len(g.spec.Tasks[i].Ports)
	}
	var out []uint16
	for k := range g.spec.Tasks[task].Ports {
		if p := at + k; p < len(g.HostPorts) && g.HostPorts[p] != 0 {
			out = append(out, g.HostPorts[p])
		}
	}
	return out
}

// holder is a container that runs with one of these host ports.
func (a *Agent) holder(ports []uint16) *Container {
	for _, c := range a.Containers {
		for _, p := range c.ports {
			for _, q := range ports {
				if p == q && !c.Ended {
					return c
				}
			}
		}
	}
	return nil
}

// stop ends all tasks of an instance, each within its grace.
func (a *Agent) stop(g *Local) {
	if g.killing {
		return
	}
	g.killing = true
	for i := range g.tasks {
		s := &g.tasks[i]
		if s.State.Terminal() {
			continue
		}
		c := a.container(s.Task)
		if c == nil || c.Ended {
			a.report(g, i, kernel.Killed, kernel.ReasonKilled)
			continue
		}
		a.report(g, i, kernel.Killing, kernel.ReasonNone)
		grace := g.spec.Tasks[i].KillGrace
		a.w.After(a.w.Dice.Between(0, max(grace, kernel.DefaultKillGrace)), &a.Actor, func() {
			if c.Ended || a.container(c.Task) != c {
				return
			}
			a.end(c, exitedSIGKILL)
			a.report(g, i, kernel.Killed, kernel.ReasonKilled)
		})
	}
	a.forgetIfDone(g)
}

// end makes a container's process end: ground truth, whether or not an agent process sees it.
func (a *Agent) end(c *Container, code int) {
	c.Ended, c.code = true, code
	a.w.Judge.Ended(a, c)
}

// Crash is a task ending by itself. Without an agent process the next one finds it.
func (a *Agent) Crash(c *Container, code int) {
	a.Note("task ends by itself with %d", string(c.Task), int64(code), 0)
	a.end(c, code)
	if !a.Up {
		return
	}
	a.w.After(0, &a.Actor, func() {
		g := a.local(c.Group)
		if g == nil {
			return
		}
		for i := range g.tasks {
			if s := &g.tasks[i]; s.Task == c.Task && !s.State.Terminal() {
				state := kernel.Failed
				if code == 0 {
					state = kernel.Finished
				} else if g.killing {
					state = kernel.Killed
				}
				a.report(g, i, state, kernel.ReasonExit)
				a.stop(g) // one task of an instance ends the others
			}
		}
		a.forgetIfDone(g)
	})
}

// Feel changes whether the checks of this machine's tasks pass, and tells it.
func (a *Agent) Feel(sick bool) {
	if a.Sick == sick {
		return
	}
	a.Sick = sick
	if !a.Up {
		return
	}
	a.w.After(0, &a.Actor, func() {
		for _, g := range a.Instances {
			for i := range g.tasks {
				if s := &g.tasks[i]; s.State == kernel.Running && len(s.Health) > 0 && s.Health[0].Alive == sick {
					a.report(g, i, kernel.Running, kernel.ReasonNone)
				}
			}
		}
	})
}

func (a *Agent) failures() int {
	if a.Sick {
		return 3
	}
	return 0
}

// report writes a task's new status down and sends it.
func (a *Agent) report(g *Local, i int, state kernel.State, why kernel.Reason) {
	s := &g.tasks[i]
	if s.State.Terminal() {
		return
	}
	s.Seq++
	s.State, s.Reason, s.Time = state, why, a.w.Wall()
	if c := a.container(s.Task); c != nil {
		s.PID, s.Started = c.PID, c.Started
		if c.Ended {
			s.Exit = new(c.code)
		}
	}
	s.Health = nil
	if len(g.spec.Tasks[i].Checks) > 0 && state == kernel.Running {
		s.Health = []kernel.Health{{Known: true, Alive: !a.Sick, Failures: a.failures()}}
	}
	a.Note("%d: task is "+state.String(), string(s.Task), int64(s.Seq), 0)
	if !g.Dropped {
		a.send(kernel.Up{Statuses: []kernel.Status{*s}})
		if state.Terminal() && a.w.Plant.On(bug.ForgetBeforeAck) {
			g.acked[i] = true
			a.forgetIfDone(g)
		}
	} else {
		a.forgetIfDone(g)
	}
}
