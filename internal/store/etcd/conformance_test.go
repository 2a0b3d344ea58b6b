package etcd

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/storetest"
)

func TestEmbeddedConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		return withFaults(embedded(t, Embedded{Timeout: longTimeout}))
	})
}

func TestExternalConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		socket := filepath.Join(shortDir(t), "etcd")
		server := embedded(t, Embedded{ClientSocket: socket, Timeout: longTimeout})
		s, err := OpenExternal(t.Context(), External{
			Endpoints: []string{"unix://" + socket},
			Prefix:    "dc1/",
			LeaseTTL:  longLease,
			Timeout:   longTimeout,
			Log:       logTo(t),
		})
		if err != nil {
			t.Fatal(err)
		}
		// Rows of another datacenter on the same quorum, on both sides in key order, must never show.
		for _, key := range []string{"dc0/row", "dc1", "dc10/row", "dc2/row"} {
			if _, err := server.kv.Put(t.Context(), key, "foreign"); err != nil {
				t.Fatal(err)
			}
		}
		return withFaults(s)
	})
}

// longLease is longer than any check may take: nothing that happens in one waited for a lease to expire.
const longLease = 5 * time.Minute

// longTimeout lets the largest transaction take as long as it takes, under the race detector on a busy machine too.
const longTimeout = time.Minute

// embedded opens a store in a directory of its own, or cfg.Dir, and closes it at the end of the test.
func embedded(t testing.TB, cfg Embedded) *Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = longLease
	}
	cfg.Log = logTo(t)
	s, err := OpenEmbedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// logTo sends etcd's warnings to the test's output.
func logTo(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// shortDir returns a directory with a path short enough for a unix socket in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// faulty is a store with faults between it and the real etcd.
type faulty struct {
	*Store
	kv      *faultyKV
	watcher *faultyWatcher
}

func withFaults(s *Store) *faulty {
	f := &faulty{Store: s, kv: &faultyKV{KV: s.kv}, watcher: &faultyWatcher{Watcher: s.watcher, store: s, kv: s.kv}}
	s.kv, s.watcher = f.kv, f.watcher
	return f
}

func (f *faulty) LoseReply(applied bool) {
	f.kv.mu.Lock()
	defer f.kv.mu.Unlock()
	f.kv.armed, f.kv.applied = true, applied
}

func (f *faulty) CompactUnderWatch() { f.watcher.armed = true }

// faultyKV loses the request or the answer of one transaction.
type faultyKV struct {
	clientv3.KV
	mu             sync.Mutex
	armed, applied bool // guarded by mu
}

func (k *faultyKV) Txn(ctx context.Context) clientv3.Txn {
	return &faultyTxn{Txn: k.KV.Txn(ctx), kv: k}
}

type faultyTxn struct {
	clientv3.Txn
	kv *faultyKV
}

func (t *faultyTxn) If(cs ...clientv3.Cmp) clientv3.Txn   { t.Txn = t.Txn.If(cs...); return t }
func (t *faultyTxn) Then(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(ops...); return t }
func (t *faultyTxn) Else(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(ops...); return t }

func (t *faultyTxn) Commit() (*clientv3.TxnResponse, error) {
	t.kv.mu.Lock()
	armed, applied := t.kv.armed, t.kv.applied
	t.kv.armed = false
	t.kv.mu.Unlock()
	if armed && !applied {
		return nil, context.DeadlineExceeded
	}
	resp, err := t.Txn.Commit()
	if armed && err == nil {
		return nil, context.DeadlineExceeded
	}
	return resp, err
}

// faultyWatcher compacts history between one watch's snapshot and its first change.
type faultyWatcher struct {
	clientv3.Watcher
	store *Store
	kv    clientv3.KV
	armed bool
}

func (w *faultyWatcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	if w.armed {
		w.armed = false
		for range 2 {
			resp, err := w.kv.Put(ctx, w.store.prefix+"compacted", "")
			if err != nil {
				panic(err)
			}
			if _, err := w.kv.Compact(ctx, resp.Header.Revision); err != nil {
				panic(err)
			}
		}
	}
	return w.Watcher.Watch(ctx, key, opts...)
}

var _ store.Store = (*faulty)(nil)
