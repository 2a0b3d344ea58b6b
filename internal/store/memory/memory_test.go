package memory_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
	"github.com/marinaos/marina/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Store { return memory.New() })
}

// TestExpiredLeaderDoesNotNotice plays a paused leader. Only its fence stops it.
func TestExpiredLeaderDoesNotNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		old, err := s.Campaign(t.Context(), "e", "old")
		if err != nil {
			t.Fatal(err)
		}
		var next *store.Leadership
		go func() { next, _ = s.Campaign(t.Context(), "e", "next") }()
		time.Sleep(time.Hour) // in the bubble's time: nothing happens
		synctest.Wait()
		if next != nil {
			t.Fatal("a lease ran out by itself")
		}
		s.Expire("e")
		synctest.Wait()
		if next == nil || next.Epoch() <= old.Epoch() {
			t.Fatalf("next leader: got %+v, want one with an epoch over %d", next, old.Epoch())
		}
		if err := old.Context().Err(); err != nil {
			t.Errorf("expired leader's context: got %v, want it to go on", err)
		}
		_, err = s.Commit(t.Context(), store.Txn{Guards: []store.Guard{old.Fence()}, Ops: []store.Op{store.Put("a", nil)}})
		if !errors.Is(err, store.ErrFenced) {
			t.Errorf("its write: got %v, want it fenced", err)
		}
		s.Expire("nobody's")
	})
}

func TestEndedWatchesSayWatchAgain(t *testing.T) {
	s := memory.New()
	w, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	s.EndWatches()
	if _, err := s.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put("a", nil)}}); err != nil {
		t.Fatal(err)
	}
	if b, _, err := w.TryNext(); !errors.Is(err, store.ErrWatchAgain) {
		t.Errorf("ended watch: got %+v, %v, want store.ErrWatchAgain", b, err)
	}
}
