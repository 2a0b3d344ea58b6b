package sim

import (
	"time"

	"github.com/marinaos/marina/internal/sim/timeline"
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

func drawClimate(d timeline.Dice) climate {
	c := climate{weights: usual, gap: d.Between(gapMin, gapMax), ahead: d.Chance(0.5), unsynced: d.Chance(0.5),
		pace: [...]int{1, 1, 1, 1, 10, 10, 60, 60, 60, 60}[d.IntN(10)], scarce: [...]int64{1, 1, 2, 4}[d.IntN(4)]}
	if d.Chance(0.5) {
		c.lag = d.Between(time.Millisecond, 800*time.Millisecond)
	}
	c.gap *= time.Duration(c.pace)
	for k := deedCrashTask; k < deeds; k++ {
		if d.Chance(0.3) {
			c.weights[k] = 0
		} else if d.Chance(0.2) {
			c.weights[k] *= 3
		}
	}
	if d.Chance(0.2) { // machines come and go all the time
		c.weights[deedRetire], c.weights[deedKillMachine] = 100, 20
	}
	for _, n := range c.weights {
		c.total += n
	}
	return c
}

// live lets one deed after another happen.
func (w *World) live() {
	w.After(w.dice.Between(10*time.Millisecond, w.climate.gap), &w.nature, w.live)
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
		users{w}.scaleApp()
	case deedLaunch:
		users{w}.launchApp()
	case deedRemove:
		users{w}.removeApp()
	case deedQuota:
		users{w}.setQuota()
	case deedUpdate:
		users{w}.updateApp()
	case deedChange:
		users{w}.drawChange()
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
		w.cutAgent(a, w.slow(w.dice.Between(time.Second, 40*time.Second)))
	case deedCutMany:
		for _, a := range w.agents {
			if w.dice.Chance(0.45) {
				w.cutAgent(a, w.slow(w.dice.Between(5*time.Second, 25*time.Second)))
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

func (w *World) crashTask(a *agent) {
	for range 8 { // some machines run nothing
		var live []*container
		for _, c := range a.containers {
			if !c.ended {
				live = append(live, c)
			}
		}
		if len(live) > 0 && !a.Paused {
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
		w.After(w.slow(w.dice.Between(100*time.Millisecond, 10*time.Second)), &w.nature, func() { a.feel(false) })
	}
}

func (w *World) killAgent(a *agent) {
	if !a.up {
		return
	}
	a.note("process dies", "", 0, 0)
	a.kill()
	boot := a.boot
	w.After(w.slow(w.dice.Between(100*time.Millisecond, 25*time.Second)), &w.nature, func() {
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
	if w.gone() < w.turnover.stay()/goneOf && w.dice.Chance(0.3) {
		a.gone = true
		return
	}
	w.After(w.slow(w.dice.Between(2*time.Second, 40*time.Second)), &w.nature, func() {
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
	if !a.up || a.Paused {
		return
	}
	a.note("process is paused", "", 0, 0)
	a.Paused = true
	life := a.Life
	w.After(w.slow(w.dice.Between(100*time.Millisecond, 15*time.Second)), &w.nature, func() {
		if a.Life == life && a.Paused {
			a.note("process resumes", "", 0, 0)
			w.Resume(&a.Actor)
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
	w.After(d, &w.nature, func() { a.cut = false })
}

// turn makes the weather bad for a while.
func (w *World) turn() {
	w.weather = weather{lose: w.dice.Float64() * 0.1, double: w.dice.Float64() * 0.2, reorder: w.dice.Float64() * 0.3, slow: w.dice.Float64() * 0.2}
	w.note("network", "turns bad", "", 0, 0)
	w.After(w.dice.Between(time.Second, 8*time.Second), &w.nature, func() { w.weather = weather{} })
}

// strikeLeader kills or pauses the process that leads.
func (w *World) strikeLeader(k deed) {
	m := w.leader()
	if m == nil || m.Paused {
		return
	}
	if k == deedPauseLeader {
		m.pause(w.dice.Between(500*time.Millisecond, 12*time.Second))
		return
	}
	m.doomed = true
	if w.dice.Chance(0.5) { // with a write under way, if there is one soon
		w.After(2*time.Second, &w.nature, func() { w.killLeader(m) })
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
	w.After(w.dice.Between(500*time.Millisecond, 10*time.Second), &w.nature, func() {
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
	case m == nil || m.Paused:
	case w.dice.Chance(0.5):
		w.reach(ClockJumped)
		m.jump(w.dice.Between(100*time.Millisecond, time.Hour))
	default:
		w.reach(ClockBack)
		m.jump(-w.dice.Between(100*time.Millisecond, 5*time.Second))
	}
}

// heal ends all faults for good; machines that are gone stay so.
func (w *World) heal() {
	w.note("world", "heals", "", 0, 0)
	w.nature.Life++ // nothing more befalls anybody
	w.weather, w.fault = weather{}, storeWorks
	for _, m := range w.members {
		if m.Paused {
			w.Resume(&m.Actor)
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
		case a.Paused:
			w.Resume(&a.Actor)
		case a.gone || a.removed && !a.on:
		case !a.on:
			a.powerOn()
		case !a.up:
			a.start()
		}
	}
}
