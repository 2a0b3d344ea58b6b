package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/store"
)

// Config configures a Loop. All but Log is required.
type Config struct {
	Name      string // of the scheduler, begins its errors
	Framework string // whose instances are watched
	Store     store.Store
	Kernel    Watcher
	Fence     store.Guard // of this process's leadership; every write carries it
	Log       *slog.Logger
	Metrics   *metrics.Registry // nil: nothing is measured

	// Admit is asked before rows are written for a request, unless the change is for Always. Its error, an
	// errdefs.ErrResourceExhausted that says what to do, refuses the request. Nil: the store always has room.
	Admit func() error
}

// Watcher is the part of kernel.Kernel that a Loop uses.
type Watcher interface {
	Watch(framework string) kernel.InstanceWatch
}

// Work holds the scheduler's own functions. The owner goroutine calls it, one function at a time.
type Work struct {
	// Load reads what is stored, before all else. An error ends the leadership.
	Load func(context.Context) error
	// Observe takes in changes of the framework's instances. The first call brings all there are.
	Observe func(kernel.Changes)
	// Settle decides and carries out until there is nothing more to do now, and returns when there will be; zero: when
	// something happens. It is called after everything that happens. An error ends the leadership.
	Settle func(context.Context) (wake time.Time, err error)
}

// shortest is the least pause between two calls of Settle without anything in between, whatever wake it asks for.
const shortest = 10 * time.Millisecond

// Loop is the owner goroutine of one scheduler for one leadership. Make one with New and run it once.
type Loop struct {
	cfg      Config
	measures measures
	requests chan request
	events   chan func()
	ready    chan struct{} // closed once everything is loaded and the kernel has told its instances
	ended    chan struct{} // closed when the owner goroutine has ended

	lost  error           // why nothing may be written any more; the owner goroutine's own, as all below
	group *errgroup.Group // of Run
	ctx   context.Context // of what Go starts; kept since followers begin and end at any time
}

// request is a change that somebody asked for.
type request struct {
	plan Plan
	done chan error // holds one
}

// Plan puts into a change what a request asks for, or refuses it. The owner goroutine calls it.
type Plan func(ctx context.Context, c *Change) error

// ErrNotLeading says that this process does not lead, or not any more; the outcome of what was under way may be
// unknown.
var ErrNotLeading = fmt.Errorf("this master does not lead, ask again: %w", errdefs.ErrUnavailable)

// New returns a Loop that does nothing until Run.
func New(cfg Config) *Loop {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Loop{cfg: cfg, measures: newMeasures(cfg.Metrics, cfg.Name), requests: make(chan request),
		events: make(chan func()), ready: make(chan struct{}), ended: make(chan struct{})}
}

// Run loads and works until ctx ends, leadership is lost or a commit's outcome is unknown. Everything that Go started
// has returned when it does. Its error says why; it is never nil.
func (l *Loop) Run(ctx context.Context, w Work) error {
	if err := w.Load(ctx); err != nil {
		close(l.ended)
		return fmt.Errorf("%s: load: %w", l.cfg.Name, err)
	}
	l.group, l.ctx = errgroup.WithContext(ctx)
	watch := l.cfg.Kernel.Watch(l.cfg.Framework)
	defer watch.Close()
	changes := make(chan kernel.Changes)
	l.group.Go(func() error { return kernel.Follow(l.ctx, watch, changes) })
	l.group.Go(func() error { return l.loop(l.ctx, w, changes) })
	return l.group.Wait()
}

func (l *Loop) loop(ctx context.Context, w Work, changes <-chan kernel.Changes) error {
	defer close(l.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var requests <-chan request // nil until the kernel's instances are known
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-changes:
			w.Observe(c)
			if requests == nil {
				requests = l.requests
				close(l.ready)
			}
		case r := <-requests:
			l.serve(ctx, r)
		case event := <-l.events:
			event()
		case <-timer.C:
		}
		if l.lost != nil {
			return l.lost
		}
		if requests == nil {
			continue
		}
		began := time.Now()
		wake, err := w.Settle(ctx)
		metrics.Since(l.measures.settle, began)
		if l.lost != nil {
			return l.lost
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l.cfg.Name, err)
		}
		timer.Stop()
		if !wake.IsZero() {
			timer.Reset(max(time.Until(wake), shortest))
		}
	}
}

// serve plans and commits one request and answers it.
func (l *Loop) serve(ctx context.Context, r request) {
	c := &Change{}
	var err error
	if p := Catch(func() { err = r.plan(ctx, c) }); p != nil {
		l.cfg.Log.Error("request panicked", "scheduler", l.cfg.Name, "panic", p.Value, "stack", string(p.Stack))
		err = ErrPanic
	}
	if err == nil && len(c.ops) > 0 && !c.always && l.cfg.Admit != nil {
		err = l.cfg.Admit()
	}
	if err == nil {
		err = l.Commit(ctx, c)
	}
	outcome := "done"
	switch {
	case l.lost != nil:
		outcome = "lost"
	case errors.Is(err, ErrPanic):
		outcome = "panicked"
	case err != nil:
		outcome = "refused"
	}
	l.measures.request(outcome)
	r.done <- err
}

// Do has the owner goroutine plan a change and commits it. It returns once that is durable and what the change has
// for After is done; with the plan's error, Config.Admit's, errdefs.ErrInvalidArgument for a change that fits no
// transaction, ErrPanic, or an errdefs.ErrUnavailable when this process does not lead. ctx bounds the wait for the
// owner alone: a change is not stopped half way.
func (l *Loop) Do(ctx context.Context, plan Plan) error {
	r := request{plan: plan, done: make(chan error, 1)}
	select {
	case l.requests <- r:
	case <-l.ended:
		return ErrNotLeading
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return <-r.done
}

// Tell has the owner goroutine run f, and Settle after it. It returns when the owner has taken f, with an error if
// ctx or the leadership ended before.
func (l *Loop) Tell(ctx context.Context, f func()) error {
	select {
	case l.events <- f:
		return nil
	case <-l.ended:
		return ErrNotLeading
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Go runs f beside the owner goroutine, which alone may call it, until f returns; ctx ends with the leadership, and
// an error of f ends that.
func (l *Loop) Go(f func(ctx context.Context) error) {
	l.group.Go(func() error { return f(l.ctx) })
}

// Leading reports whether the state is loaded and still this process's to change.
func (l *Loop) Leading() bool {
	select {
	case <-l.ended:
		return false
	default:
	}
	select {
	case <-l.ready:
		return true
	default:
		return false
	}
}

// Ended is closed when nothing is decided here any more.
func (l *Loop) Ended() <-chan struct{} { return l.ended }
