package upkeep

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/store"
)

// Store is the part of a store that a Keeper needs; *etcd.Store is one.
type Store interface {
	Status(ctx context.Context) (store.Status, error)
	Count(ctx context.Context, prefix string) (int64, error)
	Compact(ctx context.Context) error
	Reclaim(ctx context.Context) error
	Written() int64 // bytes committed by this process, ever
}

// Table is rows that people can delete.
type Table struct {
	Prefix string // of their keys
	Noun   string // "apps"
}

// Config configures a Keeper. Log, Metrics and Tables may be left out.
type Config struct {
	Store   Store
	Shared  bool          // others keep it: it is not reclaimed from here
	Tables  []Table       // what a refusal names, with their numbers
	Every   time.Duration // pause between two looks while little is written. Default: 10 s
	Log     *slog.Logger
	Metrics *metrics.Registry
}

// Keeper keeps room in one store. Its methods are safe for concurrent use.
type Keeper struct {
	cfg       Config
	reclaims  metrics.Counter
	reclaimed time.Time // the last time; Run's and Open's own

	mu     sync.Mutex
	status store.Status // guarded by mu, as all below
	looked time.Time
	wrote  int64 // what the store had Written then
	level  Level
	since  time.Time // of the level
	rows   string    // what there is to delete, while the level is not Roomy
}

// New returns a Keeper that has not looked yet.
func New(cfg Config) *Keeper {
	if cfg.Every == 0 {
		cfg.Every = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{cfg: cfg, reclaims: cfg.Metrics.Counter("marina_store_reclaims_total",
		"Times the store's database was rewritten to return free space.")}
	gauge := func(name, help string, f func(store.Status) int64) {
		cfg.Metrics.GaugeFunc(name, help, func() float64 {
			k.mu.Lock()
			defer k.mu.Unlock()
			return float64(f(k.status))
		})
	}
	gauge("marina_store_size_bytes", "The store's database, what is free in it included.",
		func(s store.Status) int64 { return s.Bytes })
	gauge("marina_store_used_bytes", "What of the store's database holds data.",
		func(s store.Status) int64 { return s.InUse })
	gauge("marina_store_quota_bytes", "The size at which the store refuses writes.",
		func(s store.Status) int64 { return s.Quota })
	return k
}

// Open looks for the first time, before anybody campaigns. Its error is the context's: whatever else is wrong is told
// by alarms.
func (k *Keeper) Open(ctx context.Context) error {
	k.look(ctx, true)
	return context.Cause(ctx)
}

// Run looks again and again until ctx ends: every Config.Every, and sooner when much was written.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(min(k.cfg.Every, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if k.due() {
				k.look(ctx, false)
			}
		}
	}
}

func (k *Keeper) due() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.looked) >= k.cfg.Every || percent(k.cfg.Store.Written()-k.wrote, k.status.Quota) > 0
}

// now is the status with what was written since it was asked for. The mutex is held.
func (k *Keeper) now() store.Status {
	st := k.status
	st.InUse += k.cfg.Store.Written() - k.wrote
	return st
}

// Admit refuses what people ask for while the store is full, with an errdefs.ErrResourceExhausted that says what they
// can delete.
func (k *Keeper) Admit() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if judge(k.now(), k.level) != Full {
		return nil
	}
	return fmt.Errorf("the datacenter's store is full, %s: %s, and ask again: %w", k.usage(), k.advice(),
		errdefs.ErrResourceExhausted)
}

// Alarms has one while the store has little room.
func (k *Keeper) Alarms() []kernel.Alarm {
	k.mu.Lock()
	defer k.mu.Unlock()
	level := judge(k.now(), k.level)
	if level == Roomy {
		return nil
	}
	problem := k.usage()
	if level == Full {
		problem += "; what people ask for is refused, deletes go on"
	} else {
		problem += fmt.Sprintf("; from %d %% on what people ask for is refused", FullPercent)
	}
	return []kernel.Alarm{{Subject: "store", Problem: problem, Do: k.advice(), Since: k.since}}
}

// usage says how full the store is. The mutex is held.
func (k *Keeper) usage() string {
	st := k.now()
	return fmt.Sprintf("%d of %d MiB of its quota are used", st.InUse>>20, st.Quota>>20)
}

// advice says what an operator can do. The mutex is held.
func (k *Keeper) advice() string {
	do := "delete what is not needed"
	if k.rows != "" {
		do += " of " + k.rows
	}
	if k.cfg.Shared {
		do += ", or compact, defragment or enlarge the etcd it is kept in"
	}
	return do
}

// look asks for the status, reclaims where it is worth it, and notes what that means.
func (k *Keeper) look(ctx context.Context, start bool) {
	wrote := k.cfg.Store.Written()
	st, err := k.cfg.Store.Status(ctx)
	if err != nil {
		return // the store's own health tells it
	}
	k.mu.Lock()
	before := k.level
	k.mu.Unlock()
	switch {
	case k.cfg.Shared:
	case worthReclaiming(st, start) && (start || time.Since(k.reclaimed) >= ReclaimPause):
		st = k.reclaim(ctx, st)
	case judge(st, before) == Full: // what was deleted is to count at once, not when history is a minute old
		if err := k.cfg.Store.Compact(ctx); err != nil {
			k.cfg.Log.Warn("the store's history cannot be dropped", "err", err)
		} else if after, err := k.cfg.Store.Status(ctx); err == nil {
			st = after
		}
	}
	level, rows := judge(st, before), ""
	if level != Roomy {
		rows = k.count(ctx)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status, k.level, k.rows, k.wrote, k.looked = st, level, rows, wrote, time.Now()
	if level != before {
		k.since = time.Now()
		k.cfg.Log.Warn("the store's room changed", "level", level, "was", before, "used", st.InUse, "size", st.Bytes,
			"quota", st.Quota, "rows", rows)
	}
}

// reclaim has free space returned, and answers with the status after it.
func (k *Keeper) reclaim(ctx context.Context, st store.Status) store.Status {
	began := time.Now()
	err := k.cfg.Store.Reclaim(ctx)
	k.reclaimed = time.Now()
	k.reclaims.Inc()
	after, statusErr := k.cfg.Store.Status(ctx)
	if statusErr != nil {
		after = st
	}
	k.cfg.Log.Info("the store's free space is reclaimed", "took", time.Since(began), "size", st.Bytes, "now", after.Bytes,
		"err", err)
	return after
}

// count lists the rows that can be deleted, most first: "12000 versions, 600 apps".
func (k *Keeper) count(ctx context.Context) string {
	type number struct {
		rows int64
		noun string
	}
	list := []number{}
	for _, t := range k.cfg.Tables {
		if n, err := k.cfg.Store.Count(ctx, t.Prefix); err == nil && n > 0 {
			list = append(list, number{n, t.Noun})
		}
	}
	slices.SortStableFunc(list, func(a, b number) int { return int(b.rows - a.rows) })
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = fmt.Sprint(n.rows, " ", n.noun)
	}
	return strings.Join(words, ", ")
}
