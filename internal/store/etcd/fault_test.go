package etcd

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/marinaos/marina/internal/store"
)

// TestKilledMemberKeepsWhatItAcknowledged kills a process that embeds a member, again and again, while it opens and
// while it commits. It shows what survives the process; that rows survive the machine is up to fsync.
func TestKilledMemberKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]bool{}
	for _, lines := range []int{1, 2 + rand.IntN(20), 1, 2 + rand.IntN(200), 2 + rand.IntN(400), 2, 2 + rand.IntN(1000)} {
		c := startChild(t, "writer", dir)
		for n := 1; ; n++ {
			line := c.line()
			if line == "" {
				break
			}
			if n > 2 {
				acked[line] = true
			}
			if n == lines {
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := c.Wait(); !c.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
			t.Fatalf("the writer ended by itself: %v", err)
		}
	}
	if len(acked) < 5 {
		t.Fatalf("%d transactions were acknowledged: too few to judge", len(acked))
	}
	s := embedded(t, Embedded{Dir: dir})
	sides := map[string]map[string]string{"a/": {}, "b/": {}}
	for side, rows := range sides {
		snap, err := s.Snapshot(t.Context(), side)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range snap.Items {
			rows[strings.TrimPrefix(it.Key, side)] = string(it.Value)
		}
	}
	for id := range acked {
		if sides["a/"][id] != id || sides["b/"][id] != id {
			t.Errorf("acknowledged transaction %s: got rows %q and %q", id, sides["a/"][id], sides["b/"][id])
		}
	}
	for id := range sides["a/"] {
		if sides["b/"][id] != id {
			t.Errorf("transaction %s is half there", id)
		}
	}
	if len(sides["a/"]) != len(sides["b/"]) {
		t.Errorf("rows: got %d and %d, want as many of both", len(sides["a/"]), len(sides["b/"]))
	}
	t.Logf("%d acknowledged, %d there", len(acked), len(sides["a/"]))
}

// TestPausedLeaderIsFenced stops a leading process for longer than its lease. Awake again it writes before it can
// notice.
func TestPausedLeaderIsFenced(t *testing.T) {
	socket := filepath.Join(shortDir(t), "etcd")
	s := embedded(t, Embedded{ClientSocket: socket})
	c := startChild(t, "leader", socket)
	epoch := epochOf(t, c.line())
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l, err := s.Campaign(t.Context(), "e", "parent") // blocks until the child's lease is over
	if err != nil {
		t.Fatal(err)
	}
	if l.Epoch() <= epoch {
		t.Errorf("epoch: got %d after %d, want a higher one", l.Epoch(), epoch)
	}
	if _, err := io.WriteString(c.in, "write\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := c.line(); got != "fenced" {
		t.Errorf("late write: got %q, want it fenced", got)
	}
	if got := c.line(); got != "lost" {
		t.Errorf("paused leader's context: got %q, want it lost", got)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("the paused leader: %v", err)
	}
	if _, err := s.Get(t.Context(), "row"); !errdefs.IsNotFound(err) {
		t.Errorf("row of the late write: got %v, want not found", err)
	}
}

// deafLease loses every renewal.
type deafLease struct{ pb.LeaseClient }

func (deafLease) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (pb.Lease_LeaseKeepAliveClient, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestLeaderThatCannotRenewStopsBeforeTheNextOneLeads(t *testing.T) {
	s := embedded(t, Embedded{LeaseTTL: 2 * time.Second})
	renewing := s.lease
	s.lease = deafLease{renewing}
	old, err := s.Campaign(t.Context(), "e", "deaf")
	if err != nil {
		t.Fatal(err)
	}
	next, err := s.Campaign(t.Context(), "e", "next")
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(context.Cause(old.Context()), store.ErrLeadershipLost) {
		t.Errorf("leader that could not renew, once another leads: got context %v, want it lost",
			context.Cause(old.Context()))
	}
	_, err = s.Commit(t.Context(), store.Txn{Guards: []store.Guard{old.Fence()}})
	if !errors.Is(err, store.ErrFenced) || next.Epoch() <= old.Epoch() {
		t.Errorf("old fence: got %v at epoch %d after %d, want it fenced", err, next.Epoch(), old.Epoch())
	}
}

func TestRenewedLeaderOutlivesItsLease(t *testing.T) {
	s := embedded(t, Embedded{LeaseTTL: 2 * time.Second})
	l, err := s.Campaign(t.Context(), "e", "me")
	if err != nil {
		t.Fatal(err)
	}
	late, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := s.Campaign(late, "e", "other"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("campaign beside a leader that renews: got %v, want it to wait in vain", err)
	}
	if err := l.Context().Err(); err != nil {
		t.Errorf("leader that renews: got %v, want it to lead on", context.Cause(l.Context()))
	}
}

func TestDataDirectoryBelongsToOneStore(t *testing.T) {
	dir := t.TempDir()
	s := embedded(t, Embedded{Dir: dir})
	_, err := OpenEmbedded(t.Context(), Embedded{Dir: dir})
	if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second store in %s: got %v, want an errdefs.ErrFailedPrecondition that names it", dir, err)
	}
	if _, err := s.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put("a", nil)}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded(t, Embedded{Dir: dir}).Get(t.Context(), "a"); err != nil {
		t.Errorf("row after a restart: %v", err)
	}
}

func TestFullFilesystemIsNamed(t *testing.T) {
	_, err := OpenEmbedded(t.Context(), Embedded{Dir: t.TempDir(), MinFreeBytes: 1 << 60})
	if !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("open: got %v, want an errdefs.ErrResourceExhausted", err)
	}
}

func TestUnreachableQuorumIsUnavailable(t *testing.T) {
	_, err := OpenExternal(t.Context(), External{
		Endpoints:    []string{"unix://" + filepath.Join(shortDir(t), "nobody")},
		StartTimeout: 200 * time.Millisecond,
	})
	if !errdefs.IsUnavailable(err) {
		t.Errorf("open: got %v, want an errdefs.ErrUnavailable", err)
	}
}

func TestUsedUpQuotaIsReportedAndReclaimed(t *testing.T) {
	s := embedded(t, Embedded{QuotaBytes: 4 << 20})
	var err error
	var fill, empty []store.Op
	for n := 0; err == nil; n++ {
		if n > 100 {
			t.Fatal("a quota of 4 MiB took more than 25 MiB")
		}
		key := store.Key("row", strconv.Itoa(n))
		fill, empty = append(fill, store.Put(key, make([]byte, 256<<10))), append(empty, store.Delete(key))
		_, err = s.Commit(t.Context(), store.Txn{Ops: fill[n:]})
	}
	if !errors.Is(err, errdefs.ErrResourceExhausted) || !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("commit over the quota: got %v, want an unknown outcome for want of space", err)
	}
	st, err := s.Status(t.Context())
	if err != nil || st.Healthy || !strings.Contains(strings.Join(st.Problems, "; "), "quota") {
		t.Errorf("status: got %+v, %v, want a problem with the quota", st, err)
	}
	if _, err := s.Get(t.Context(), fill[0].Key); err != nil {
		t.Errorf("read over the quota: %v", err)
	}
	if _, err := s.Commit(t.Context(), store.Txn{Ops: empty}); err != nil {
		t.Fatalf("delete over the quota: %v", err)
	}
	if err := s.Reclaim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), store.Txn{Ops: fill[:4]}); err != nil {
		t.Errorf("commit after reclaiming: %v", err)
	}
	if st, err := s.Status(t.Context()); err != nil || !st.Healthy {
		t.Errorf("status after reclaiming: got %+v, %v, want healthy", st, err)
	}
}
