package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/row"
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
	Plant   Bug                  // a mistake to make on purpose
	Trace   io.Writer            // gets what happens, a line each; nil: only the hash is kept
	Some    *invariant.Sometimes // counts rare paths; nil: nobody does
}

// Result is what came of a simulation.
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

// World is a whole datacenter and its weather.
type World struct {
	timeline.Timeline
	timeline.Trace
	cfg      Config
	dice     timeline.Dice
	plant    Bug
	weather  weather
	climate  climate
	store    *memory.Store
	changes  *store.Watch // read after each commit: every revision is judged
	agents   []*agent
	members  []*master
	apps     []*app
	asked    map[string][]kernel.Spec // all that was ever asked for, by owner
	judge    *judge
	nature   timeline.Actor // what befalls the datacenter until it heals
	ether    timeline.Actor // the network and the store
	serials  int
	turnover turnover
	fault    storeFault
	stale    *store.Snapshot // planted
	intents  intents
	ctx      context.Context // of the store, which takes no time
	err      error
}

// storeFault is what happens to the next commit.
type storeFault int

const (
	storeWorks storeFault = iota
	storeConflicts
	storeLosesApplied
	storeLosesDropped
	storeSlow
)

// Run simulates one seed from an empty datacenter to the convergence after its last fault.
func Run(cfg Config) Result {
	w := newWorld(cfg)
	w.begin()
	for !w.over() && w.Events < w.cfg.Events && w.Next(longest) {
		w.judge.step()
	}
	w.heal()
	deadline := w.Now + w.slow(converge)
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
		AgentTime: w.Now * time.Duration(len(w.agents)), Violations: w.judge.violations, Err: w.err}
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
	w := &World{cfg: cfg, dice: timeline.NewDice(cfg.Seed), plant: cfg.Plant, store: memory.New(), ctx: context.Background(),
		asked: map[string][]kernel.Spec{}, intents: intents{apps: map[string]*marathon.App{}}}
	w.Trace = timeline.NewTrace(cfg.Trace)
	w.climate = drawClimate(w.dice)
	w.judge, w.turnover.w = newJudge(w), w
	var err error
	if w.changes, err = w.store.Watch(w.ctx, ""); err != nil {
		w.fail("watch: %v", err)
	}
	for n := range cfg.Agents {
		w.agents = append(w.agents, newAgent(w, n))
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
		late := w.dice.Between(0, 2*time.Second)
		if w.dice.Chance(0.2) {
			late = w.dice.Between(2*time.Second, 20*time.Second)
		}
		w.After(late, &w.nature, a.powerOn)
	}
	for range 6 {
		users{w}.launchApp()
	}
	w.After(time.Second, &w.nature, w.live)
}

// policy is what masters are told to do.
func (w *World) policy(epoch int64) brain.Config {
	return brain.Config{Epoch: epoch, Pool: netip.MustParsePrefix("10.64.0.0/18"), SubnetBits: 24,
		EndpointsEvery: endpointsEvery, Suspect: w.slow(2 * time.Second), Unreachable: w.slow(5 * time.Second),
		Grace: w.slow(10 * time.Second), BackfillAfter: w.slow(4 * time.Second), BackfillFor: w.slow(6 * time.Second)}
}

// slow is a time at the simulation's pace.
func (w *World) slow(d time.Duration) time.Duration { return d * time.Duration(w.climate.pace) }

// over reports whether there is nothing more to learn.
func (w *World) over() bool { return w.err != nil || len(w.judge.violations) > 0 }

// fail ends the simulation: something happened that no invariant speaks of.
func (w *World) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
		w.note("world", "fails: ", w.err.Error(), 0, 0)
	}
}

func (w *World) note(who, what, which string, a, b int64) {
	w.Trace.Note(w.Now, who, what, which, a, b)
}

func (w *World) reach(name string) { w.cfg.Some.Reached(name) }

func (w *World) serial() int {
	w.serials++
	return w.serials
}

// led reports whether anybody holds the leadership.
func (w *World) led() bool {
	_, err := w.store.Get(w.ctx, store.LeaderKey(election))
	return err == nil
}

// leader is the process that holds the leadership, if it runs.
func (w *World) leader() *master {
	for _, m := range w.members {
		if m.state != nil && m.epoch() == w.judge.leader {
			return m
		}
	}
	return nil
}

// someLeader is where an agent dials: the leader, or somebody who still believes to be it.
func (w *World) someLeader() *master {
	leader := w.leader()
	for _, m := range w.members {
		if m.state != nil && m != leader && !m.Paused && w.dice.Chance(0.7) {
			return m
		}
	}
	return leader
}

// expireLater lets a lease run out, unless its leader went on renewing it.
func (w *World) expireLater(epoch int64) {
	w.After(w.dice.Between(lease/2, lease), &w.ether, func() {
		for _, m := range w.members {
			if m.epoch() == epoch && !m.Paused {
				return
			}
		}
		if item, err := w.store.Get(w.ctx, store.LeaderKey(election)); err == nil && item.Created == epoch {
			w.note("store", "lease of epoch %d runs out", "", epoch, 0)
			w.store.Expire(election)
			w.observe(0)
		}
	})
}

// rows is what a new leader reads.
func (w *World) rows() *store.Snapshot {
	w.observe(0)
	snap, err := w.store.Snapshot(w.ctx, row.All)
	if err != nil {
		w.fail("snapshot: %v", err)
	}
	return w.spoilRows(snap)
}

// commit carries a transaction to the store and its answer back. Both take time; the master may be gone when it gets
// there. Then applied looks whether it took effect; done gets the answer.
func (w *World) commit(m *master, txn store.Txn, applied func(), done func(error)) {
	writer, fault, life := m.epoch(), w.fault, m.Life
	there, back := w.dice.Between(commitMin, commitMax), w.dice.Between(commitMin, commitMax)
	if w.fault = storeWorks; fault == storeSlow {
		there = w.dice.Between(commitMax, commitSlow)
	}
	w.After(there, &w.ether, func() {
		if m.Life != life && w.climate.unsynced && w.dice.Chance(0.5) { // it died before the write was on disk anywhere
			w.reach(UnsyncedLost)
			w.note("store", "loses what epoch %d had not synced", "", writer, 0)
			return
		}
		err := w.apply(writer, fault, txn)
		if applied != nil {
			applied()
		}
		if errors.Is(err, store.ErrUnknownOutcome) {
			back = w.dice.Between(replyTimeout/2, replyTimeout)
		}
		w.After(back, &m.Actor, func() {
			if m.epoch() == writer {
				done(err)
			}
		})
	})
}

func (w *World) apply(writer int64, fault storeFault, txn store.Txn) error {
	switch fault {
	case storeConflicts:
		w.note("store", "conflicts with epoch %d", "", writer, 0)
		return store.ErrConflict
	case storeSlow:
		if w.plant.on(LoseDurable) {
			return nil
		}
	case storeLosesApplied, storeLosesDropped:
		w.store.LoseReply(fault == storeLosesApplied)
	}
	if w.plant.on(LoadStaleRows) && w.dice.Chance(0.1) {
		w.stale, _ = w.store.Snapshot(w.ctx, row.All)
	}
	revision, err := w.store.Commit(w.ctx, txn)
	w.note("store", "commits for epoch %d, revision %d", "", writer, revision)
	w.observe(writer)
	return err
}

// observe shows the judge each revision since the last. writer is the leader whose write it is, or 0.
func (w *World) observe(writer int64) {
	for {
		b, ok, err := w.changes.TryNext()
		if err != nil {
			w.fail("watch: %v", err)
		}
		if !ok || err != nil {
			return
		}
		w.judge.revision(writer, b)
	}
}
