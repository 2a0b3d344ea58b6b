package master

import (
	"context"
	"net/netip"
	"sync"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
)

// Launch is kernel.Kernel's.
func (m *Master) Launch(ctx context.Context, r kernel.LaunchRequest) (kernel.LaunchResult, error) {
	reply, err := m.request(ctx, event.Launch{LaunchRequest: r})
	if err != nil {
		return kernel.LaunchResult{}, err
	}
	return *reply.Launch, nil
}

// Withdraw is kernel.Kernel's.
func (m *Master) Withdraw(ctx context.Context, framework, key string, ids []kernel.InstanceID) ([]kernel.InstanceID,
	error) {
	reply, err := m.request(ctx, event.Withdraw{Framework: framework, Key: key, Instances: ids})
	return reply.Withdrawn, err
}

// Stop is kernel.Kernel's.
func (m *Master) Stop(ctx context.Context, framework string, ids []kernel.InstanceID, why string) error {
	_, err := m.request(ctx, event.Stop{Framework: framework, Instances: ids, Why: why})
	return err
}

// Forget is kernel.Kernel's.
func (m *Master) Forget(ctx context.Context, framework string, ids []kernel.InstanceID) error {
	_, err := m.request(ctx, event.Forget{Framework: framework, Instances: ids})
	return err
}

// Resize is kernel.Kernel's.
func (m *Master) Resize(ctx context.Context, framework string, id kernel.InstanceID, sizes []kernel.Size) error {
	_, err := m.request(ctx, event.Resize{Framework: framework, Instance: id, Sizes: sizes})
	return err
}

// Release is kernel.Kernel's.
func (m *Master) Release(ctx context.Context, framework string, names []string) error {
	_, err := m.request(ctx, event.Release{Framework: framework, Reservations: names})
	return err
}

// Expose is kernel.Kernel's.
func (m *Master) Expose(ctx context.Context, framework, owner string, ports []kernel.Port) ([]kernel.EndpointPort,
	error) {
	reply, err := m.request(ctx, event.Expose{Framework: framework, Owner: owner, Ports: ports})
	return reply.Exposed, err
}

// Queue is kernel.Kernel's; nothing once the leadership is over.
func (m *Master) Queue(framework string) (out []kernel.Waiting) {
	_ = m.look(context.Background(), func(s *core.State) { out = s.Queue(framework) }) // ends with the leadership
	return out
}

// Quotas tells the quota tree; nothing once the leadership is over.
func (m *Master) Quotas() (out []kernel.QuotaView) {
	_ = m.look(context.Background(), func(s *core.State) { out = s.Quotas() }) // ends with the leadership
	return out
}

// SetQuota gives a role a quota in place of the one it had. With force, guarantees may be more than all machines have.
func (m *Master) SetQuota(ctx context.Context, q kernel.Quota, force bool) error {
	_, err := m.request(ctx, event.SetQuota{Quota: q, Force: force})
	return err
}

// RemoveQuota takes a role's quota away; errdefs.ErrNotFound if it has none.
func (m *Master) RemoveQuota(ctx context.Context, role string) error {
	_, err := m.request(ctx, event.SetQuota{Quota: kernel.Quota{Role: role}, Remove: true})
	return err
}

// Reserve keeps an amount of a machine for a role, in place of what it had; zero keeps nothing any more.
func (m *Master) Reserve(ctx context.Context, agent kernel.AgentID, r kernel.ReservedPart) error {
	_, err := m.request(ctx, event.Reserve{Agent: agent, ReservedPart: r})
	return err
}

// RemoveMachine takes a machine out of the datacenter for good and tells what that gave up. While it may run
// something it is refused without force, with errdefs.ErrFailedPrecondition.
func (m *Master) RemoveMachine(ctx context.Context, agent kernel.AgentID, force bool) (*kernel.Removal, error) {
	reply, err := m.request(ctx, event.RemoveAgent{Agent: agent, Force: force})
	return reply.Removal, err
}

// SetPool changes the pool of container addresses to one that has all of what was given out, and of what is configured.
func (m *Master) SetPool(ctx context.Context, pool netip.Prefix) error {
	_, err := m.request(ctx, event.SetPool{Pool: pool})
	return err
}

// Watch is kernel.Kernel's.
func (m *Master) Watch(framework string) kernel.InstanceWatch {
	return &watch{m: m, framework: framework, wake: make(chan struct{}, 1), at: map[kernel.InstanceID]int{}}
}

// watch merges changes until they are read. One goroutine reads it.
type watch struct {
	m         *Master
	framework string
	wake      chan struct{} // holds a token when there may be something
	joined    bool          // the reader's

	mu       sync.Mutex
	at       map[kernel.InstanceID]int // index in list; guarded by mu
	list     []*kernel.Record          // guarded by mu
	complete bool                      // guarded by mu
	room     bool                      // guarded by mu
	news     bool                      // something to deliver; guarded by mu
}

// Next is kernel.InstanceWatch's.
func (w *watch) Next(ctx context.Context) (kernel.Changes, error) {
	if !w.joined {
		if err := w.m.submit(ctx, item{look: w.join}); err != nil {
			return kernel.Changes{}, err
		}
		w.joined = true
	}
	for {
		if c, ok := w.take(); ok {
			return c, nil
		}
		select {
		case <-w.wake:
		case <-w.m.done:
			return kernel.Changes{}, errLost
		case <-ctx.Done():
			return kernel.Changes{}, context.Cause(ctx)
		}
	}
}

// join starts the watch with all there is; the owner calls it.
func (w *watch) join(s *core.State) func() {
	all, complete := s.Instances(w.framework), s.Complete()
	return func() {
		w.m.mu.Lock()
		w.m.watches = append(w.m.watches, w)
		w.m.mu.Unlock()
		w.mu.Lock()
		w.news = true
		w.mu.Unlock()
		w.push(all, complete, false)
	}
}

// Close is kernel.InstanceWatch's.
func (w *watch) Close() {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for k, other := range w.m.watches {
		if other == w {
			w.m.watches = append(w.m.watches[:k:k], w.m.watches[k+1:]...)
			return
		}
	}
}

func (w *watch) push(changes []*kernel.Record, complete, room bool) {
	w.mu.Lock()
	for _, r := range changes {
		if r.Framework != w.framework {
			continue
		}
		if k, ok := w.at[r.ID()]; ok {
			w.list[k] = r
			continue
		}
		w.at[r.ID()] = len(w.list)
		w.list = append(w.list, r)
	}
	news := w.news || len(w.list) > 0 || room || complete != w.complete
	w.room, w.complete, w.news = w.room || room, complete, news
	w.mu.Unlock()
	if news {
		w.poke()
	}
}

func (w *watch) take() (kernel.Changes, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.news {
		return kernel.Changes{}, false
	}
	c := kernel.Changes{Instances: w.list, Complete: w.complete, Room: w.room}
	clear(w.at)
	w.list, w.room, w.news = nil, false, false
	return c, true
}

func (w *watch) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
