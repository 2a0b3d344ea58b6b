package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/store"
)

// pairs is the number of pairs of rows that snapshotIsOneRevision keeps equal: more rows than one page of a snapshot.
const pairs = 400

func pairKeys(i int) (string, string) {
	return fmt.Sprintf("p/%04d", i), fmt.Sprintf("p/%04d", 2*pairs-1-i)
}

// snapshotIsOneRevision lets writers change rows far apart together: a snapshot that mixes revisions shows pairs that
// differ.
func snapshotIsOneRevision(t *testing.T, ctx context.Context, s Store) {
	write := func(ctx context.Context, value string, is ...int) error {
		var ops []store.Op
		for _, i := range is {
			a, b := pairKeys(i)
			ops = append(ops, store.Put(a, []byte(value)), store.Put(b, []byte(value)))
		}
		_, err := s.Commit(ctx, store.Txn{Ops: ops})
		return err
	}
	all := make([]int, pairs)
	for i := range all {
		all[i] = i
	}
	if err := write(ctx, "0", all...); err != nil {
		t.Fatal(err)
	}
	writing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for w := range 2 {
		wg.Go(func() {
			for n := 1; writing.Err() == nil; n++ {
				i := (n*7 + w) % pairs
				if err := write(ctx, strconv.Itoa(n), i, (i+1)%pairs); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	for first, n := int64(0), 0; n < 20; n++ {
		snap, err := s.Snapshot(ctx, "p/")
		if err != nil {
			t.Fatal(err)
		}
		wantPairs(t, snap)
		if first == 0 {
			first = snap.Revision
		}
		if snap.Revision < first+50 {
			n = 0 // the writers have hardly begun
		}
	}
}

// wantPairs expects that the rows of a pair are equal, in a snapshot in the order of keys.
func wantPairs(t *testing.T, snap *store.Snapshot) {
	t.Helper()
	if len(snap.Items) != 2*pairs {
		t.Fatalf("snapshot: got %d rows, want %d", len(snap.Items), 2*pairs)
	}
	for i := range pairs {
		a, b := snap.Items[i], snap.Items[2*pairs-1-i]
		if string(a.Value) != string(b.Value) || a.Revision != b.Revision {
			t.Fatalf("snapshot at %d: %s is %s at %d, its pair is %s at %d, want them equal",
				snap.Revision, a.Key, a.Value, a.Revision, b.Value, b.Revision)
		}
		if i > 0 && a.Key <= snap.Items[i-1].Key {
			t.Fatalf("snapshot: %s after %s, want key order", a.Key, snap.Items[i-1].Key)
		}
		if a.Revision > snap.Revision {
			t.Fatalf("snapshot at %d holds a row of %d", snap.Revision, a.Revision)
		}
	}
}

// watchMissesAndDoublesNothing starts watches while writers write, and replays each onto its snapshot.
func watchMissesAndDoublesNothing(t *testing.T, ctx context.Context, s Store) {
	const writers, txns, rows = 3, 60, 3
	var wg sync.WaitGroup
	defer wg.Wait()
	started := make(chan struct{}, writers*txns)
	for w := range writers {
		wg.Go(func() {
			for n := range txns {
				tag := []byte(fmt.Sprintf("%d-%d", w, n))
				var ops []store.Op
				for r := range rows {
					key := store.Key("w", strconv.Itoa(r), strconv.Itoa(w))
					if n%10 == 9 {
						ops = append(ops, store.Delete(key))
					} else {
						ops = append(ops, store.Put(key, tag))
					}
				}
				if _, err := s.Commit(ctx, store.Txn{Ops: ops}); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				started <- struct{}{}
			}
		})
	}
	var readers sync.WaitGroup
	for range 3 {
		for range 20 {
			<-started
		}
		w, err := s.Watch(ctx, "w/")
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
			defer w.Close()
			replay(t, ctx, s, w, rows)
		})
	}
	wg.Wait()
	put(t, ctx, s, "w/end", "")
	readers.Wait()
}

// replay follows a watch to the row w/end and compares what it built with the store.
func replay(t *testing.T, ctx context.Context, s Store, w *store.Watch, rows int) {
	built, last := map[string]string{}, w.Snapshot().Revision
	for _, it := range w.Snapshot().Items {
		built[it.Key] = string(it.Value)
	}
	for ended := false; !ended; {
		b, err := w.Next(ctx)
		if err != nil {
			t.Errorf("watch: %v", err)
			return
		}
		if b.Revision <= last {
			t.Errorf("watch: revision %d after %d, want them to grow", b.Revision, last)
		}
		last = b.Revision
		_, ended = keyOf(b, "w/end")
		if !ended && len(b.Changes) != rows {
			t.Errorf("watch: batch of revision %d has %d changes, want the transaction's %d", b.Revision, len(b.Changes), rows)
		}
		for _, c := range b.Changes {
			if c.Revision != b.Revision || string(c.Value) != string(b.Changes[0].Value) {
				t.Errorf("watch: batch %d mixes transactions: %+v", b.Revision, c)
			}
			if c.Deleted {
				delete(built, c.Key)
			} else {
				built[c.Key] = string(c.Value)
			}
		}
	}
	if diff := cmp.Diff(contents(t, ctx, s, "w/"), built); diff != "" {
		t.Errorf("snapshot and changes do not add up (-store +watch):\n%s", diff)
	}
}

func keyOf(b store.Batch, key string) (store.Change, bool) {
	for _, c := range b.Changes {
		if c.Key == key {
			return c, true
		}
	}
	return store.Change{}, false
}

func watchSeesItsPrefixOnly(t *testing.T, ctx context.Context, s Store) {
	put(t, ctx, s, "apps/old", "0")
	w, err := s.Watch(ctx, "apps/")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if b, ok, err := w.TryNext(); ok || err != nil {
		t.Errorf("fresh watch: got %+v, %v, want nothing yet", b, err)
	}
	put(t, ctx, s, "apps2/b", "1")
	put(t, ctx, s, "app", "1")
	rev := commit(t, ctx, s, nil, store.Put("apps2/a", nil), store.Put("apps/a", []byte("1")), store.Delete("apps/old"),
		store.Delete("apps/never"))
	got, err := w.Next(ctx)
	want := store.Batch{Revision: rev, Changes: []store.Change{
		{Item: store.Item{Key: "apps/a", Value: []byte("1"), Revision: rev, Created: rev}},
		{Item: store.Item{Key: "apps/old", Revision: rev}, Deleted: true},
	}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("batch (-want +got), error %v:\n%s", err, diff)
	}
}

func watchEndsWhenHistoryIsGone(t *testing.T, ctx context.Context, s Store) {
	put(t, ctx, s, "a", "1")
	s.CompactUnderWatch()
	w, err := s.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_, err = w.Next(ctx)
	wantKind(t, "watch whose history is gone", err, store.ErrWatchAgain)
	_, err = w.Next(ctx)
	wantKind(t, "the same watch later", err, store.ErrWatchAgain)

	again, err := s.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	rev := put(t, ctx, s, "b", "1")
	if b, err := again.Next(ctx); err != nil || b.Revision != rev {
		t.Errorf("second watch: got %+v, %v, want revision %d", b, err, rev)
	}
}

func watchEndsUnderSlowReader(t *testing.T, ctx context.Context, s Store) {
	w, err := s.Watch(ctx, "big/")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	put(t, ctx, s, "big/first", "")
	first, err := w.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	last := first.Revision
	for range store.MaxWatchBacklog/(7*store.MaxValueBytes) + 2 {
		var ops []store.Op
		for i := range 7 {
			ops = append(ops, store.Put("big/"+strconv.Itoa(i), make([]byte, store.MaxValueBytes)))
		}
		last = commit(t, ctx, s, nil, ops...)
	}
	for {
		b, err := w.Next(ctx)
		if err != nil {
			wantKind(t, "watch with a slow reader", err, store.ErrWatchAgain)
			return
		}
		if b.Revision >= last {
			t.Fatalf("a reader more than %d bytes behind reached the end, want its watch ended", store.MaxWatchBacklog)
		}
	}
}

func watchEndsWhenClosed(t *testing.T, ctx context.Context, s Store) {
	w, err := s.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("the reader had enough")
	dead, cancel := context.WithCancelCause(ctx)
	cancel(why)
	_, err = w.Next(dead)
	wantKind(t, "next under a dead context", err, why)
	rev := put(t, ctx, s, "a", "1")
	if b, err := w.Next(ctx); err != nil || b.Revision != rev {
		t.Errorf("next after a dead context: got %+v, %v, want revision %d", b, err, rev)
	}
	w.Close()
	w.Close()
	_, err = w.Next(ctx)
	wantKind(t, "next after close", err, store.ErrClosed)
}
