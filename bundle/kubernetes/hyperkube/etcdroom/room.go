// Package etcdroom keeps room in a cluster's etcd. At its quota etcd refuses writes, and does not begin again by itself
// when there is space: history has to be dropped, the file to be rewritten and the alarm to be ended. The API server
// drops history by a write, so at the quota it does not either. Whoever deletes enough of what fills a cluster gets its
// API back within a look or two.
package etcdroom

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Member is the etcd that is kept.
type Member interface {
	// Space tells how large the file is, in bytes, how much of it holds data, history included, and whether writes are
	// refused.
	Space() (size, used int64, refuses bool)
	Compact(ctx context.Context) error // drops history
	Defrag() error                     // returns what is free in the file; nothing is answered meanwhile
	Disarm(ctx context.Context) error  // takes writes again
}

// Shares of the quota, in percent.
const (
	tight    = 70 // is told
	rewrite  = 80 // of the file, from which on it is rewritten if a good part of it is free
	freeOf   = 30 // least free part of the file, in percent of it, that is worth it
	disarmAt = 90 // data, below which writes are taken again
)

// Quota is a cluster's etcd's share of the filesystem it is alone on, in bytes: a quarter, so that the log,
// snapshots and a copy of the file while it is rewritten have room beside it.
func Quota(filesystem int64) int64 { return min(max(filesystem/4, 256<<20), 4<<30) }

// Keep looks after the member until ctx ends, every so often.
func Keep(ctx context.Context, m Member, quota int64, every time.Duration, log *slog.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := look(ctx, m, quota, log); err != nil && ctx.Err() == nil {
			log.Warn("etcd: room could not be made, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func look(ctx context.Context, m Member, quota int64, log *slog.Logger) error {
	size, used, refuses := m.Space()
	if !refuses && (size*100 < quota*rewrite || (size-used)*100 < size*freeOf) {
		return nil
	}
	if refuses {
		if err := m.Compact(ctx); err != nil {
			return fmt.Errorf("drop history: %w", err)
		}
		if _, used, _ = m.Space(); used*100 >= quota*disarmAt {
			return nil // all of it is data: somebody has to delete some
		}
	}
	if err := m.Defrag(); err != nil {
		return fmt.Errorf("rewrite the file: %w", err)
	}
	now, used, _ := m.Space()
	log.Info("etcd: free space is returned", "was", size, "is", now, "data", used, "quota", quota)
	if !refuses {
		return nil
	}
	if err := m.Disarm(ctx); err != nil {
		return fmt.Errorf("take writes again: %w", err)
	}
	return nil
}

// Problem says in a sentence that there is little room or none; empty: there is enough. It changes in steps of five
// percent, so that a status with it stays the same while little happens.
func Problem(m Member, quota int64) string {
	_, used, refuses := m.Space()
	share := used * 100 / quota
	switch {
	case refuses:
		return fmt.Sprintf("etcd has used up its %d MiB and refuses writes: delete what is not needed, it then takes them again by itself", quota>>20)
	case share >= tight:
		return fmt.Sprintf("etcd uses more than %d %% of its %d MiB: delete what is not needed, or make a cluster with a larger control plane", share/5*5, quota>>20)
	}
	return ""
}
