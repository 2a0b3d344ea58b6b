package storetest

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/store"
)

// commit commits a transaction that must succeed.
func commit(t *testing.T, ctx context.Context, s store.Store, guards []store.Guard, ops ...store.Op) int64 {
	t.Helper()
	rev, err := s.Commit(ctx, store.Txn{Guards: guards, Ops: ops})
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return rev
}

// put writes one row.
func put(t *testing.T, ctx context.Context, s store.Store, key, value string) int64 {
	t.Helper()
	return commit(t, ctx, s, nil, store.Put(key, []byte(value)))
}

// contents returns a snapshot's rows as text.
func contents(t *testing.T, ctx context.Context, s store.Store, prefix string) map[string]string {
	t.Helper()
	snap, err := s.Snapshot(ctx, prefix)
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	rows := map[string]string{}
	for _, it := range snap.Items {
		rows[it.Key] = string(it.Value)
	}
	return rows
}

func wantContents(t *testing.T, ctx context.Context, s store.Store, prefix string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, contents(t, ctx, s, prefix)); diff != "" {
		t.Errorf("rows under %q (-want +got):\n%s", prefix, diff)
	}
}

func wantKind(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want kind %v", what, got, want)
	}
}
