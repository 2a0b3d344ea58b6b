package master

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/store"
)

const (
	maxInbox = 4096  // events waiting for the owner; who brings more waits
	maxBatch = 16384 // events in one step and so in one commit

	slowCommit = time.Second // worth a line in the log
)

// Deps are the parts of the process that a Master works with.
type Deps struct {
	Store      store.Store
	Leadership *store.Leadership // under which it works; its epoch becomes Config.Epoch
	Log        *slog.Logger

	// Listener takes the agents' TCP connections; nil: no agent can connect. The Master closes it. Connections negotiate
	// kernel.Protocol, or h2 or http/1.1, which Handler answers (the image registry).
	Listener net.Listener
	TLS      *tls.Config                                       // asks for and verifies client certificates
	AgentID  func(tls.ConnectionState) (kernel.AgentID, error) // whose connection it is; an error refuses it
	Handler  http.Handler                                      // nil: 404

	Metrics *metrics.Registry // nil: nothing is measured

	MaxConnections int // open at once, of agents and to Handler; more wait to be accepted; 100,000
}

// Config is the policy of a master.
type Config = core.Config

// Master is a leader for one leadership. It implements kernel.Kernel; its methods may be called from when it is made,
// wait until it has loaded the state, and answer errdefs.ErrUnavailable once the leadership is over.
type Master struct {
	cfg   Config
	deps  Deps
	log   *slog.Logger
	inbox chan item

	measures measures
	done     chan struct{} // closed when the leadership is over, by lost
	lost     sync.Once

	loaded chan struct{}            // closed with the first snapshot
	shown  atomic.Pointer[snapshot] // the newest; the owner of the state replaces it

	mu       sync.Mutex
	watches  []*watch                     // guarded by mu
	sessions map[event.SessionID]*session // guarded by mu
	agents   map[kernel.AgentID]*session  // those that were sent something; guarded by mu
	last     event.SessionID              // guarded by mu
}

var _ kernel.Kernel = (*Master)(nil)

// item is something for the owner of the state: an event, or a look at the state.
type item struct {
	event  event.Event
	answer chan core.Reply // of a request event; takes one

	// look is called after the steps of its batch, so that nothing comes between what it sees and the changes of the next;
	// what it returns is called once that is durable.
	look func(*core.State) func()
}

// New returns a master that has yet to run.
func New(cfg Config, deps Deps) *Master {
	cfg.Epoch = deps.Leadership.Epoch()
	deps.MaxConnections = cmp.Or(deps.MaxConnections, 100_000)
	return &Master{measures: newMeasures(deps.Metrics), cfg: cfg.WithDefaults(), deps: deps, log: deps.Log,
		inbox: make(chan item, maxInbox), done: make(chan struct{}), loaded: make(chan struct{}),
		sessions: map[event.SessionID]*session{}, agents: map[kernel.AgentID]*session{}}
}

// Run leads until ctx or the leadership ends, or a commit does not succeed, and returns why. The caller resigns the
// leadership after an error: what this process holds in memory may differ from what is durable.
func (m *Master) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lead := m.deps.Leadership.Context()
	defer context.AfterFunc(lead, func() { cancel(context.Cause(lead)) })()
	defer m.lose()
	if m.deps.Listener != nil {
		defer m.deps.Listener.Close()
	}
	state, err := m.load(ctx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer m.lose()
		return m.own(ctx, state)
	})
	if m.deps.Listener != nil {
		g.Go(func() error { return m.accept(ctx) })
	}
	return g.Wait()
}

// lose ends everything that waits for this leader.
func (m *Master) lose() {
	m.lost.Do(func() { close(m.done) })
	m.mu.Lock()
	watches := slices.Clone(m.watches)
	m.mu.Unlock()
	for _, w := range watches {
		w.poke()
	}
}

func (m *Master) load(ctx context.Context) (*core.State, error) {
	defer metrics.Since(m.measures.load, time.Now())
	snap, err := m.deps.Store.Snapshot(ctx, row.All)
	if err != nil {
		return nil, fmt.Errorf("state of the kernel: %w", err)
	}
	s := core.NewState(m.cfg)
	for _, problem := range s.Load(snap.Items) {
		m.log.Error("row cannot be used, what it concerns is left alone", "err", problem)
	}
	machines, instances, _ := s.Sizes()
	m.log.Info("leading", "epoch", m.cfg.Epoch, "agents", machines, "groups", instances)
	return s, nil
}

// batch holds the effects of one or several steps until they are durable.
type batch struct {
	fx      core.Effects
	rows    map[row.Row]struct{}
	answers map[event.RequestID]chan core.Reply
	looks   []func()
}

// own is the owner of the state. While a commit is under way it gathers; it steps through what gathered at once.
func (m *Master) own(ctx context.Context, s *core.State) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	committed := make(chan error, 1)
	var held *batch // waits for committed
	audit := core.NewAudit(s)
	waiting := []item{{event: event.Tick{}}}
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	for {
		if held == nil && len(waiting) > 0 {
			b, err := m.step(s, audit, waiting)
			if err != nil {
				return err
			}
			clear(waiting)
			waiting = waiting[:0]
			if b.fx.Wake.IsZero() {
				wake.Stop()
			} else {
				wake.Reset(time.Until(b.fx.Wake))
			}
			ops, err := s.Ops(slices.SortedFunc(maps.Keys(b.rows), row.Row.Compare))
			if err != nil {
				return err
			}
			if len(ops) == 0 {
				m.publish(s)
				m.count(s)
				m.release(b)
				continue
			}
			held = b
			wg.Go(func() { committed <- m.commit(ctx, ops) })
		}
		inbox := m.inbox
		if len(waiting) >= maxBatch {
			inbox = nil
		}
		select {
		case it := <-inbox:
			waiting = append(waiting, it)
			for n := len(inbox); n > 0 && len(waiting) < maxBatch; n-- {
				waiting = append(waiting, <-inbox)
			}
		case err := <-committed:
			if err != nil {
				return fmt.Errorf("commit: %w", err)
			}
			m.publish(s)
			m.count(s)
			m.release(held)
			held = nil
		case <-wake.C:
			waiting = append(waiting, item{event: event.Tick{}})
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// step takes items through the state, and has the audit judge each step.
func (m *Master) step(s *core.State, audit *core.Audit, items []item) (*batch, error) {
	defer metrics.Since(m.measures.step, time.Now())
	m.measures.events.Observe(float64(len(items)))
	b := &batch{rows: map[row.Row]struct{}{}, answers: map[event.RequestID]chan core.Reply{}}
	events := make([]event.Event, 0, len(items))
	for _, it := range items {
		if it.look != nil {
			continue
		}
		if it.answer != nil {
			id := event.RequestID(len(b.answers) + 1)
			b.answers[id] = it.answer
			it.event = event.Numbered(it.event, id)
		}
		events = append(events, it.event)
	}
	for part := range event.Steps(events) {
		fx := s.Step(time.Now(), part...)
		b.add(fx)
		if err := audit.Judge(s, &fx); err != nil {
			return nil, err
		}
	}
	for _, it := range items {
		if it.look != nil {
			b.looks = append(b.looks, it.look(s))
		}
	}
	b.fx.Complete, b.fx.Wake = s.Complete(), s.Wake() // also of a batch that only looked
	return b, nil
}

// add appends the effects of a later step.
func (b *batch) add(fx core.Effects) {
	for _, r := range fx.Writes {
		b.rows[r] = struct{}{}
	}
	b.fx.Sends = append(b.fx.Sends, fx.Sends...)
	b.fx.Ends = append(b.fx.Ends, fx.Ends...)
	b.fx.Replies = append(b.fx.Replies, fx.Replies...)
	b.fx.Changes = append(b.fx.Changes, fx.Changes...)
	b.fx.Room = b.fx.Room || fx.Room
}

// commit writes operations in as few transactions as the store's limits allow, each under the fence, in order.
func (m *Master) commit(ctx context.Context, ops []store.Op) error {
	fence := m.deps.Leadership.Fence()
	began, rows := time.Now(), len(ops)
	m.measures.rows.Observe(float64(rows))
	defer func() {
		took := time.Since(began)
		m.measures.commit.Observe(took.Seconds())
		if took > slowCommit {
			m.measures.slow.Inc()
			m.log.Warn("commit was slow, is the disk or the processor overloaded?", "took", took, "rows", rows)
		}
	}()
	for len(ops) > 0 {
		txn := store.Txn{Guards: []store.Guard{fence}}
		n, size := 0, txn.Bytes()
		for n < len(ops) && n < store.MaxTxnOps {
			if size += (store.Txn{Ops: ops[n : n+1]}).Bytes(); n > 0 && size > store.MaxTxnBytes {
				break
			}
			n++
		}
		txn.Ops, ops = ops[:n:n], ops[n:]
		if _, err := m.deps.Store.Commit(ctx, txn); err != nil {
			return err
		}
	}
	return nil
}

// release lets out what a batch led to: it is durable now. Watches come before replies, so that whoever has an answer
// finds in its watch all that was decided before it.
func (m *Master) release(b *batch) {
	m.deliver(b.fx.Sends, b.fx.Ends)
	m.mu.Lock()
	watches := slices.Clone(m.watches)
	m.mu.Unlock()
	for _, w := range watches {
		w.push(b.fx.Changes, b.fx.Complete, b.fx.Room)
	}
	for _, r := range b.fx.Replies {
		if answer := b.answers[r.Request]; answer != nil {
			answer <- r
		}
	}
	for _, done := range b.looks {
		done()
	}
}

// submit hands an item to the owner.
func (m *Master) submit(ctx context.Context, it item) error {
	select {
	case m.inbox <- it:
		return nil
	case <-m.done:
		return errLost
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// request has a request event answered.
func (m *Master) request(ctx context.Context, ev event.Event) (core.Reply, error) {
	answer := make(chan core.Reply, 1)
	if err := m.submit(ctx, item{event: ev, answer: answer}); err != nil {
		return core.Reply{}, err
	}
	select {
	case r := <-answer:
		return r, r.Err
	case <-m.done:
		return core.Reply{}, errLost
	case <-ctx.Done():
		return core.Reply{}, context.Cause(ctx)
	}
}

// look has f read the state and waits until what it saw is durable.
func (m *Master) look(ctx context.Context, f func(*core.State)) error {
	done := make(chan struct{})
	err := m.submit(ctx, item{look: func(s *core.State) func() {
		f(s)
		return func() { close(done) }
	}})
	if err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-m.done:
		return errLost
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errLost = fmt.Errorf("this process does not lead the datacenter any more: ask again: %w", errdefs.ErrUnavailable)
