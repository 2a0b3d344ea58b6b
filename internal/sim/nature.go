package sim

import (
	"time"

	"github.com/marinaos/marina/internal/sim/machine"
	"github.com/marinaos/marina/internal/sim/rare"
	"github.com/marinaos/marina/internal/sim/timeline"
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

// usual weighs how often deeds happen beside each other.
var usual = [deeds]int{deedScale: 12, deedLaunch: 5, deedRemove: 2, deedQuota: 4, deedUpdate: 3, deedChange: 14,
	deedHealth: 5, deedCrashTask: 12, deedKillAgent: 8, deedKillMachine: 3, deedRetire: 3, deedPauseAgent: 5,
	deedCutAgent: 6, deedCutMany: 1, deedWeather: 4, deedKillLeader: 2, deedPauseLeader: 3, deedStoreFault: 3,
	deedClock: 1}

// climate is which deeds a seed knows, and how often: seeds differ most by what they leave out.
type climate struct {
	weights [deeds]int
	total   int
	gap     time.Duration // longest time between two deeds
	ahead   bool          // masters step while a commit is under way

	pace     int           // see machine.Env
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
	w.After(w.Dice.Between(10*time.Millisecond, w.climate.gap), &w.nature, w.live)
	n := w.Dice.IntN(w.climate.total)
	for k, weight := range w.climate.weights {
		if n -= weight; n < 0 {
			w.do(deed(k))
			return
		}
	}
}

func (w *World) do(k deed) {
	a := w.agents[w.Dice.IntN(len(w.agents))]
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
		w.cutAgent(a, w.Slow(w.Dice.Between(time.Second, 40*time.Second)))
	case deedCutMany:
		for _, a := range w.agents {
			if w.Dice.Chance(0.45) {
				w.cutAgent(a, w.Slow(w.Dice.Between(5*time.Second, 25*time.Second)))
			}
		}
	case deedWeather:
		w.turn()
	case deedKillLeader, deedPauseLeader:
		w.strikeLeader(k)
	case deedClock:
		w.jumpClock()
	case deedStoreFault:
		w.fault = storeFault(1 + w.Dice.IntN(int(storeSlow)))
	}
}

func (w *World) crashTask(a *machine.Agent) {
	for range 8 { // some machines run nothing
		var live []*machine.Container
		for _, c := range a.Containers {
			if !c.Ended {
				live = append(live, c)
			}
		}
		if len(live) > 0 && !a.Paused {
			a.Crash(live[w.Dice.IntN(len(live))], w.Dice.IntN(3))
			return
		}
		a = w.agents[w.Dice.IntN(len(w.agents))]
	}
}

// sicken makes the checks of a machine's tasks fail, for a while.
func (w *World) sicken(a *machine.Agent) {
	if !a.Sick {
		a.Note("its tasks fail their checks", "", 0, 0)
		a.Feel(true)
		w.After(w.Slow(w.Dice.Between(100*time.Millisecond, 10*time.Second)), &w.nature, func() { a.Feel(false) })
	}
}

func (w *World) killAgent(a *machine.Agent) {
	if !a.Up {
		return
	}
	a.Note("process dies", "", 0, 0)
	a.Kill()
	boot := a.Boot
	w.After(w.Slow(w.Dice.Between(100*time.Millisecond, 25*time.Second)), &w.nature, func() {
		if a.On && !a.Up && a.Boot == boot {
			a.Start()
		}
	})
}

func (w *World) killMachine(a *machine.Agent) {
	if !a.On {
		return
	}
	a.PowerOff()
	if w.gone() < w.turnover.stay()/goneOf && w.Dice.Chance(0.3) {
		a.Gone = true
		return
	}
	w.After(w.Slow(w.Dice.Between(2*time.Second, 40*time.Second)), &w.nature, func() {
		if !a.On {
			a.PowerOn()
		}
	})
}

func (w *World) pauseAgent(a *machine.Agent) {
	if !a.Up || a.Paused {
		return
	}
	a.Note("process is paused", "", 0, 0)
	a.Paused = true
	life := a.Life
	w.After(w.Slow(w.Dice.Between(100*time.Millisecond, 15*time.Second)), &w.nature, func() {
		if a.Life == life && a.Paused {
			a.Note("process resumes", "", 0, 0)
			w.Resume(&a.Actor)
		}
	})
}

// cutAgent takes a machine off the network for a while.
func (w *World) cutAgent(a *machine.Agent, d time.Duration) {
	if a.Cut {
		return
	}
	a.Note("is cut off for %d ms", "", d.Milliseconds(), 0)
	a.Cut = true
	if a.Link != nil {
		a.Link.Broken()
	}
	w.After(d, &w.nature, func() { a.Cut = false })
}

// turn makes the weather bad for a while.
func (w *World) turn() {
	w.Weather = machine.Weather{Lose: w.Dice.Float64() * 0.1, Double: w.Dice.Float64() * 0.2,
		Reorder: w.Dice.Float64() * 0.3, Slow: w.Dice.Float64() * 0.2}
	w.Note("network", "turns bad", "", 0, 0)
	w.After(w.Dice.Between(time.Second, 8*time.Second), &w.nature, func() { w.Weather = machine.Weather{} })
}

// strikeLeader kills or pauses the process that leads.
func (w *World) strikeLeader(k deed) {
	m := w.leader()
	if m == nil || m.Paused {
		return
	}
	if k == deedPauseLeader {
		m.pause(w.Dice.Between(500*time.Millisecond, 12*time.Second))
		return
	}
	m.doomed = true
	if w.Dice.Chance(0.5) { // with a write under way, if there is one soon
		w.After(2*time.Second, &w.nature, func() { w.killLeader(m) })
		return
	}
	w.killLeader(m)
}

// jumpClock sets the clock by which the leader decides: ahead by up to an hour, as after a machine slept, or back by
// some seconds.
func (w *World) jumpClock() {
	m := w.leader()
	switch {
	case m == nil || m.Paused:
	case w.Dice.Chance(0.5):
		w.Reach(rare.ClockJumped)
		m.jump(w.Dice.Between(100*time.Millisecond, time.Hour))
	default:
		w.Reach(rare.ClockBack)
		m.jump(-w.Dice.Between(100*time.Millisecond, 5*time.Second))
	}
}
