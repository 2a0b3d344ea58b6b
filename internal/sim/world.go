package sim

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/sim/machine"
	"github.com/marinaos/marina/internal/sim/rare"
	"github.com/marinaos/marina/internal/sim/timeline"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

// World is a whole datacenter and its weather.
type World struct {
	machine.Env
	cfg      Config
	climate  climate
	store    *memory.Store
	changes  *store.Watch // read after each commit: every revision is judged
	agents   []*machine.Agent
	members  []*master
	apps     []*app
	asked    map[string][]kernel.Spec // all that was ever asked for, by owner
	judge    *judge
	nature   timeline.Actor // what befalls the datacenter until it heals
	ether    timeline.Actor // the network and the store
	turnover turnover
	fault    storeFault
	stale    *store.Snapshot // planted
	intents  intents
	ctx      context.Context // of the store, which takes no time
}

// storeFault befalls the next commit.
type storeFault int

const (
	storeWorks storeFault = iota
	storeConflicts
	storeLosesApplied
	storeLosesDropped
	storeSlow
)

// policy configures masters.
func (w *World) policy(epoch int64) brain.Config {
	return brain.Config{Epoch: epoch, Pool: netip.MustParsePrefix("10.64.0.0/18"), SubnetBits: 24,
		EndpointsEvery: endpointsEvery, Suspect: w.Slow(2 * time.Second), Unreachable: w.Slow(5 * time.Second),
		Grace: w.Slow(10 * time.Second), BackfillAfter: w.Slow(4 * time.Second), BackfillFor: w.Slow(6 * time.Second)}
}

// over reports whether there is nothing more to learn.
func (w *World) over() bool { return w.Err != nil || len(w.judge.violations) > 0 }

// led reports whether anybody holds the leadership.
func (w *World) led() bool {
	_, err := w.store.Get(w.ctx, store.LeaderKey(election))
	return err == nil
}

// leader is the process that holds the leadership, if it runs.
func (w *World) leader() *master {
	for _, m := range w.members {
		if m.state != nil && m.Epoch() == w.judge.leader {
			return m
		}
	}
	return nil
}

// someLeader finds whom an agent dials: the leader, or somebody who still believes to be it.
func (w *World) someLeader() machine.Master {
	leader := w.leader()
	for _, m := range w.members {
		if m.state != nil && m != leader && !m.Paused && w.Dice.Chance(0.7) {
			return m
		}
	}
	if leader == nil {
		return nil
	}
	return leader
}

// expireLater lets a lease run out, unless its leader went on renewing it.
func (w *World) expireLater(epoch int64) {
	w.After(w.Dice.Between(lease/2, lease), &w.ether, func() {
		for _, m := range w.members {
			if m.Epoch() == epoch && !m.Paused {
				return
			}
		}
		if item, err := w.store.Get(w.ctx, store.LeaderKey(election)); err == nil && item.Created == epoch {
			w.Note("store", "lease of epoch %d runs out", "", epoch, 0)
			w.store.Expire(election)
			w.observe(0)
		}
	})
}

// rows reads the store for a new leader.
func (w *World) rows() *store.Snapshot {
	w.observe(0)
	snap, err := w.store.Snapshot(w.ctx, row.All)
	if err != nil {
		w.Fail("snapshot: %v", err)
	}
	return w.spoilRows(snap)
}

// commit carries a transaction to the store and its answer back. Both take time; the master may be gone when it gets
// there. Then applied looks whether it took effect; done gets the answer.
func (w *World) commit(m *master, txn store.Txn, applied func(), done func(error)) {
	writer, fault, life := m.Epoch(), w.fault, m.Life
	there, back := w.Dice.Between(commitMin, commitMax), w.Dice.Between(commitMin, commitMax)
	if w.fault = storeWorks; fault == storeSlow {
		there = w.Dice.Between(commitMax, commitSlow)
	}
	w.After(there, &w.ether, func() {
		if m.Life != life && w.climate.unsynced && w.Dice.Chance(0.5) { // it died before the write was on disk anywhere
			w.Reach(rare.UnsyncedLost)
			w.Note("store", "loses what epoch %d had not synced", "", writer, 0)
			return
		}
		err := w.apply(writer, fault, txn)
		if applied != nil {
			applied()
		}
		if errors.Is(err, store.ErrUnknownOutcome) {
			back = w.Dice.Between(replyTimeout/2, replyTimeout)
		}
		w.After(back, &m.Actor, func() {
			if m.Epoch() == writer {
				done(err)
			}
		})
	})
}

func (w *World) apply(writer int64, fault storeFault, txn store.Txn) error {
	switch fault {
	case storeConflicts:
		w.Note("store", "conflicts with epoch %d", "", writer, 0)
		return store.ErrConflict
	case storeSlow:
		if w.Plant.On(bug.LoseDurable) {
			return nil
		}
	case storeLosesApplied, storeLosesDropped:
		w.store.LoseReply(fault == storeLosesApplied)
	}
	if w.Plant.On(bug.LoadStaleRows) && w.Dice.Chance(0.1) {
		w.stale, _ = w.store.Snapshot(w.ctx, row.All)
	}
	revision, err := w.store.Commit(w.ctx, txn)
	w.Note("store", "commits for epoch %d, revision %d", "", writer, revision)
	w.observe(writer)
	return err
}

// observe shows the judge each revision since the last. writer is the leader whose write it is, or 0.
func (w *World) observe(writer int64) {
	for {
		b, ok, err := w.changes.TryNext()
		if err != nil {
			w.Fail("watch: %v", err)
		}
		if !ok || err != nil {
			return
		}
		w.judge.revision(writer, b)
	}
}
