package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/marinaos/marina/internal/store"
)

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string) (*store.Watch, error) {
	snap, err := s.Snapshot(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	follow, cancel := context.WithCancel(s.life)
	feed, done := store.NewFeed(), make(chan struct{})
	err = s.spawn(func() {
		defer close(done)
		defer cancel()
		s.follow(follow, prefix, snap.Revision, feed)
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("watch: %w", err)
	}
	return store.NewWatch(snap, feed, func() {
		cancel()
		<-done
	}), nil
}

// follow pushes every change under prefix after revision until ctx ends or the watch cannot go on. It never waits for
// the reader, because the client below would queue without a limit.
func (s *Store) follow(ctx context.Context, prefix string, revision int64, feed *store.Feed) {
	ch := s.watcher.Watch(clientv3.WithRequireLeader(ctx), s.prefix+prefix, clientv3.WithPrefix(),
		clientv3.WithRev(revision+1))
	for resp := range ch {
		if err := resp.Err(); err != nil {
			feed.End(fmt.Errorf("%w: %w", store.ErrWatchAgain, err))
			return
		}
		for events := resp.Events; len(events) > 0; {
			b := s.firstBatch(events)
			if b.Revision <= revision {
				// etcd promises that this never happens. If it did, readers would lose or double a change.
				feed.End(fmt.Errorf("%w: etcd sent revision %d after %d", store.ErrWatchAgain, b.Revision, revision))
				return
			}
			revision, events = b.Revision, events[len(b.Changes):]
			if !feed.Push(b) {
				return
			}
		}
	}
	if ctx.Err() != nil {
		feed.End(store.ErrClosed)
		return
	}
	feed.End(store.ErrWatchAgain)
}

// firstBatch returns the batch of the first event's transaction; events are in order.
func (s *Store) firstBatch(events []*clientv3.Event) store.Batch {
	b := store.Batch{Revision: events[0].Kv.ModRevision}
	for _, e := range events {
		if e.Kv.ModRevision != b.Revision {
			break
		}
		b.Changes = append(b.Changes, store.Change{Item: s.item(e.Kv), Deleted: e.Type == clientv3.EventTypeDelete})
	}
	return b
}
