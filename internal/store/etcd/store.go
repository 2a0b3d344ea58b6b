package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/marinaos/marina/internal/store"
)

const (
	// Pages of a snapshot start small and then grow or shrink towards pageBytes: etcd walks the whole index under the
	// prefix for each page, so many small ones would cost the square of the rows.
	firstPage = 256
	maxPage   = 16384
	pageBytes = 4 << 20

	// snapshotTries limits the attempts of a snapshot whose history is compacted while it is read.
	snapshotTries = 3
)

// Store is a store.Store on etcd. Make one with OpenEmbedded or OpenExternal.
type Store struct {
	prefix    string // of all keys
	ttl       time.Duration
	timeout   time.Duration
	drain     time.Duration
	kv        clientv3.KV
	watcher   clientv3.Watcher
	lease     pb.LeaseClient
	upkeep    clientv3.Maintenance
	members   []string // to ask for the status, "" in process
	quota     int64    // that Status tells; zero: the members'
	written   atomic.Int64
	defrag    func(ctx context.Context) error
	checkDisk func() error // an error when the local filesystem is nearly full
	stop      func() error // ends the client and the server

	life   context.Context // ends with ErrClosed when the store closes: the parent of all contexts started by it
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	closed bool           // guarded by mu: nothing is added to wg after it
	wg     sync.WaitGroup // the goroutines of watches and leaderships
}

var _ store.Store = (*Store)(nil)

// startLife makes the context that Close ends.
func (s *Store) startLife() { s.life, s.cancel = context.WithCancelCause(context.Background()) }

// spawn runs f until Close at the latest, when life ends.
func (s *Store) spawn(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	s.wg.Go(f)
	return nil
}

// bound limits one call by the store's timeout and life. An error means that one of them, or ctx, is over: send
// nothing.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if s.life.Err() != nil {
		return nil, nil, store.ErrClosed
	}
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	bounded, cancel := context.WithTimeoutCause(ctx, s.timeout,
		fmt.Errorf("etcd did not answer within %v: %w", s.timeout, errdefs.ErrUnavailable))
	ctx, cancel = s.underLife(bounded, cancel)
	return ctx, cancel, nil
}

// underLife makes ctx end with the store too.
func (s *Store) underLife(ctx context.Context, cancel context.CancelFunc) (context.Context, context.CancelFunc) {
	under, end := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(s.life, func() { end(store.ErrClosed) })
	return under, func() {
		unhook()
		end(context.Canceled)
		cancel()
	}
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := txn.Validate(); err != nil {
		return 0, err
	}
	ctx, cancel, err := s.bound(ctx)
	if err != nil {
		return 0, fmt.Errorf("commit, nothing was sent: %w", err)
	}
	defer cancel()
	t := s.kv.Txn(ctx)
	cmps := make([]clientv3.Cmp, len(txn.Guards))
	found := make([]clientv3.Op, len(txn.Guards))
	for i, g := range txn.Guards {
		cmps[i] = s.compare(g)
		found[i] = clientv3.OpGet(s.prefix+g.Key, clientv3.WithKeysOnly())
	}
	ops := make([]clientv3.Op, len(txn.Ops))
	for i, op := range txn.Ops {
		if op.Kind == store.OpPut {
			ops[i] = clientv3.OpPut(s.prefix+op.Key, string(op.Value))
		} else {
			ops[i] = clientv3.OpDelete(s.prefix + op.Key)
		}
	}
	resp, err := t.If(cmps...).Then(ops...).Else(found...).Commit()
	if err != nil {
		return 0, fmt.Errorf("commit: %w", writeError(ctx, err))
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("commit: %w", refusal(txn, resp))
	}
	s.written.Add(int64(txn.Bytes()))
	return resp.Header.Revision, nil
}

func (s *Store) compare(g store.Guard) clientv3.Cmp {
	key := s.prefix + g.Key
	switch g.Kind {
	case store.GuardAbsent:
		return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	case store.GuardExists:
		return clientv3.Compare(clientv3.CreateRevision(key), ">", 0)
	case store.GuardUnchanged:
		return clientv3.Compare(clientv3.ModRevision(key), "=", g.Revision)
	case store.GuardFence:
		return clientv3.Compare(clientv3.CreateRevision(key), "=", g.Revision)
	}
	panic(fmt.Sprintf("etcd: guard kind %d passed validation", g.Kind))
}

// refusal returns the error of the guard that did not hold, judged by the rows that the transaction returned.
func refusal(txn store.Txn, resp *clientv3.TxnResponse) error {
	rows := make(map[string]*mvccpb.KeyValue, len(txn.Guards))
	for i, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			rows[txn.Guards[i].Key] = kv
		}
	}
	err := txn.Judge(func(key string) (int64, int64) {
		return rows[key].GetCreateRevision(), rows[key].GetModRevision()
	})
	if err == nil {
		return fmt.Errorf("etcd refused a transaction whose guards hold: %w", errdefs.ErrInternal)
	}
	return err
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Item, error) {
	if key == "" {
		return store.Item{}, fmt.Errorf("get: empty key: %w", errdefs.ErrInvalidArgument)
	}
	ctx, cancel, err := s.bound(ctx)
	if err != nil {
		return store.Item{}, fmt.Errorf("row %s: %w", key, err)
	}
	defer cancel()
	resp, err := s.kv.Get(ctx, s.prefix+key)
	if err != nil {
		return store.Item{}, fmt.Errorf("row %s: %w", key, readError(ctx, err))
	}
	if len(resp.Kvs) == 0 {
		return store.Item{}, fmt.Errorf("row %s: %w", key, errdefs.ErrNotFound)
	}
	return s.item(resp.Kvs[0]), nil
}

func (s *Store) item(kv *mvccpb.KeyValue) store.Item {
	return store.Item{
		Key:      string(kv.Key[len(s.prefix):]),
		Value:    kv.Value,
		Revision: kv.ModRevision,
		Created:  kv.CreateRevision,
	}
}

// Snapshot implements store.Store.
func (s *Store) Snapshot(ctx context.Context, prefix string) (*store.Snapshot, error) {
	for try := 1; ; try++ {
		snap, err := s.snapshot(ctx, prefix)
		if err == nil {
			return snap, nil
		}
		if try == snapshotTries || !errors.Is(err, rpctypes.ErrCompacted) {
			return nil, fmt.Errorf("snapshot of %q: %w", prefix, err)
		}
	}
}

// snapshot reads page after page at the revision of the first. Each page has the timeout of a call.
func (s *Store) snapshot(ctx context.Context, prefix string) (*store.Snapshot, error) {
	snap := &store.Snapshot{}
	from, end, limit := s.prefix+prefix, clientv3.GetPrefixRangeEnd(s.prefix+prefix), int64(firstPage)
	for {
		resp, err := s.readPage(ctx, from, clientv3.WithRange(end), clientv3.WithRev(snap.Revision),
			clientv3.WithLimit(limit))
		if err != nil {
			return nil, err
		}
		if snap.Revision == 0 {
			snap.Revision = resp.Header.Revision
			snap.Items = make([]store.Item, 0, resp.Count)
		}
		size := int64(1)
		for _, kv := range resp.Kvs {
			snap.Items = append(snap.Items, s.item(kv))
			size += int64(len(kv.Key) + len(kv.Value))
		}
		if !resp.More {
			return snap, nil
		}
		n := int64(len(resp.Kvs))
		from = string(resp.Kvs[n-1].Key) + "\x00"
		limit = min(max(firstPage/8, n*pageBytes/size), maxPage)
	}
}

func (s *Store) readPage(ctx context.Context, from string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel, err := s.bound(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	resp, err := s.kv.Get(ctx, from, opts...)
	if err != nil {
		return nil, readError(ctx, err)
	}
	return resp, nil
}

// Written returns how many bytes this process has committed.
func (s *Store) Written() int64 { return s.written.Load() }

// Count returns the number of rows whose keys begin with prefix, without reading them.
func (s *Store) Count(ctx context.Context, prefix string) (int64, error) {
	ctx, cancel, err := s.bound(ctx)
	if err != nil {
		return 0, fmt.Errorf("count of %q: %w", prefix, err)
	}
	defer cancel()
	resp, err := s.kv.Get(ctx, s.prefix+prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("count of %q: %w", prefix, readError(ctx, err))
	}
	return resp.Count, nil
}

// Status implements store.Store. It is the answer of the first member that answers, and involves no quorum.
func (s *Store) Status(ctx context.Context) (store.Status, error) {
	ctx, cancel, err := s.bound(ctx)
	if err != nil {
		return store.Status{}, fmt.Errorf("status: %w", err)
	}
	defer cancel()
	for _, m := range s.members {
		var resp *clientv3.StatusResponse
		if resp, err = s.upkeep.Status(ctx, m); err == nil {
			return s.assess(resp), nil
		}
	}
	return store.Status{}, fmt.Errorf("status: %w", readError(ctx, err))
}

func (s *Store) assess(resp *clientv3.StatusResponse) store.Status {
	st := store.Status{
		Revision: resp.Header.Revision,
		Bytes:    resp.DbSize,
		InUse:    resp.DbSizeInUse,
		Quota:    cmp.Or(s.quota, resp.DbSizeQuota),
	}
	if resp.Leader == 0 {
		st.Problems = append(st.Problems, "etcd has no leader: too few of its members are running or reach each other")
	}
	for _, e := range resp.Errors {
		switch {
		case strings.Contains(e, pb.AlarmType_NOSPACE.String()):
			st.NoSpace = true
			st.Problems = append(st.Problems, "etcd refuses writes, its quota is used up")
		case strings.Contains(e, pb.AlarmType_CORRUPT.String()):
			st.Problems = append(st.Problems, "etcd found corrupt data: restore the member from its peers or a backup")
		case resp.Leader != 0:
			st.Problems = append(st.Problems, "etcd: "+e)
		}
	}
	if err := s.checkDisk(); err != nil {
		st.Problems = append(st.Problems, err.Error())
	}
	st.Healthy = len(st.Problems) == 0
	return st
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel(store.ErrClosed)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.wg.Wait()
	}()
	var err error
	select {
	case <-done:
	case <-time.After(s.drain):
		err = fmt.Errorf("etcd: watches did not end within %v: %w", s.drain, errdefs.ErrUnavailable)
	}
	return errors.Join(err, s.stop())
}
