package storetest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/marinaos/marina/internal/store"
)

// oneLeadsAtATime lets candidates lead in turns. Each counts itself and writes under its fence, so two leaders at
// once would show in the count and in the epochs.
func oneLeadsAtATime(t *testing.T, ctx context.Context, s Store) {
	const candidates, turns = 4, 3
	var leading atomic.Int32
	var mu sync.Mutex
	var epochs []int64
	var wg sync.WaitGroup
	for c := range candidates {
		wg.Go(func() {
			for range turns {
				l, err := s.Campaign(ctx, "e", "c"+strconv.Itoa(c))
				if err != nil {
					t.Errorf("campaign: %v", err)
					return
				}
				if n := leading.Add(1); n != 1 {
					t.Errorf("leaders at once: got %d, want 1", n)
				}
				mu.Lock()
				epochs = append(epochs, l.Epoch())
				mu.Unlock()
				it, err := s.Get(ctx, store.LeaderKey("e"))
				if err != nil || string(it.Value) != l.Identity() || it.Created != l.Epoch() {
					t.Errorf("leader's row: got %+v, %v, want %s at %d", it, err, l.Identity(), l.Epoch())
				}
				if _, err := s.Commit(ctx, store.Txn{Guards: []store.Guard{l.Fence()},
					Ops: []store.Op{store.Put("by", []byte(l.Identity()))}}); err != nil {
					t.Errorf("write of the leader: %v", err)
				}
				leading.Add(-1)
				if err := l.Resign(ctx); err != nil {
					t.Errorf("resign: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if len(epochs) != candidates*turns {
		t.Errorf("leaderships: got %d, want %d", len(epochs), candidates*turns)
	}
	for i := 1; i < len(epochs); i++ {
		if epochs[i] <= epochs[i-1] {
			t.Errorf("epochs: %d after %d, want them to grow", epochs[i], epochs[i-1])
		}
	}
}

// deposedLeaderIsFenced deletes the leader's row, as the end of its lease does, and lets another lead.
func deposedLeaderIsFenced(t *testing.T, ctx context.Context, s Store) {
	old, err := s.Campaign(ctx, "e", "old")
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Campaign(ctx, "other election", "old")
	if err != nil {
		t.Fatal(err)
	}
	won := make(chan *store.Leadership, 1)
	go func() {
		l, err := s.Campaign(ctx, "e", "new")
		if err != nil {
			t.Errorf("campaign: %v", err)
		}
		won <- l
	}()
	write := func(l *store.Leadership, value string) error {
		_, err := s.Commit(ctx, store.Txn{Guards: []store.Guard{l.Fence()}, Ops: []store.Op{store.Put("row", []byte(value))}})
		return err
	}
	if err := write(old, "old"); err != nil {
		t.Errorf("write of the leader: %v", err)
	}
	select {
	case l := <-won:
		t.Fatalf("a second leader at epoch %d beside the one at %d", l.Epoch(), old.Epoch())
	default:
	}
	commit(t, ctx, s, nil, store.Delete(store.LeaderKey("e")))
	wantKind(t, "write of a leader whose row is gone", write(old, "late"), store.ErrFenced)
	next := <-won
	if next == nil {
		return
	}
	if next.Epoch() <= old.Epoch() {
		t.Errorf("epoch: got %d after %d, want a higher one", next.Epoch(), old.Epoch())
	}
	if err := write(next, "new"); err != nil {
		t.Errorf("write of the next leader: %v", err)
	}
	wantKind(t, "write of the leader before", write(old, "later"), store.ErrFenced)
	wantContents(t, ctx, s, "row", map[string]string{"row": "new"})
	<-old.Context().Done()
	wantKind(t, "deposed leader's context", context.Cause(old.Context()), store.ErrLeadershipLost)
	if err := old.Resign(ctx); err != nil {
		t.Errorf("resigning what is lost: %v", err)
	}
	if next.Context().Err() != nil || other.Context().Err() != nil {
		t.Errorf("other leaderships: got %v and %v, want them untouched",
			context.Cause(next.Context()), context.Cause(other.Context()))
	}
	if err := write(next, "still"); err != nil {
		t.Errorf("write of the next leader after the old one resigned: %v", err)
	}
}

// resigningHandsOver would run out of time if the next leader had to wait for the lease.
func resigningHandsOver(t *testing.T, ctx context.Context, s Store) {
	old, err := s.Campaign(ctx, "e", "old")
	if err != nil {
		t.Fatal(err)
	}
	if old.Context().Err() != nil {
		t.Fatalf("fresh leadership: %v", context.Cause(old.Context()))
	}
	if err := old.Resign(ctx); err != nil {
		t.Fatal(err)
	}
	<-old.Context().Done()
	wantKind(t, "resigned leader's context", context.Cause(old.Context()), store.ErrResigned)
	next, err := s.Campaign(ctx, "e", "next")
	if err != nil {
		t.Fatal(err)
	}
	if next.Epoch() <= old.Epoch() {
		t.Errorf("epoch: got %d after %d, want a higher one", next.Epoch(), old.Epoch())
	}
	if err := old.Resign(ctx); err != nil {
		t.Errorf("resigning twice: %v", err)
	}
	if _, err := s.Commit(ctx, store.Txn{Guards: []store.Guard{next.Fence()}}); err != nil {
		t.Errorf("fence after the old leader resigned twice: %v", err)
	}
}

func campaignEndsWithItsContext(t *testing.T, ctx context.Context, s Store) {
	running, stop := context.WithCancelCause(ctx)
	l, err := s.Campaign(running, "e", "old")
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("gave up")
	waiting, giveUp := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := s.Campaign(waiting, "e", "next")
		ended <- err
	}()
	giveUp(why)
	wantKind(t, "campaign", <-ended, why)
	stop(why)
	<-l.Context().Done()
	wantKind(t, "leadership under a campaign's context", context.Cause(l.Context()), why)
	if err := l.Resign(ctx); err != nil {
		t.Errorf("resign: %v", err)
	}
	if _, err := s.Campaign(ctx, "e", "third"); err != nil {
		t.Errorf("campaign after both: %v", err)
	}
}
