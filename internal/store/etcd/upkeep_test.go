package etcd

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/upkeep"
)

// TestAStoreThatRefusedEverythingComesBackByItself fills a store to its quota, deletes, and starts it again: without the
// keeper no leader could be elected any more.
func TestAStoreThatRefusedEverythingComesBackByItself(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenEmbedded(t.Context(), Embedded{Dir: dir, QuotaBytes: 8 << 20, LeaseTTL: longLease, Log: logTo(t)})
	if err != nil {
		t.Fatal(err)
	}
	var empty []store.Op
	for n := 0; !errdefs.IsResourceExhausted(err); n++ {
		if n > 100 {
			t.Fatal("a quota of 8 MiB took more than 25 MiB")
		}
		key := store.Key("row", strconv.Itoa(n))
		empty = append(empty, store.Delete(key))
		_, err = s.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(key, make([]byte, 256<<10))}})
	}
	if _, err := s.Commit(t.Context(), store.Txn{Ops: empty[1:]}); err != nil {
		t.Fatalf("delete over the quota: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := s.Campaign(short, "master", "m1"); err == nil {
		t.Error("a store over its quota elects: this test shows nothing")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = embedded(t, Embedded{Dir: dir, QuotaBytes: 8 << 20})
	k := upkeep.New(upkeep.Config{Store: s, Tables: []upkeep.Table{{Prefix: store.Prefix("row"), Noun: "rows"}}})
	if err := k.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.Admit(); err != nil {
		t.Errorf("after the start: %v", err)
	}
	if _, err := s.Campaign(t.Context(), "master", "m1"); err != nil {
		t.Errorf("after the start: %v", err)
	}
	if _, err := s.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(store.Key("row", "new"), []byte("x"))}}); err != nil {
		t.Errorf("after the start: %v", err)
	}
	if n, err := s.Count(t.Context(), store.Prefix("row")); n != 2 || err != nil {
		t.Errorf("rows: got %d, %v, want the one that stayed and the new one", n, err)
	}
	if st, err := s.Status(t.Context()); err != nil || st.NoSpace || !st.Healthy {
		t.Errorf("status: got %+v, %v", st, err)
	}
}

func TestCountNeedsAnOpenStore(t *testing.T) {
	s := embedded(t, Embedded{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Count(t.Context(), ""); !errors.Is(err, store.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}
