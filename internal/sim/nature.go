package sim

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/store"
)

// deed is something that befalls the datacenter: a fault, or somebody who wants something.
type deed int

const (
	deedScale deed = iota
	deedLaunch
	deedRemove
	deedQuota
	deedUpdate
	deedChange
	deedHealth
	deedCrashTask
	deedKillAgent
	deedKillMachine
	deedRetire
	deedPauseAgent
	deedCutAgent
	deedCutMany
	deedWeather
	deedKillLeader
	deedPauseLeader
	deedStoreFault
	deedClock
	deeds
)

// usual is how often deeds happen beside each other.
var usual = [deeds]int{deedScale: 12, deedLaunch: 5, deedRemove: 2, deedQuota: 4, deedUpdate: 3, deedChange: 14, deedHealth: 5, deedCrashTask: 12, deedKillAgent: 8,
	deedKillMachine: 3, deedRetire: 3, deedPauseAgent: 5, deedCutAgent: 6, deedCutMany: 1, deedWeather: 4, deedKillLeader: 2, deedPauseLeader: 3,
	deedStoreFault: 3, deedClock: 1}

// climate is which deeds a seed knows, and how often: seeds differ most by what they leave out.
type climate struct {
	weights [deeds]int
	total   int
	gap     time.Duration // longest time between two deeds
	ahead   bool          // masters step while a commit is under way

	pace     int           // all that agents' and schedulers' timers and faults last, times so much: 60 is Mesos's five minutes until unreachable
	lag      time.Duration // how late the kernel's news are at most
	unsynced bool          // writes of a leader that dies may be lost
	scarce   int64         // machines are so much smaller
}

const (
	gapMin, gapMax = 200 * time.Millisecond, 1200 * time.Millisecond
	goneOf         = 12 // one machine of so many never returns, at most
	maxApps        = 24 // at once
	maxTarget      = 14 // instances of an app
)

func drawClimate(d dice) climate {
	c := climate{weights: usual, gap: d.between(gapMin, gapMax), ahead: d.chance(0.5), unsynced: d.chance(0.5),
		pace: [...]int{1, 1, 1, 1, 10, 10, 60, 60, 60, 60}[d.IntN(10)], scarce: [...]int64{1, 1, 2, 4}[d.IntN(4)]}
	if d.chance(0.5) {
		c.lag = d.between(time.Millisecond, 800*time.Millisecond)
	}
	c.gap *= time.Duration(c.pace)
	for k := deedCrashTask; k < deeds; k++ {
		if d.chance(0.3) {
			c.weights[k] = 0
		} else if d.chance(0.2) {
			c.weights[k] *= 3
		}
	}
	if d.chance(0.2) { // machines come and go all the time
		c.weights[deedRetire], c.weights[deedKillMachine] = 100, 20
	}
	for _, n := range c.weights {
		c.total += n
	}
	return c
}

// live lets one deed after another happen.
func (w *World) live() {
	w.after(w.dice.between(10*time.Millisecond, w.climate.gap), &w.nature, w.live)
	n := w.dice.IntN(w.climate.total)
	for k, weight := range w.climate.weights {
		if n -= weight; n < 0 {
			w.do(deed(k))
			return
		}
	}
}

func (w *World) do(k deed) {
	a := w.agents[w.dice.IntN(len(w.agents))]
	switch k {
	case deedScale:
		w.scaleApp()
	case deedLaunch:
		w.launchApp()
	case deedRemove:
		w.removeApp()
	case deedQuota:
		w.setQuota()
	case deedUpdate:
		w.updateApp()
	case deedChange:
		w.drawChange()
	case deedHealth:
		w.sicken(a)
	case deedCrashTask:
		w.crashTask(a)
	case deedKillAgent:
		w.killAgent(a)
	case deedKillMachine:
		w.killMachine(a)
	case deedRetire:
		w.turnover.retire(a)
	case deedPauseAgent:
		w.pauseAgent(a)
	case deedCutAgent:
		w.cutAgent(a, w.slow(w.dice.between(time.Second, 40*time.Second)))
	case deedCutMany:
		for _, a := range w.agents {
			if w.dice.chance(0.45) {
				w.cutAgent(a, w.slow(w.dice.between(5*time.Second, 25*time.Second)))
			}
		}
	case deedWeather:
		w.turn()
	case deedKillLeader, deedPauseLeader:
		w.strikeLeader(k)
	case deedClock:
		w.jumpClock()
	case deedStoreFault:
		w.fault = storeFault(1 + w.dice.IntN(int(storeSlow)))
	}
}

// launchApp wants a new app.
func (w *World) launchApp() {
	if len(w.apps) >= maxApps {
		w.scaleApp()
		return
	}
	n := w.serial()
	roles := []string{"/prod", "/prod/web", "/dev", "/"}
	a := &app{owner: fmt.Sprint("/app-", n), target: 1 + w.dice.IntN(maxTarget)}
	role := roles[w.dice.IntN(len(roles))]
	a.spec = w.drawSpec(a.owner, role, 1)
	w.apps = append(w.apps, a)
	w.note("user", "launches %d instances in "+role, a.owner, int64(a.target), 0)
	w.wanted(a)
}

// drawSpec draws what an app's instances look like.
func (w *World) drawSpec(owner, role string, version int) kernel.Spec {
	s := kernel.Spec{Framework: framework, Owner: owner, Version: fmt.Sprint(version), Role: role, Discovery: owner[1:],
		Network: kernel.Network{Mode: kernel.NetworkHost}}
	if w.dice.chance(0.5) {
		s.Network.Mode = kernel.NetworkBridge
	}
	if w.dice.chance(0.1) {
		s.Constraints = []kernel.Constraint{{Field: "hostname", Operator: "UNIQUE"}}
	}
	if w.dice.chance(0.3) {
		s.Priority = [...]int{-20, -10, 10, 20}[w.dice.IntN(4)]
	}
	tasks, fixed := 1, false
	if w.dice.chance(0.2) {
		tasks = 2
	}
	if w.dice.chance(0.1) { // the reservation's name is the owner's: the next version keeps it
		s.Reservation = &kernel.Reservation{Name: owner[1:], Volumes: []kernel.ReservedVolume{{Name: "data", Bytes: 64 * kernel.MiB}}}
	}
	for i := range tasks {
		t := kernel.TaskSpec{Name: fmt.Sprint("t", i), Suffix: fmt.Sprint(".t", i), Shell: "sleep 1000",
			Guarantee: kernel.Resources{MilliCPU: int64(100 * (1 + w.dice.IntN(12))), Mem: int64(1+w.dice.IntN(16)) * 128 * kernel.MiB},
			KillGrace: w.dice.between(100*time.Millisecond, 5*time.Second)}
		for range w.dice.IntN(3) {
			p := kernel.Port{Protocol: "tcp", Container: 80, Host: kernel.AnyHostPort}
			if !fixed && w.dice.chance(0.15) {
				fixed, p.Host = true, 31000+w.dice.IntN(fixedPorts)
			}
			if w.dice.chance(0.2) {
				p.VIPs = []kernel.VIP{{Name: owner[1:], Port: 80}}
			}
			t.Ports = append(t.Ports, p)
		}
		if w.dice.chance(0.3) {
			t.Checks = []kernel.Check{{Kind: kernel.CheckCommand, Argv: []string{"true"}, Interval: time.Second, Timeout: time.Second}}
		}
		s.Tasks = append(s.Tasks, t)
	}
	sealed, err := s.Seal()
	if err != nil {
		w.fail("spec: %v", err)
	}
	w.asked[owner] = append(w.asked[owner], sealed)
	return sealed
}

// wanted tells the leader's scheduler that an app is wanted otherwise. Others read it when they begin to lead.
func (w *World) wanted(a *app) {
	w.judge.wants(a)
	if m := w.leader(); m != nil && m.scheduler != nil {
		m.scheduler.soon(a, 0)
	}
}

func (w *World) someApp() *app { return w.apps[w.dice.IntN(len(w.apps))] }

func (w *World) scaleApp() {
	a := w.someApp()
	a.target = w.dice.IntN(maxTarget + 1)
	w.note("user", "wants %d instances of", a.owner, int64(a.target), 0)
	w.wanted(a)
}

func (w *World) removeApp() {
	a := w.someApp()
	a.target = 0
	w.note("user", "wants no more of", a.owner, 0, 0)
	w.wanted(a)
}

// updateApp gives an app another spec: new instances are made of it, old ones are replaced as they end.
func (w *World) updateApp() {
	a := w.someApp()
	a.spec = w.drawSpec(a.owner, a.spec.Role, w.serial())
	w.note("user", "changes the spec of", a.owner, 0, 0)
}

// setQuota sets, raises, lowers or removes the quota of a role.
func (w *World) setQuota() {
	m := w.leader()
	if m == nil {
		return
	}
	roles := []string{"/prod", "/prod/web", "/dev"}
	role := roles[w.dice.IntN(len(roles))]
	q := kernel.Quota{Role: role, Limit: kernel.NoLimit}
	remove := w.dice.chance(0.25)
	switch {
	case remove:
		w.note("user", "removes the quota of", role, 0, 0)
	case w.dice.chance(0.7):
		q.Limit.MilliCPU = int64(w.dice.IntN(60)) * 1000
		w.note("user", "sets a quota of %d millicpus on", role, q.Limit.MilliCPU, 0)
	default:
		q.Guarantee.MilliCPU, q.Weight = int64(w.dice.IntN(20))*1000, float64(1+w.dice.IntN(3))
		w.note("user", "guarantees %d millicpus to", role, q.Guarantee.MilliCPU, 0)
	}
	m.request(func(r brain.RequestID) brain.Event {
		return brain.SetQuota{Request: r, Quota: q, Remove: remove}
	}, func(r brain.Reply) {
		if r.Err != nil && !errdefs.IsNotFound(r.Err) && !errdefs.IsInvalidArgument(r.Err) { // guarantees of others may be more than the limit
			w.fail("quota of %s: %v", role, r.Err)
		}
	})
}

func (w *World) crashTask(a *agent) {
	for range 8 { // some machines run nothing
		var live []*container
		for _, c := range a.containers {
			if !c.ended {
				live = append(live, c)
			}
		}
		if len(live) > 0 && !a.paused {
			a.crash(live[w.dice.IntN(len(live))], w.dice.IntN(3))
			return
		}
		a = w.agents[w.dice.IntN(len(w.agents))]
	}
}

// sicken makes the checks of a machine's tasks fail, for a while.
func (w *World) sicken(a *agent) {
	if !a.sick {
		a.note("its tasks fail their checks", "", 0, 0)
		a.feel(true)
		w.after(w.slow(w.dice.between(100*time.Millisecond, 10*time.Second)), &w.nature, func() { a.feel(false) })
	}
}

func (w *World) killAgent(a *agent) {
	if !a.up {
		return
	}
	a.note("process dies", "", 0, 0)
	a.kill()
	boot := a.boot
	w.after(w.slow(w.dice.between(100*time.Millisecond, 25*time.Second)), &w.nature, func() {
		if a.on && !a.up && a.boot == boot {
			a.start()
		}
	})
}

func (w *World) killMachine(a *agent) {
	if !a.on {
		return
	}
	a.powerOff()
	if w.gone() < w.turnover.stay()/goneOf && w.dice.chance(0.3) {
		a.gone = true
		return
	}
	w.after(w.slow(w.dice.between(2*time.Second, 40*time.Second)), &w.nature, func() {
		if !a.on {
			a.powerOn()
		}
	})
}

func (w *World) gone() (n int) {
	for _, a := range w.agents {
		if a.gone && !a.removed {
			n++
		}
	}
	return n
}

func (w *World) pauseAgent(a *agent) {
	if !a.up || a.paused {
		return
	}
	a.note("process is paused", "", 0, 0)
	a.paused = true
	life := a.life
	w.after(w.slow(w.dice.between(100*time.Millisecond, 15*time.Second)), &w.nature, func() {
		if a.life == life && a.paused {
			a.note("process resumes", "", 0, 0)
			w.resume(&a.actor)
		}
	})
}

// cutAgent takes a machine off the network for a while.
func (w *World) cutAgent(a *agent, d time.Duration) {
	if a.cut {
		return
	}
	a.note("is cut off for %d ms", "", d.Milliseconds(), 0)
	a.cut = true
	if a.link != nil {
		a.link.broken()
	}
	w.after(d, &w.nature, func() { a.cut = false })
}

// turn makes the weather bad for a while.
func (w *World) turn() {
	w.weather = weather{lose: w.dice.Float64() * 0.1, double: w.dice.Float64() * 0.2, reorder: w.dice.Float64() * 0.3, slow: w.dice.Float64() * 0.2}
	w.note("network", "turns bad", "", 0, 0)
	w.after(w.dice.between(time.Second, 8*time.Second), &w.nature, func() { w.weather = weather{} })
}

// strikeLeader kills or pauses the process that leads.
func (w *World) strikeLeader(k deed) {
	m := w.leader()
	if m == nil || m.paused {
		return
	}
	if k == deedPauseLeader {
		m.pause(w.dice.between(500*time.Millisecond, 12*time.Second))
		return
	}
	m.doomed = true
	if w.dice.chance(0.5) { // with a write under way, if there is one soon
		w.after(2*time.Second, &w.nature, func() { w.killLeader(m) })
		return
	}
	w.killLeader(m)
}

// killLeader ends a master's process that is to die, for a while.
func (w *World) killLeader(m *master) {
	if !m.doomed {
		return
	}
	m.kill()
	w.after(w.dice.between(500*time.Millisecond, 10*time.Second), &w.nature, func() {
		if !m.up {
			m.start()
		}
	})
}

// jumpClock sets the clock by which the leader decides: ahead by up to an hour, as after a machine slept, or back by
// some seconds.
func (w *World) jumpClock() {
	m := w.leader()
	switch {
	case m == nil || m.paused:
	case w.dice.chance(0.5):
		w.reach(ClockJumped)
		m.jump(w.dice.between(100*time.Millisecond, time.Hour))
	default:
		w.reach(ClockBack)
		m.jump(-w.dice.between(100*time.Millisecond, 5*time.Second))
	}
}

// heal ends all faults for good; machines that are gone stay so.
func (w *World) heal() {
	w.note("world", "heals", "", 0, 0)
	w.nature.life++ // nothing more befalls anybody
	w.weather, w.fault = weather{}, storeWorks
	for _, m := range w.members {
		if m.paused {
			w.resume(&m.actor)
		}
		if m.state != nil && (m.epoch() != w.judge.leader || !w.led()) {
			m.abdicate(store.ErrLeadershipLost)
		}
		if !m.up {
			m.start()
		}
	}
	w.healMachines()
	if m := w.leader(); m == nil && w.led() { // its process is gone
		w.store.Expire(election)
		w.observe(0)
	}
	w.judge.healed()
}

func (w *World) healMachines() {
	for _, a := range w.agents {
		a.cut, a.foreign = false, 0
		a.feel(false)
		switch {
		case a.paused:
			w.resume(&a.actor)
		case a.gone || a.removed && !a.on:
		case !a.on:
			a.powerOn()
		case !a.up:
			a.start()
		}
	}
}
