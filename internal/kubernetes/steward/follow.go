package steward

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/kubernetes/pki"
	"github.com/marinaos/marina/internal/kubernetes/wire"
	"github.com/marinaos/marina/internal/scheduler"
)

// Dialer opens connections, as net.Dialer.DialContext.
type Dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// Config configures Followers. All of it is required.
type Config struct {
	Dial Dialer
	Now  func() time.Time
	Log  *slog.Logger

	// Go runs a function until it returns; its ctx ends with the leadership.
	Go func(func(ctx context.Context) error)
	// Keys opens what a cluster signs with, by its id.
	Keys func(ctx context.Context, id string) (*pki.Authorities, error)
	// Hear has the owner goroutine take a word in. The followers call it.
	Hear func(ctx context.Context, w Word)
}

// Word says what a steward says, or why it says nothing.
type Word struct {
	Name, ID string       // of the cluster
	Status   *wire.Status // nil: nothing
	Err      error        // why
	by       *follower
}

// Followers hears the stewards of all clusters and tells them what is wanted. The owner goroutine has it.
type Followers struct {
	cfg Config
	of  map[string]*follower // by the cluster's id
}

// New returns followers of nobody.
func New(cfg Config) *Followers { return &Followers{cfg: cfg, of: map[string]*follower{}} }

// Present reports whether a word is to be taken in: one of a follower that was ended since tells of a control plane
// that is no more.
func (s *Followers) Present(w Word) bool { return w.by != nil && s.of[w.ID] == w.by }

// follower is a goroutine that follows one steward.
type follower struct {
	cfg      *Config
	name, id string // of the cluster
	addr     netip.Addr
	cancel   context.CancelFunc
	changed  chan struct{} // holds one while there is something newer to tell

	mu   sync.Mutex
	want *wire.Desired // guarded by mu
}

// Attend follows the steward of the control plane at an address, and tells it what is wanted. An address that is
// none: no control plane runs.
func (s *Followers) Attend(name, id string, addr netip.Addr, want *wire.Desired) {
	f := s.of[id]
	if f != nil && f.addr != addr {
		s.End(id)
		f = nil
	}
	if !addr.IsValid() {
		return
	}
	if f == nil {
		f = s.begin(name, id, addr)
	}
	f.tell(want)
}

// End follows a cluster's steward no longer.
func (s *Followers) End(id string) {
	if f := s.of[id]; f != nil {
		f.cancel()
		delete(s.of, id)
	}
}

func (s *Followers) begin(name, id string, addr netip.Addr) *follower {
	quit, cancel := context.WithCancel(context.Background())
	f := &follower{cfg: &s.cfg, name: name, id: id, addr: addr, cancel: cancel, changed: make(chan struct{}, 1)}
	s.of[id] = f
	s.cfg.Go(func(ctx context.Context) error { // ctx ends with the leadership, quit with the control plane
		ctx, end := context.WithCancel(ctx)
		defer end()
		defer context.AfterFunc(quit, end)()
		f.follow(ctx)
		return nil
	})
	return f
}

// tell replaces what is wanted, if it is otherwise.
func (f *follower) tell(want *wire.Desired) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rev := want.Revision()
	if f.want != nil && f.want.Rev == rev {
		return
	}
	named := *want
	named.Rev, f.want = rev, &named
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *follower) wanted() *wire.Desired {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.want
}

// follow talks to the steward until ctx ends.
func (f *follower) follow(ctx context.Context) {
	for ctx.Err() == nil {
		var err error
		if p := scheduler.Catch(func() { err = f.converse(ctx) }); p != nil {
			f.cfg.Log.Error("steward: panic", "cluster", f.name, "panic", p.Value, "stack", string(p.Stack))
			err = scheduler.ErrPanic
		}
		if ctx.Err() != nil {
			return
		}
		f.cfg.Log.Debug("steward does not answer", "cluster", f.name, "err", err)
		f.cfg.Hear(ctx, Word{Name: f.name, ID: f.id, Err: err, by: f})
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// errOld ends a conversation whose certificate is about to.
var errOld = errors.New("the connection is renewed")

// converse has one connection's worth of both directions. What is wanted is told anew with each, once the steward has
// answered.
func (f *follower) converse(ctx context.Context) error {
	a, err := f.cfg.Keys(ctx, f.id)
	if err != nil {
		return err
	}
	c, err := newClient(a, f.addr, f.cfg.Dial, f.cfg.Now())
	if err != nil {
		return err
	}
	defer c.close()
	g, ctx := errgroup.WithContext(ctx)
	answered := make(chan struct{})
	g.Go(func() error { return f.hear(ctx, c, answered) })
	g.Go(func() error {
		select {
		case <-answered:
			return f.say(ctx, c)
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return g.Wait()
}

// hear passes on what the steward says, and closes answered after the first time.
func (f *follower) hear(ctx context.Context, c *client, answered chan<- struct{}) error {
	rev := ""
	for {
		st, err := c.status(ctx, rev)
		if err != nil {
			return err
		}
		if rev == "" {
			close(answered)
		}
		if rev = st.Rev; rev == "" {
			rev = "-"
		}
		f.cfg.Hear(ctx, Word{Name: f.name, ID: f.id, Status: st, by: f})
	}
}

// say tells the steward what is wanted, now and when it changes, for as long as the connection may live.
func (f *follower) say(ctx context.Context, c *client) error {
	old, told := time.After(clientLife/2), ""
	for {
		if want := f.wanted(); want != nil && want.Rev != told {
			if err := c.desire(ctx, want); err != nil {
				return err
			}
			told = want.Rev
		}
		select {
		case <-f.changed:
		case <-old:
			return errOld
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
