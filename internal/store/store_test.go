package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

func TestATransactionOverALimitSaysWhichAndWhatToDo(t *testing.T) {
	many := func(n int) (ops []Op) {
		for i := range n {
			ops = append(ops, Put(fmt.Sprint(i), nil))
		}
		return ops
	}
	for what, c := range map[string]struct {
		txn  Txn
		says string // nothing: it may be
	}{
		"nothing":  {Txn{}, ""},
		"the most": {Txn{Ops: many(MaxTxnOps)}, ""},
		"one more": {Txn{Ops: many(MaxTxnOps + 1)},
			"8193 operations and 0 guards, of each at most 8192 fit: split it"},
		"too many guards":    {Txn{Guards: make([]Guard, MaxTxnOps+1)}, "8193 guards"},
		"a long key":         {Txn{Ops: []Op{Put(strings.Repeat("k", MaxKeyBytes), nil)}}, ""},
		"a longer key":       {Txn{Ops: []Op{Put(strings.Repeat("k", MaxKeyBytes+1), nil)}}, "key of 4097 bytes"},
		"no key":             {Txn{Ops: []Op{Delete("")}}, "key of 0 bytes"},
		"a guard of no key":  {Txn{Guards: []Guard{Exists("")}}, "key of 0 bytes"},
		"a guard of no kind": {Txn{Guards: []Guard{{Key: "a"}}}, "make guards with their functions"},
		"an op of no kind":   {Txn{Ops: []Op{{Key: "a"}}}, "make operations with their functions"},
		"a key twice": {Txn{Ops: []Op{Put("a", nil), Delete("a")}},
			"row a: two operations in one transaction: keep the last"},
		"a large value":  {Txn{Ops: []Op{Put("a", make([]byte, MaxValueBytes))}}, ""},
		"a larger value": {Txn{Ops: []Op{Put("a", make([]byte, MaxValueBytes+1))}}, "row a: 1048577 bytes"},
		"too many bytes": {Txn{Ops: []Op{Put("a", make([]byte, MaxValueBytes)), Put("b", make([]byte, MaxValueBytes)),
			Put("c", make([]byte, MaxValueBytes)), Put("d", make([]byte, MaxValueBytes)), Put("e", make([]byte, MaxValueBytes)),
			Put("f", make([]byte, MaxValueBytes)), Put("g", make([]byte, MaxValueBytes)),
			Put("h", make([]byte, MaxValueBytes))}},
			"at most 8388608 fit: split it"},
	} {
		err := c.txn.Validate()
		if c.says == "" && err != nil || c.says != "" && (!errdefs.IsInvalidArgument(err) ||
			!strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: got %v, want %q", what, err, c.says)
		}
	}
}

// drawTxn draws guards and operations over a few keys.
func drawTxn(t *rapid.T) Txn {
	key := rapid.SampledFrom([]string{"a", "b", "c"})
	var txn Txn
	for range rapid.IntRange(0, 3).Draw(t, "guards") {
		txn.Guards = append(txn.Guards, Guard{GuardKind(rapid.IntRange(1, 4).Draw(t, "kind")), key.Draw(t, "guarded"),
			rapid.Int64Range(0, 6).Draw(t, "revision")})
	}
	for _, k := range rapid.SliceOfDistinct(key, func(k string) string { return k }).Draw(t, "keys") {
		txn.Ops = append(txn.Ops, Put(k, []byte(rapid.StringN(0, 9, -1).Draw(t, "value"))))
	}
	return txn
}

func TestAFenceThatFailsIsToldBeforeAnyOtherGuard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		txn := drawTxn(t)
		created, changed := map[string]int64{}, map[string]int64{}
		for _, k := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c"}),
			func(k string) string { return k }).Draw(t, "rows") {
			created[k] = rapid.Int64Range(1, 5).Draw(t, "created")
			changed[k] = rapid.Int64Range(created[k], 6).Draw(t, "changed")
		}
		fenced, conflict := false, false
		for _, g := range txn.Guards {
			switch g.Kind {
			case GuardAbsent:
				conflict = conflict || changed[g.Key] != 0
			case GuardExists:
				conflict = conflict || changed[g.Key] == 0
			case GuardUnchanged:
				conflict = conflict || changed[g.Key] != g.Revision
			case GuardFence:
				fenced = fenced || created[g.Key] != g.Revision
			}
		}
		err := txn.Judge(func(key string) (int64, int64) { return created[key], changed[key] })
		if errors.Is(err, ErrFenced) != fenced || errors.Is(err, ErrConflict) != (conflict && !fenced) ||
			(err == nil) != (!fenced && !conflict) {
			t.Fatalf("guards %+v of rows created %v, changed %v: got %v, want fenced %v, conflict %v", txn.Guards,
				created, changed, err,
				fenced, conflict)
		}
		if g, ok := errors.AsType[*GuardError](err); ok && !strings.Contains(err.Error(), "row "+g.Guard.Key+": want ") {
			t.Fatalf("%v does not name row %s and what it wants", err, g.Guard.Key)
		}
		if least := len(txn.Guards)*2 + len(txn.Ops); txn.Bytes() < least*opOverhead {
			t.Fatalf("%+v is %d bytes", txn, txn.Bytes())
		}
	})
}

func TestAWatchGivesEachBatchOnceAndInOrder(t *testing.T) {
	f := NewFeed()
	w := NewWatch(&Snapshot{Revision: 3}, f, func() {})
	for r := range int64(3) {
		if !f.Push(Batch{Revision: 4 + r}) {
			t.Fatal("a feed that somebody reads has ended")
		}
	}
	for want := int64(4); want < 7; want++ {
		if b, err := w.Next(t.Context()); err != nil || b.Revision != want {
			t.Errorf("got batch %d, %v, want %d", b.Revision, err, want)
		}
	}
	if b, ok, err := w.TryNext(); ok || err != nil {
		t.Errorf("after the last: %+v, %v, want nothing", b, err)
	}
	if w.Snapshot().Revision != 3 {
		t.Errorf("snapshot at %d", w.Snapshot().Revision)
	}
}

func TestANextThatIsGivenUpEndsNoWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFeed()
		closed := 0
		w := NewWatch(&Snapshot{}, f, func() { closed++ })
		why := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		if _, err := w.Next(ctx); !errors.Is(err, why) {
			t.Errorf("got %v, want the context's cause", err)
		}
		got := make(chan Batch)
		go func() {
			b, _ := w.Next(context.Background())
			got <- b
		}()
		synctest.Wait()
		f.Push(Batch{Revision: 9})
		if b := <-got; b.Revision != 9 {
			t.Errorf("got batch %d after that, want 9", b.Revision)
		}
		ended := make(chan error)
		go func() {
			_, err := w.Next(context.Background())
			ended <- err
		}()
		synctest.Wait()
		w.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) || closed != 1 {
			t.Errorf("closed %d times under a reader: it got %v, want ErrClosed", closed, err)
		}
		if f.Push(Batch{Revision: 10}) {
			t.Error("a closed feed takes more")
		}
		f.End(ErrWatchAgain)
		if _, _, err := w.TryNext(); !errors.Is(err, ErrClosed) {
			t.Errorf("ended a second time: %v, want the first reason", err)
		}
	})
}

// A reader far behind costs the store no more than MaxWatchBacklog; one batch is taken however large it is.
func TestAReaderTooFarBehindStartsAnew(t *testing.T) {
	large := Batch{Changes: []Change{{Item: Item{Key: "k", Value: make([]byte, MaxWatchBacklog+1)}}}}
	f := NewFeed()
	w := NewWatch(&Snapshot{}, f, func() {})
	if !f.Push(large) {
		t.Fatal("one large batch was refused")
	}
	if _, ok, err := w.TryNext(); !ok || err != nil {
		t.Fatalf("one large batch: %v, %v", ok, err)
	}
	half := Batch{Changes: []Change{{Item: Item{Key: "k", Value: make([]byte, MaxWatchBacklog/2)}}}}
	if !f.Push(half) || f.Push(half) {
		t.Error("more than the backlog was taken, or less was refused")
	}
	if _, _, err := w.TryNext(); !errors.Is(err, ErrWatchAgain) || !errdefs.IsOutOfRange(err) ||
		!strings.Contains(err.Error(), "bytes behind") {
		t.Errorf("got %v, want ErrWatchAgain and how far it is behind", err)
	}
}

func TestALeadershipKnowsItsElectionAndResignsOnce(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	released := 0
	l := NewLeadership(ctx, cancel, "master", "m1", 7, func(context.Context) error {
		if !errors.Is(context.Cause(ctx), ErrResigned) {
			t.Error("the row was deleted before the work has ended")
		}
		released++
		return nil
	})
	if l.Election() != "master" || l.Identity() != "m1" || l.Epoch() != 7 || l.Fence() != Fence("master", 7) {
		t.Errorf("got %s, %s, %d, %+v", l.Election(), l.Identity(), l.Epoch(), l.Fence())
	}
	if err := l.Resign(t.Context()); err != nil || released != 1 || l.Context().Err() == nil {
		t.Errorf("resigned: %v, %d times, context %v", err, released, l.Context().Err())
	}
}
