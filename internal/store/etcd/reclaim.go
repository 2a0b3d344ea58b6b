package etcd

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/marinaos/marina/internal/store"
)

// Compact drops all history: what was written over or deleted is free for other rows, and the database as large as it
// was. Watches that are behind end with store.ErrWatchAgain.
func (s *Store) Compact(ctx context.Context) error {
	if s.life.Err() != nil {
		return store.ErrClosed
	}
	ctx, end := s.underLife(ctx, func() {})
	defer end()
	resp, err := s.kv.Get(ctx, s.prefix, clientv3.WithCountOnly())
	if err == nil {
		_, err = s.kv.Compact(ctx, resp.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("drop history: %w", readError(ctx, err))
	}
	return nil
}

// Reclaim drops all history, returns the space of deleted rows to the filesystem and ends the alarm that refuses
// writes for lack of space. Each member stands still while its database is rewritten, and watches that are behind end
// with store.ErrWatchAgain, so call it when Status reports the quota, not before. ctx alone bounds it.
func (s *Store) Reclaim(ctx context.Context) error {
	if err := s.Compact(ctx); err != nil {
		return fmt.Errorf("reclaim: %w", err)
	}
	ctx, end := s.underLife(ctx, func() {})
	defer end()
	if err := s.defrag(ctx); err != nil {
		return fmt.Errorf("reclaim: rewrite the database: %w", readError(ctx, err))
	}
	alarms, err := s.upkeep.AlarmList(ctx)
	if err != nil {
		return fmt.Errorf("reclaim: read the alarms: %w", readError(ctx, err))
	}
	for _, a := range alarms.Alarms {
		if a.Alarm != pb.AlarmType_NOSPACE {
			continue
		}
		if _, err := s.upkeep.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: a.MemberID, Alarm: a.Alarm}); err != nil {
			return fmt.Errorf("reclaim: end the alarm: %w", readError(ctx, err))
		}
	}
	return nil
}
