package kubernetes

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/scheduler"
)

// following is a goroutine that hears one steward and tells it what is wanted.
type following struct {
	addr   netip.Addr
	cancel context.CancelFunc
	wants  chan *Desired // the newest; holds one
	last   string        // revision given to wants
	silent bool          // not running: nothing is awaited of it
}

// attend sees to it that a cluster's steward is followed while its control plane runs, and knows what is wanted.
func (k *Clusters) attend(c *cluster) {
	k.mu.RLock()
	plane := c.members[controlPlane]
	var addr netip.Addr
	if plane != nil {
		if _, ok := plane.running(); ok && c.Deleted.IsZero() {
			addr = plane.instance.Address
		}
	}
	want := c.desired()
	k.mu.RUnlock()
	f := k.follows[c.ID]
	if f != nil && f.addr != addr {
		k.unfollow(c.ID)
		f = nil
	}
	if !addr.IsValid() {
		return
	}
	if f == nil {
		f = k.begin(c.Name, c.ID, addr)
	}
	if rev := want.revision(); rev != f.last {
		f.last, want.Rev = rev, rev
		select {
		case <-f.wants:
		default:
		}
		f.wants <- want
	}
}

// begin starts to follow a steward.
func (k *Clusters) begin(name, id string, addr netip.Addr) *following {
	quit, cancel := context.WithCancel(context.Background())
	f := &following{addr: addr, cancel: cancel, wants: make(chan *Desired, 1)}
	k.follows[id] = f
	k.loop.Go(func(ctx context.Context) error { // ctx ends with the leadership, quit with the control plane
		ctx, end := context.WithCancel(ctx)
		defer end()
		defer context.AfterFunc(quit, end)()
		k.follow(ctx, name, id, addr, f.wants)
		return nil
	})
	return f
}

func (k *Clusters) unfollow(id string) {
	if f := k.follows[id]; f != nil {
		f.cancel()
		delete(k.follows, id)
	}
}

// follow talks to one steward until ctx ends.
func (k *Clusters) follow(ctx context.Context, name, id string, addr netip.Addr, wants <-chan *Desired) {
	for ctx.Err() == nil {
		err := k.conversed(ctx, name, id, addr, wants)
		if ctx.Err() != nil {
			return
		}
		k.cfg.Log.Debug("steward does not answer", "cluster", name, "err", err)
		k.tell(ctx, name, func() { k.hear(name, id, nil, err) })
		select {
		case <-ctx.Done():
		case <-time.After(stewardPause):
		}
	}
}

// conversed is converse; a panic of it is an error.
func (k *Clusters) conversed(ctx context.Context, name, id string, addr netip.Addr, wants <-chan *Desired) (err error) {
	if p := scheduler.Catch(func() { err = k.converse(ctx, name, id, addr, wants) }); p != nil {
		k.cfg.Log.Error("steward: panic", "cluster", name, "panic", p.Value, "stack", string(p.Stack))
		return scheduler.ErrPanic
	}
	return err
}

// hear takes in a steward's word, or why there is none. The owner goroutine calls it.
func (k *Clusters) hear(name, id string, status *Status, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.clusters[name]
	if c == nil || c.ID != id || c.parked != nil {
		return
	}
	if err != nil {
		c.silent = err.Error()
		return
	}
	c.told, c.toldAt, c.silent = status, k.cfg.Now(), ""
	for _, n := range c.told.Nodes {
		if m := c.members[n.Name]; n.Ready && m != nil && m.instance != nil {
			m.joined = m.instance.ID
		}
	}
}

// errOld ends a conversation whose certificate is about to.
var errOld = errors.New("the connection is renewed")

// converse has one connection's worth of both directions. What is wanted is told anew with each.
func (k *Clusters) converse(ctx context.Context, name, id string, addr netip.Addr, wants <-chan *Desired) error {
	a, err := k.authorities(ctx, id)
	if err != nil {
		return err
	}
	client, err := newSteward(a, addr, k.cfg.Dial, k.cfg.Now())
	if err != nil {
		return err
	}
	defer client.close()
	g, ctx := errgroup.WithContext(ctx)
	first := make(chan struct{})
	g.Go(func() error {
		rev := ""
		for {
			st, err := client.status(ctx, rev)
			if err != nil {
				return err
			}
			if rev == "" {
				close(first)
			}
			if rev = st.Rev; rev == "" {
				rev = "-"
			}
			k.tell(ctx, name, func() { k.hear(name, id, st, nil) })
		}
	})
	g.Go(func() error {
		select {
		case <-first:
		case <-ctx.Done():
			return ctx.Err()
		}
		want := k.wanted(name)
		for {
			if want != nil {
				if err := client.desire(ctx, want); err != nil {
					return err
				}
			}
			select {
			case want = <-wants:
			case <-time.After(clientLife / 2):
				return errOld
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return g.Wait()
}

// wanted is what a cluster's steward should know now.
func (k *Clusters) wanted(name string) *Desired {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c := k.clusters[name]
	if c == nil || !c.Deleted.IsZero() {
		return nil
	}
	d := c.desired()
	d.Rev = d.revision()
	return d
}
