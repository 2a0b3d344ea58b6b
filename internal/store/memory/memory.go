package memory

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/store"
)

// Store is a store.Store in memory. Make one with New.
type Store struct {
	mu       sync.Mutex // guards everything below; the feeds' mutexes nest in it
	closed   bool
	revision int64
	rows     map[string]store.Item
	watchers map[*store.Feed]string // prefix of each
	tenures  map[string]tenure      // leaderships, by leader key
	vacant   chan struct{}          // closed and replaced when a leader's row goes away or the store closes

	replyFault  replyFault
	compactNext bool // the next watch finds its history compacted
}

type tenure struct {
	epoch  int64
	cancel context.CancelCauseFunc
}

// reply is the fault of the next commit.
type replyFault int

const (
	replyDelivered replyFault = iota
	replyLostApplied
	replyLostDropped
)

var _ store.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{
		revision: 1,
		rows:     map[string]store.Item{},
		watchers: map[*store.Feed]string{},
		tenures:  map[string]tenure{},
		vacant:   make(chan struct{}),
	}
}

// LoseReply makes the next Commit that gets as far as its guards return store.ErrUnknownOutcome. With applied it
// takes effect all the same, if its guards hold.
func (s *Store) LoseReply(applied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replyFault = replyLostDropped
	if applied {
		s.replyFault = replyLostApplied
	}
}

// CompactUnderWatch makes the next Watch find the history after its snapshot compacted: it ends with
// store.ErrWatchAgain.
func (s *Store) CompactUnderWatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compactNext = true
}

// EndWatches ends every open watch with store.ErrWatchAgain.
func (s *Store) EndWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.watchers {
		f.End(store.ErrWatchAgain)
	}
	clear(s.watchers)
}

// Expire ends the lease of an election's leader: its row goes away, but its Leadership.Context does not end, as if
// the leader were paused. Without a leader it does nothing.
func (s *Store) Expire(election string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := store.LeaderKey(election)
	delete(s.tenures, key)
	s.applyOps([]store.Op{store.Delete(key)})
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := txn.Validate(); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, fmt.Errorf("commit, nothing was sent: %w", context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, store.ErrClosed
	}
	fault := s.replyFault
	s.replyFault = replyDelivered
	err := txn.Judge(func(key string) (int64, int64) { return s.rows[key].Created, s.rows[key].Revision })
	if err == nil && fault != replyLostDropped {
		s.applyOps(txn.Ops)
	}
	if fault != replyDelivered {
		return 0, fmt.Errorf("commit: %w", store.ErrUnknownOutcome)
	}
	if err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	return s.revision, nil
}

// applyOps applies the operations as one revision and pushes it to the watches. The caller holds mu.
func (s *Store) applyOps(ops []store.Op) {
	next := s.revision + 1
	var changes []store.Change
	for _, op := range ops {
		old, found := s.rows[op.Key]
		switch {
		case op.Kind == store.OpPut:
			item := store.Item{Key: op.Key, Value: op.Value, Revision: next, Created: next}
			if found {
				item.Created = old.Created
			}
			s.rows[op.Key] = item
			changes = append(changes, store.Change{Item: item})
		case found:
			delete(s.rows, op.Key)
			changes = append(changes, store.Change{Item: store.Item{Key: op.Key, Revision: next}, Deleted: true})
		}
	}
	if len(changes) == 0 {
		return
	}
	s.revision = next
	for f, prefix := range s.watchers {
		b := store.Batch{Revision: next}
		for _, c := range changes {
			if strings.HasPrefix(c.Key, prefix) {
				b.Changes = append(b.Changes, c)
			}
		}
		if len(b.Changes) > 0 && !f.Push(b) {
			delete(s.watchers, f)
		}
	}
	s.endLeaderships(changes)
}

// endLeaderships ends the leaderships whose rows went away and wakes waiting candidates. The caller holds mu.
func (s *Store) endLeaderships(changes []store.Change) {
	leaders := store.Prefix("leader")
	for _, c := range changes {
		if !c.Deleted || !strings.HasPrefix(c.Key, leaders) {
			continue
		}
		if t, ok := s.tenures[c.Key]; ok {
			t.cancel(store.ErrLeadershipLost)
			delete(s.tenures, c.Key)
		}
		close(s.vacant)
		s.vacant = make(chan struct{})
	}
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Item, error) {
	if ctx.Err() != nil {
		return store.Item{}, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.Item{}, store.ErrClosed
	}
	item, ok := s.rows[key]
	if !ok {
		return store.Item{}, fmt.Errorf("row %s: %w", key, errdefs.ErrNotFound)
	}
	return item, nil
}

// Snapshot implements store.Store.
func (s *Store) Snapshot(ctx context.Context, prefix string) (*store.Snapshot, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	return s.snapshot(prefix), nil
}

// snapshot is Snapshot under mu.
func (s *Store) snapshot(prefix string) *store.Snapshot {
	snap := &store.Snapshot{Revision: s.revision}
	for key, item := range s.rows {
		if strings.HasPrefix(key, prefix) {
			snap.Items = append(snap.Items, item)
		}
	}
	slices.SortFunc(snap.Items, func(a, b store.Item) int { return strings.Compare(a.Key, b.Key) })
	return snap
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string) (*store.Watch, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	f := store.NewFeed()
	if s.compactNext {
		s.compactNext = false
		f.End(store.ErrWatchAgain)
	} else {
		s.watchers[f] = prefix
	}
	return store.NewWatch(s.snapshot(prefix), f, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, f)
	}), nil
}

// Campaign implements store.Store. It blocks only while another leads.
func (s *Store) Campaign(ctx context.Context, election, identity string) (*store.Leadership, error) {
	for {
		l, vacant, err := s.tryLead(ctx, election, identity)
		if l != nil || err != nil {
			return l, err
		}
		select {
		case <-vacant:
		case <-ctx.Done():
		}
	}
}

// tryLead creates the leader's row; if another leads, it returns the channel that is closed when that may be over.
func (s *Store) tryLead(ctx context.Context, election, identity string) (*store.Leadership, <-chan struct{}, error) {
	if ctx.Err() != nil {
		return nil, nil, fmt.Errorf("election %s: %w", election, context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, store.ErrClosed
	}
	key := store.LeaderKey(election)
	if _, led := s.rows[key]; led {
		return nil, s.vacant, nil
	}
	s.applyOps([]store.Op{store.Put(key, []byte(identity))})
	epoch := s.revision
	tenured, cancel := context.WithCancelCause(ctx)
	s.tenures[key] = tenure{epoch: epoch, cancel: cancel}
	release := func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.rows[key].Created == epoch {
			s.applyOps([]store.Op{store.Delete(key)})
		}
		return nil
	}
	return store.NewLeadership(tenured, cancel, election, identity, epoch, release), nil, nil
}

// Status implements store.Store.
func (s *Store) Status(ctx context.Context) (store.Status, error) {
	if ctx.Err() != nil {
		return store.Status{}, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.Status{}, store.ErrClosed
	}
	return store.Status{Healthy: true, Revision: s.revision}, nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for f := range s.watchers {
		f.End(store.ErrClosed)
	}
	for _, t := range s.tenures {
		t.cancel(store.ErrClosed)
	}
	close(s.vacant)
	return nil
}
