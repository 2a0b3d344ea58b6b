package storetest

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/store"
)

func guardsDecide(t *testing.T, ctx context.Context, s Store) {
	old := put(t, ctx, s, "row", "1")
	now := put(t, ctx, s, "row", "2")
	leader, err := s.Campaign(ctx, "e", "me")
	if err != nil {
		t.Fatal(err)
	}
	conflict, fenced := store.ErrConflict, store.ErrFenced
	cases := []struct {
		name   string
		guards []store.Guard
		want   error
	}{
		{"none", nil, nil},
		{"absent", []store.Guard{store.Absent("no")}, nil},
		{"absent, but there", []store.Guard{store.Absent("row")}, conflict},
		{"exists", []store.Guard{store.Exists("row")}, nil},
		{"exists, but absent", []store.Guard{store.Exists("no")}, conflict},
		{"unchanged", []store.Guard{store.Unchanged("row", now)}, nil},
		{"unchanged, but changed", []store.Guard{store.Unchanged("row", old)}, conflict},
		{"unchanged, but absent", []store.Guard{store.Unchanged("no", now)}, conflict},
		{"fence", []store.Guard{leader.Fence()}, nil},
		{"fence of an older leader", []store.Guard{store.Fence("e", leader.Epoch()-1)}, fenced},
		{"fence without a leader", []store.Guard{store.Fence("other", now)}, fenced},
		{"all hold", []store.Guard{store.Exists("row"), store.Absent("no"), leader.Fence()}, nil},
		{"one of several", []store.Guard{store.Exists("row"), store.Exists("no")}, conflict},
		{"fence before conflict", []store.Guard{store.Exists("no"), store.Fence("other", now)}, fenced},
	}
	for i, c := range cases {
		out := "out" + strconv.Itoa(i)
		_, err := s.Commit(ctx, store.Txn{Guards: c.guards, Ops: []store.Op{store.Put(out, nil)}})
		_, getErr := s.Get(ctx, out)
		if c.want == nil {
			if err != nil || getErr != nil {
				t.Errorf("%s: commit %v, get %v, want success", c.name, err, getErr)
			}
			continue
		}
		wantKind(t, c.name, err, c.want)
		wantKind(t, c.name+": row written behind a failed guard", getErr, errdefs.ErrNotFound)
		if errors.Is(err, fenced) && errors.Is(err, conflict) {
			t.Errorf("%s: %v is both fenced and in conflict", c.name, err)
		}
		if _, ok := errors.AsType[*store.GuardError](err); !ok {
			t.Errorf("%s: got %v, want a *store.GuardError", c.name, err)
		}
	}
}

func transactionIsAllOrNothing(t *testing.T, ctx context.Context, s Store) {
	rev := commit(t, ctx, s, nil, store.Put("a", []byte("1")), store.Put("b", []byte("1")), store.Put("c", nil))
	for _, key := range []string{"a", "b", "c"} {
		if it, err := s.Get(ctx, key); err != nil || it.Revision != rev || it.Created != rev {
			t.Errorf("row %s: got %+v, %v, want both revisions %d", key, it, err, rev)
		}
	}
	_, err := s.Commit(ctx, store.Txn{
		Guards: []store.Guard{store.Exists("a"), store.Absent("b")},
		Ops:    []store.Op{store.Put("a", []byte("2")), store.Delete("c"), store.Put("d", nil)},
	})
	wantKind(t, "commit behind a failed guard", err, store.ErrConflict)
	wantContents(t, ctx, s, "", map[string]string{"a": "1", "b": "1", "c": ""})
	next := commit(t, ctx, s, []store.Guard{store.Unchanged("a", rev)}, store.Delete("a"), store.Put("b", []byte("2")))
	if next <= rev {
		t.Errorf("revision: got %d after %d, want a higher one", next, rev)
	}
	wantContents(t, ctx, s, "", map[string]string{"b": "2", "c": ""})
}

func revisionsTellCreationFromChange(t *testing.T, ctx context.Context, s Store) {
	created := put(t, ctx, s, "row", "1")
	changed := put(t, ctx, s, "row", "2")
	want := store.Item{Key: "row", Value: []byte("2"), Revision: changed, Created: created}
	got, err := s.Get(ctx, "row")
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("row (-want +got), error %v:\n%s", err, diff)
	}
	gone := commit(t, ctx, s, nil, store.Delete("row"))
	_, err = s.Get(ctx, "row")
	wantKind(t, "get of a deleted row", err, errdefs.ErrNotFound)
	if again := commit(t, ctx, s, nil, store.Delete("row")); again != gone {
		t.Errorf("revision after deleting nothing: got %d, want %d as before", again, gone)
	}
	recreated := put(t, ctx, s, "row", "3")
	if got, err := s.Get(ctx, "row"); err != nil || got.Created != recreated {
		t.Errorf("recreated row: got %+v, %v, want created at %d", got, err, recreated)
	}
	st, err := s.Status(ctx)
	if err != nil || !st.Healthy || st.Revision != recreated {
		t.Errorf("status: got %+v, %v, want healthy at revision %d", st, err, recreated)
	}
}

func limitsAreRefusedWhole(t *testing.T, ctx context.Context, s Store) {
	ops := func(n, size int) (ops []store.Op) {
		for i := range n {
			ops = append(ops, store.Put("k"+strconv.Itoa(i), make([]byte, size)))
		}
		return ops
	}
	long := string(make([]byte, store.MaxKeyBytes+1))
	refused := map[string]store.Txn{
		"value":      {Ops: ops(1, store.MaxValueBytes+1)},
		"operations": {Ops: ops(store.MaxTxnOps+1, 0)},
		"bytes":      {Ops: ops(9, store.MaxValueBytes)},
		"long key":   {Ops: []store.Op{store.Put(long, nil)}},
		"empty key":  {Ops: []store.Op{store.Put("", nil)}},
		"same key":   {Ops: []store.Op{store.Put("k", nil), store.Delete("k")}},
		"no kind":    {Ops: []store.Op{{Key: "k"}}},
		"guard kind": {Guards: []store.Guard{{Key: "k"}}, Ops: ops(1, 1)},
		"guards":     {Guards: make([]store.Guard, store.MaxTxnOps+1), Ops: ops(1, 1)},
	}
	for name, txn := range refused {
		_, err := s.Commit(ctx, txn)
		wantKind(t, name, err, errdefs.ErrInvalidArgument)
	}
	wantContents(t, ctx, s, "", map[string]string{})

	commit(t, ctx, s, nil, store.Put(long[1:], make([]byte, store.MaxValueBytes)))
	guards := make([]store.Guard, store.MaxTxnOps)
	for i := range guards {
		guards[i] = store.Absent("k" + strconv.Itoa(i))
	}
	full := store.Txn{Guards: guards, Ops: ops(store.MaxTxnOps, 700)}
	for _, op := range full.Ops {
		if spare := store.MaxTxnBytes - full.Bytes(); spare > 0 {
			full.Ops[len(full.Ops)-1].Value = make([]byte, len(op.Value)+min(spare, store.MaxValueBytes-len(op.Value)))
		}
	}
	if _, err := s.Commit(ctx, full); err != nil {
		t.Errorf("transaction of %d bytes and %d operations: got %v, want success", full.Bytes(), len(full.Ops), err)
	}
	if snap, err := s.Snapshot(ctx, "k"); err != nil || len(snap.Items) != store.MaxTxnOps {
		t.Errorf("snapshot of a full transaction: got %v, want %d rows", err, store.MaxTxnOps)
	}
}

func cancelledContextSendsNothing(t *testing.T, ctx context.Context, s Store) {
	why := errors.New("the caller went away")
	dead, cancel := context.WithCancelCause(ctx)
	cancel(why)
	_, err := s.Commit(dead, store.Txn{Ops: []store.Op{store.Put("a", nil)}})
	wantKind(t, "commit", err, why)
	if errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("commit under a dead context: got %v, want a known outcome", err)
	}
	_, err = s.Get(dead, "a")
	wantKind(t, "get", err, why)
	_, err = s.Snapshot(dead, "")
	wantKind(t, "snapshot", err, why)
	_, err = s.Watch(dead, "")
	wantKind(t, "watch", err, why)
	_, err = s.Campaign(dead, "e", "me")
	wantKind(t, "campaign", err, why)
	_, err = s.Status(dead)
	wantKind(t, "status", err, why)
	wantContents(t, ctx, s, "", map[string]string{})
}

func lostReplyIsUnknown(t *testing.T, ctx context.Context, s Store) {
	for _, applied := range []bool{true, false} {
		key := "row-" + strconv.FormatBool(applied)
		s.LoseReply(applied)
		_, err := s.Commit(ctx, store.Txn{Ops: []store.Op{store.Put(key, nil)}})
		wantKind(t, key, err, store.ErrUnknownOutcome)
		wantKind(t, key, err, errdefs.ErrUnknown)
		_, err = s.Get(ctx, key)
		if (err == nil) != applied {
			t.Errorf("row after a lost reply, applied %v: got %v", applied, err)
		}
		put(t, ctx, s, "next", "1")
	}
}

func tablesKeepToThemselves(t *testing.T, ctx context.Context, s Store) {
	apps, apps2 := store.NewTable[int]("apps"), store.NewTable[int]("apps2")
	one, err := apps.Put("/g/a", 1)
	if err != nil {
		t.Fatal(err)
	}
	two, err := apps2.Put("/g/a", 2)
	if err != nil {
		t.Fatal(err)
	}
	rev := commit(t, ctx, s, []store.Guard{apps.Absent("/g/a"), apps2.Absent("/g/a")}, one, two,
		store.Put(apps.Key("/g/b"), []byte("{")))
	rows, err := apps.Read(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	want := []store.Row[int]{{ID: "/g/a", Value: 1, Revision: rev, Created: rev}}
	if diff := cmp.Diff(want, rows.List); diff != "" || len(rows.Broken) != 1 {
		t.Errorf("table, %d broken rows, want 1 (-want +got):\n%s", len(rows.Broken), diff)
	}
	got, err := apps2.Get(ctx, s, "/g/a")
	if err != nil || got.Value != 2 {
		t.Errorf("row of the other table: got %+v, %v, want 2", got, err)
	}
	_, err = apps.Get(ctx, s, "/g/b")
	wantKind(t, "broken row", err, errdefs.ErrDataLoss)
	_, err = apps.Get(ctx, s, "/g/c")
	wantKind(t, "missing row", err, errdefs.ErrNotFound)
}

func closeEndsEverything(t *testing.T, ctx context.Context, s Store) {
	w, err := s.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Campaign(ctx, "e", "me")
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := s.Campaign(ctx, "e", "other")
		waiting <- err
	}()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	for err == nil {
		_, err = w.Next(ctx) // the leader's row may come first
	}
	wantKind(t, "watch", err, store.ErrClosed)
	w.Close()
	<-l.Context().Done()
	wantKind(t, "leadership", context.Cause(l.Context()), store.ErrClosed)
	wantKind(t, "waiting candidate", <-waiting, store.ErrClosed)
	_, err = s.Commit(ctx, store.Txn{Ops: []store.Op{store.Put("a", nil)}})
	wantKind(t, "commit", err, store.ErrClosed)
	_, err = s.Get(ctx, "a")
	wantKind(t, "get", err, store.ErrClosed)
	_, err = s.Watch(ctx, "")
	wantKind(t, "watch after close", err, store.ErrClosed)
	_, err = s.Campaign(ctx, "e", "me")
	wantKind(t, "campaign after close", err, store.ErrClosed)
}
