package memory_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

// model keeps a store's rows by the plainest means, and those that a reader of its watch has seen.
type model struct {
	t    *rapid.T
	s    *memory.Store
	rows map[string]string
	w    *store.Watch
	seen map[string]string
	last int64 // revision of the last batch that the reader got
}

var keys = rapid.SampledFrom([]string{"t/a", "t/b", "u/a", "u/b"})

// watch begins the reader anew, from a snapshot.
func (m *model) watch() {
	w, err := m.s.Watch(m.t.Context(), "t/")
	if err != nil {
		m.t.Fatal(err)
	}
	m.w, m.seen, m.last = w, map[string]string{}, w.Snapshot().Revision
	for _, item := range w.Snapshot().Items {
		m.seen[item.Key] = string(item.Value)
	}
}

// commit commits a transaction that may not hold, may lose its answer, and may have been applied all the same.
func (m *model) commit() {
	var txn store.Txn
	holds := true
	for _, key := range rapid.SliceOfNDistinct(keys, 0, 2, rapid.ID).Draw(m.t, "guarded") {
		_, there := m.rows[key]
		if rapid.Bool().Draw(m.t, "absent") {
			txn.Guards, holds = append(txn.Guards, store.Absent(key)), holds && !there
		} else {
			txn.Guards, holds = append(txn.Guards, store.Exists(key)), holds && there
		}
	}
	next := maps.Clone(m.rows)
	for _, key := range rapid.SliceOfNDistinct(keys, 0, 3, rapid.ID).Draw(m.t, "keys") {
		if rapid.Bool().Draw(m.t, "delete") {
			txn.Ops = append(txn.Ops, store.Delete(key))
			delete(next, key)
		} else {
			value := fmt.Sprint(rapid.IntRange(0, 99).Draw(m.t, "value"))
			txn.Ops = append(txn.Ops, store.Put(key, []byte(value)))
			next[key] = value
		}
	}
	lost, applied := rapid.Bool().Draw(m.t, "lost"), rapid.Bool().Draw(m.t, "applied")
	if lost {
		m.s.LoseReply(applied)
	}
	switch _, err := m.s.Commit(m.t.Context(), txn); {
	case lost && !errors.Is(err, store.ErrUnknownOutcome):
		m.t.Fatalf("an answer was lost: got %v, want ErrUnknownOutcome", err)
	case !lost && holds && err != nil:
		m.t.Fatalf("%+v on %v: %v", txn, m.rows, err)
	case !lost && !holds && !errors.Is(err, store.ErrConflict):
		m.t.Fatalf("%+v on %v: got %v, want ErrConflict", txn, m.rows, err)
	}
	if holds && (!lost || applied) {
		m.rows = next
	}
}

// read takes what the watch has, or begins anew if it has ended.
func (m *model) read() {
	for {
		b, ok, err := m.w.TryNext()
		if errors.Is(err, store.ErrWatchAgain) {
			m.w.Close()
			m.watch()
			return
		}
		if err != nil {
			m.t.Fatal(err)
		}
		if !ok {
			return
		}
		if b.Revision <= m.last || len(b.Changes) == 0 {
			m.t.Fatalf("batch %+v after revision %d", b, m.last)
		}
		m.last = b.Revision
		for _, c := range b.Changes {
			if !strings.HasPrefix(c.Key, "t/") {
				m.t.Fatalf("a watch of t/ tells of %s", c.Key)
			}
			if m.seen[c.Key] = string(c.Value); c.Deleted {
				delete(m.seen, c.Key)
			}
		}
	}
}

// judge compares everything with the model.
func (m *model) judge() {
	m.read()
	snap, err := m.s.Snapshot(m.t.Context(), "")
	if err != nil {
		m.t.Fatal(err)
	}
	got := map[string]string{}
	for _, item := range snap.Items {
		got[item.Key] = string(item.Value)
		if item.Created > item.Revision || item.Revision > snap.Revision {
			m.t.Fatalf("row %+v of a snapshot at %d", item, snap.Revision)
		}
	}
	if !maps.Equal(got, m.rows) || !slices.IsSortedFunc(snap.Items,
		func(a, b store.Item) int { return strings.Compare(a.Key, b.Key) }) {
		m.t.Fatalf("the store has %+v, want %v", snap.Items, m.rows)
	}
	want := maps.Clone(m.rows)
	maps.DeleteFunc(want, func(key, _ string) bool { return !strings.HasPrefix(key, "t/") })
	if !maps.Equal(m.seen, want) {
		m.t.Fatalf("the reader of t/ has %v, want %v", m.seen, want)
	}
}

// Whatever answers are lost and whatever watches end: a store has what was committed, and who follows it too.
func TestAStoreAndItsFollowerHaveWhatWasCommitted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{t: t, s: memory.New(), rows: map[string]string{}}
		m.watch()
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				m.s.EndWatches()
			case 1:
				m.s.CompactUnderWatch()
				m.s.EndWatches()
			case 2:
				m.read()
			default:
				m.commit()
			}
		}
		m.read() // one whose history was compacted begins once more
		m.judge()
	})
}
