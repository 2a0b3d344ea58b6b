package sim

import (
	"slices"
	"time"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
)

// pursue brings an instance towards its goal, from whatever point it was left at.
func (a *agent) pursue(g *local) {
	if g.Goal == kernel.GoalStop || g.dropped {
		a.stop(g)
		a.forgetIfDone(g)
		return
	}
	for i := range g.tasks {
		if g.tasks[i].State == kernel.Staging && g.tasks[i].Seq == 0 {
			a.report(g, i, kernel.Staging, kernel.ReasonNone)
			a.step(g, i, a.w.dice.Between(10*time.Millisecond, 800*time.Millisecond), a.create)
		} else if g.tasks[i].State < kernel.Running && a.container(g.tasks[i].Task) == nil {
			a.step(g, i, 10*time.Millisecond, a.create)
		}
	}
}

// step does the next thing to a task, unless its instance is to stop or it ended by then.
func (a *agent) step(g *local, i int, d time.Duration, do func(*local, int)) {
	a.w.After(d, &a.Actor, func() {
		if !g.killing && !g.tasks[i].State.Terminal() {
			do(g, i)
		}
	})
}

// create makes a task's container, once its host ports are free.
func (a *agent) create(g *local, i int) {
	id := g.tasks[i].Task
	if a.container(id) != nil && !a.w.plant.on(AgentForgetsRunning) {
		return
	}
	ports := portsOf(g, i)
	if slices.Contains(ports, a.foreign) {
		a.w.reach(PortTaken)
		a.report(g, i, kernel.Failed, kernel.ReasonPort)
		a.stop(g)
		return
	}
	if holder := a.holder(ports); holder != nil {
		if l := a.local(holder.group); l == nil || !l.killing {
			a.w.judge.hold(invariant.SharedPort(a.id, g.ID, holder.group))
		}
		a.w.reach(PortWaited)
		a.step(g, i, waitForPort, a.create)
		return
	}
	a.nextPID++
	c := &container{task: id, group: g.ID, ports: ports, pid: a.nextPID, boot: a.boot, started: a.w.Wall()}
	a.containers = append(a.containers, c)
	a.w.judge.made(a, c)
	a.report(g, i, kernel.Starting, kernel.ReasonNone)
	a.step(g, i, a.w.dice.Between(5*time.Millisecond, 200*time.Millisecond), func(g *local, i int) {
		if !c.ended {
			a.report(g, i, kernel.Running, kernel.ReasonNone)
		}
	})
}

func portsOf(g *local, task int) []uint16 {
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
func (a *agent) holder(ports []uint16) *container {
	for _, c := range a.containers {
		for _, p := range c.ports {
			for _, q := range ports {
				if p == q && !c.ended {
					return c
				}
			}
		}
	}
	return nil
}

func (a *agent) container(task kernel.TaskID) *container {
	for _, c := range a.containers {
		if c.task == task {
			return c
		}
	}
	return nil
}

// stop ends all tasks of an instance, each within its grace.
func (a *agent) stop(g *local) {
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
		if c == nil || c.ended {
			a.report(g, i, kernel.Killed, kernel.ReasonKilled)
			continue
		}
		a.report(g, i, kernel.Killing, kernel.ReasonNone)
		grace := g.spec.Tasks[i].KillGrace
		a.w.After(a.w.dice.Between(0, max(grace, kernel.DefaultKillGrace)), &a.Actor, func() {
			if c.ended || a.container(c.task) != c {
				return
			}
			a.end(c, exitedSIGKILL)
			a.report(g, i, kernel.Killed, kernel.ReasonKilled)
		})
	}
	a.forgetIfDone(g)
}

// end makes a container's process end: ground truth, whether or not an agent process sees it.
func (a *agent) end(c *container, code int) {
	c.ended, c.code = true, code
	a.w.judge.ended(a, c)
}

// crash is a task ending by itself. Without an agent process the next one finds it.
func (a *agent) crash(c *container, code int) {
	a.note("task ends by itself with %d", string(c.task), int64(code), 0)
	a.end(c, code)
	if !a.up {
		return
	}
	a.w.After(0, &a.Actor, func() {
		g := a.local(c.group)
		if g == nil {
			return
		}
		for i := range g.tasks {
			if s := &g.tasks[i]; s.Task == c.task && !s.State.Terminal() {
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

// feel changes whether the checks of this machine's tasks pass, and tells it.
func (a *agent) feel(sick bool) {
	if a.sick == sick {
		return
	}
	a.sick = sick
	if !a.up {
		return
	}
	a.w.After(0, &a.Actor, func() {
		for _, g := range a.instances {
			for i := range g.tasks {
				if s := &g.tasks[i]; s.State == kernel.Running && len(s.Health) > 0 && s.Health[0].Alive == sick {
					a.report(g, i, kernel.Running, kernel.ReasonNone)
				}
			}
		}
	})
}

func (a *agent) failures() int {
	if a.sick {
		return 3
	}
	return 0
}

// report writes a task's new status down and sends it.
func (a *agent) report(g *local, i int, state kernel.State, why kernel.Reason) {
	s := &g.tasks[i]
	if s.State.Terminal() {
		return
	}
	s.Seq++
	s.State, s.Reason, s.Time = state, why, a.w.Wall()
	if c := a.container(s.Task); c != nil {
		s.PID, s.Started = c.pid, c.started
		if c.ended {
			s.Exit = new(c.code)
		}
	}
	s.Health = nil
	if len(g.spec.Tasks[i].Checks) > 0 && state == kernel.Running {
		s.Health = []kernel.Health{{Known: true, Alive: !a.sick, Failures: a.failures()}}
	}
	a.note("%d: task is "+state.String(), string(s.Task), int64(s.Seq), 0)
	if !g.dropped {
		a.send(kernel.Up{Statuses: []kernel.Status{*s}})
		if state.Terminal() && a.w.plant.on(ForgetBeforeAck) {
			g.acked[i] = true
			a.forgetIfDone(g)
		}
	} else {
		a.forgetIfDone(g)
	}
}
