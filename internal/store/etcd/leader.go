package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/marinaos/marina/internal/store"
)

// tenure is a leadership's lease, with the timer and goroutines that renew and end it.
type tenure struct {
	store  *Store
	key    string // of the leader's row
	epoch  int64
	lease  int64
	ttl    time.Duration
	cancel context.CancelCauseFunc
	expiry *time.Timer // ends the tenure; moved forward by each renewal
}

// Campaign implements store.Store. A candidate has no lease while another leads.
func (s *Store) Campaign(ctx context.Context, election, identity string) (*store.Leadership, error) {
	key := s.prefix + store.LeaderKey(election)
	for {
		l, revision, err := s.tryLead(ctx, key, election, identity)
		if err == nil && l == nil {
			err = s.waitVacated(ctx, key, revision)
		}
		if err != nil {
			return nil, fmt.Errorf("election %s: %w", election, err)
		}
		if l != nil {
			return l, nil
		}
	}
}

// tryLead creates the leader's row if there is none. Otherwise it returns the revision at which there was one.
func (s *Store) tryLead(ctx context.Context, key, election, identity string) (*store.Leadership, int64, error) {
	call, end, err := s.bound(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	if resp, err := s.kv.Get(call, key, clientv3.WithKeysOnly()); err != nil {
		return nil, 0, readError(call, err)
	} else if len(resp.Kvs) > 0 {
		return nil, resp.Header.Revision, nil
	}
	start := time.Now()
	grant, err := s.lease.LeaseGrant(call, &pb.LeaseGrantRequest{TTL: int64(s.ttl / time.Second)})
	if err != nil {
		return nil, 0, readError(call, rpctypes.Error(err))
	}
	resp, err := s.kv.Txn(call).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, identity, clientv3.WithLease(clientv3.LeaseID(grant.ID)))).
		Commit()
	if err != nil || !resp.Succeeded {
		revokeErr := s.revoke(context.WithoutCancel(ctx), grant.ID) // deletes the row too, if it was created after all
		if err != nil {
			return nil, 0, errors.Join(readError(call, err), revokeErr)
		}
		return nil, resp.Header.Revision, revokeErr
	}
	t := &tenure{store: s, key: key, epoch: resp.Header.Revision, lease: grant.ID,
		ttl: time.Duration(grant.TTL) * time.Second}
	l, err := t.start(ctx, start, election, identity)
	return l, 0, err
}

// waitVacated blocks until the leader's row, which was there at revision, may be gone.
func (s *Store) waitVacated(ctx context.Context, key string, revision int64) error {
	ctx, end := s.underLife(ctx, func() {})
	defer end()
	for resp := range s.watcher.Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithRev(revision+1),
		clientv3.WithFilterPut()) {
		if err := resp.Err(); err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) {
				return nil // read again
			}
			return readError(ctx, err)
		}
		if len(resp.Events) > 0 {
			return nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// start starts the renewal, the expiry timer and the watch on the leader's row. The lease was requested at begun.
func (t *tenure) start(ctx context.Context, begun time.Time, election, identity string) (*store.Leadership, error) {
	ctx, t.cancel = context.WithCancelCause(ctx)
	t.expiry = time.AfterFunc(t.safeFor(begun), func() {
		t.cancel(fmt.Errorf("the lease was not renewed in time: %w", store.ErrLeadershipLost))
	})
	err := t.store.spawn(func() {
		unhook := context.AfterFunc(t.store.life, func() { t.cancel(store.ErrClosed) })
		defer unhook()
		defer t.expiry.Stop()
		t.keepRenewing(ctx)
	})
	if err == nil {
		err = t.store.spawn(func() { t.watchRow(ctx) })
	}
	if err != nil {
		t.expiry.Stop()
		t.cancel(err)
		return nil, err
	}
	release := func(ctx context.Context) error {
		if err := t.store.revoke(ctx, t.lease); err != nil {
			return fmt.Errorf("election %s: resign: %w", election, err)
		}
		return nil
	}
	return store.NewLeadership(ctx, t.cancel, election, identity, t.epoch, release), nil
}

// safeFor returns how long from now a lease requested at start certainly lasts. A tenth of it is reserved for clocks
// that run at different speeds and for stopping.
func (t *tenure) safeFor(requested time.Time) time.Duration {
	return t.ttl*9/10 - time.Since(requested)
}

// keepRenewing renews the lease until ctx ends or the lease is gone.
func (t *tenure) keepRenewing(ctx context.Context) {
	wait := t.ttl / 3
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		requested, next := time.Now(), wait
		switch err := t.renewOnce(ctx, wait); {
		case err == nil:
			t.expiry.Reset(t.safeFor(requested))
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			t.cancel(fmt.Errorf("the lease ran out: %w", store.ErrLeadershipLost))
			return
		default:
			next = wait / 8 // expiry ends the tenure if this goes on
		}
		timer.Reset(next)
	}
}

// renewOnce renews the lease once.
func (t *tenure) renewOnce(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stream, err := t.store.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return rpctypes.Error(err)
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: t.lease}); err != nil {
		return rpctypes.Error(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		return rpctypes.Error(err)
	}
	if resp.TTL <= 0 {
		return rpctypes.ErrLeaseNotFound
	}
	return nil
}

// watchRow ends the tenure when the leader's row goes away.
func (t *tenure) watchRow(ctx context.Context) {
	revision := t.epoch
	for ctx.Err() == nil {
		if t.store.waitVacated(ctx, t.key, revision) != nil {
			// The watch does not work now. The lease still decides; try again soon.
			select {
			case <-ctx.Done():
				return
			case <-time.After(t.ttl / 6):
			}
		}
		call, end, err := t.store.bound(ctx)
		if err != nil {
			return
		}
		resp, err := t.store.kv.Get(call, t.key, clientv3.WithKeysOnly())
		end()
		if err != nil {
			continue
		}
		if len(resp.Kvs) == 0 || resp.Kvs[0].CreateRevision != t.epoch {
			t.cancel(fmt.Errorf("the leader's row is gone: %w", store.ErrLeadershipLost))
			return
		}
		revision = resp.Header.Revision
	}
}

// revoke ends a lease and its row. One that is gone already is not an error.
func (s *Store) revoke(ctx context.Context, lease int64) error {
	ctx, end, err := s.bound(ctx)
	if err != nil {
		return err
	}
	defer end()
	_, err = s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease})
	if err = rpctypes.Error(err); err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return readError(ctx, err)
}
