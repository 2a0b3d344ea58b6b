package sim

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/sim/machine"
	"github.com/marinaos/marina/internal/sim/timeline"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

// Config says what to simulate. The zero value of a field means its default.
type Config struct {
	Seed    uint64
	Agents  int                  // machines; 50
	Masters int                  // 3
	Events  int                  // that happen at least before faults end; 6,000
	Plant   bug.Bug              // a mistake to make on purpose
	Trace   io.Writer            // gets what happens, a line each; nil: only the hash is kept
	Some    *invariant.Sometimes // counts rare paths; nil: nobody does
}

// Result is the outcome of a simulation.
type Result struct {
	Seed       uint64
	Hash       uint64 // of all that happened
	Events     int    // that happened
	Simulated  time.Duration
	AgentTime  time.Duration         // that agents were powered, all together
	Violations []invariant.Violation // of the step at which the simulation ended; none: all held
	Err        error                 // the simulation could not go on for another reason
}

// Times of a whole simulation.
const (
	endpointsEvery = time.Second
	subnets        = 64                // for machines to have at once
	settled        = 2 * time.Second   // all was as asked for, for so long
	converge       = 120 * time.Second // T_conv: everything is as asked for, once faults have ended
	longest        = 72 * time.Hour    // of faults; the number of events ends them long before
)

// Run simulates one seed from an empty datacenter to the convergence after its last fault.
func Run(cfg Config) Result {
	w := newWorld(cfg)
	w.begin()
	for !w.over() && w.Events < w.cfg.Events && w.Next(longest) {
		w.judge.step()
	}
	w.heal()
	deadline := w.Now + w.Slow(converge)
	for !w.over() && w.Next(deadline) {
		w.judge.step()
		if w.judge.settledFor(settled) {
			break
		}
	}
	if !w.over() {
		w.judge.converged()
	}
	return Result{Seed: cfg.Seed, Hash: w.Hash, Events: w.Events, Simulated: w.Now,
		AgentTime: w.Now * time.Duration(len(w.agents)), Violations: w.judge.violations, Err: w.Err}
}

func newWorld(cfg Config) *World {
	if cfg.Agents == 0 {
		cfg.Agents = 50
	}
	if cfg.Masters == 0 {
		cfg.Masters = 3
	}
	if cfg.Events == 0 {
		cfg.Events = 6000
	}
	w := &World{cfg: cfg, store: memory.New(), ctx: context.Background(), asked: map[string][]kernel.Spec{},
		intents: intents{apps: map[string]*marathon.App{}}}
	w.Dice, w.Plant, w.Some, w.Trace = timeline.NewDice(cfg.Seed), cfg.Plant, cfg.Some, timeline.NewTrace(cfg.Trace)
	w.climate = drawClimate(w.Dice)
	w.Pace, w.Scarce, w.Leader = w.climate.pace, w.climate.scarce, w.someLeader
	w.judge, w.turnover.w = newJudge(w), w
	w.Judge = w.judge
	var err error
	if w.changes, err = w.store.Watch(w.ctx, ""); err != nil {
		w.Fail("watch: %v", err)
	}
	for n := range cfg.Agents {
		w.agents = append(w.agents, machine.New(&w.Env, n))
	}
	for n := range cfg.Masters {
		w.members = append(w.members, &master{w: w, name: fmt.Sprint("m", n+1)})
	}
	return w
}

// begin starts the masters and most machines; the others join later.
func (w *World) begin() {
	for _, m := range w.members {
		m.start()
	}
	for _, a := range w.agents {
		late := w.Dice.Between(0, 2*time.Second)
		if w.Dice.Chance(0.2) {
			late = w.Dice.Between(2*time.Second, 20*time.Second)
		}
		w.After(late, &w.nature, a.PowerOn)
	}
	for range 6 {
		users{w}.launchApp()
	}
	w.After(time.Second, &w.nature, w.live)
}

// heal ends all faults for good; machines that are gone stay so.
func (w *World) heal() {
	w.Note("world", "heals", "", 0, 0)
	w.nature.Life++ // nothing more befalls anybody
	w.Weather, w.fault = machine.Weather{}, storeWorks
	for _, m := range w.members {
		if m.Paused {
			w.Resume(&m.Actor)
		}
		if m.state != nil && (m.Epoch() != w.judge.leader || !w.led()) {
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
		a.Cut, a.Foreign = false, 0
		a.Feel(false)
		switch {
		case a.Paused:
			w.Resume(&a.Actor)
		case a.Gone || a.Removed && !a.On:
		case !a.On:
			a.PowerOn()
		case !a.Up:
			a.Start()
		}
	}
}
