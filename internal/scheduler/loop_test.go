package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kernel/kerneltest"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

// counter is the smallest scheduler: its state is one number for each name, and it settles by doing what a test says.
type counter struct {
	t      *testing.T
	loop   *Loop
	store  *memory.Store
	gauges *metrics.Registry
	full   error // what Admit says
	kernel *kerneltest.Kernel
	state  map[string]int // the owner's
	load   func() error
	settle func(ctx context.Context) (time.Time, error)
	seen   int         // instances observed
	calls  []time.Time // of Settle
	work   Work
	ctx    context.Context
	cancel context.CancelFunc
	done   chan error
}

var rows = store.NewTable[int]("numbers")

func newCounter(t *testing.T) *counter {
	c := &counter{t: t, store: memory.New(), gauges: metrics.New("test"), kernel: kerneltest.New(time.Now),
		state: map[string]int{}, done: make(chan error, 1)}
	l, err := c.store.Campaign(t.Context(), "marina", "m1")
	if err != nil {
		t.Fatal(err)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.loop = New(Config{Name: "numbers", Framework: "numbers", Store: c.store, Kernel: c.kernel, Fence: l.Fence(),
		Metrics: c.gauges, Admit: func() error { return c.full }})
	c.work = Work{
		Load: func(context.Context) error {
			if c.load != nil {
				return c.load()
			}
			return nil
		},
		Observe: func(k kernel.Changes) { c.seen += len(k.Instances) },
		Settle: func(ctx context.Context) (time.Time, error) {
			c.calls = append(c.calls, time.Now())
			if c.settle == nil {
				return time.Time{}, nil
			}
			return c.settle(ctx)
		},
	}
	return c
}

func (c *counter) begin() {
	go func() { c.done <- c.loop.Run(c.ctx, c.work) }()
	synctest.Wait()
}

// run runs a test in a bubble with a counter that leads.
func run(t *testing.T, f func(t *testing.T, c *counter)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounter(t)
		c.begin()
		f(t, c)
		c.cancel()
		synctest.Wait()
		select {
		case <-c.loop.Ended():
		default:
			t.Error("it has not ended with its context")
		}
	})
}

// set plans to store a number.
func (c *counter) set(name string, n int) Plan {
	return func(_ context.Context, ch *Change) error {
		op, err := rows.Put(name, n)
		ch.Put(op)
		ch.Then(func() { c.state[name] = n })
		return err
	}
}

func (c *counter) stored(name string) int {
	row, err := rows.Get(context.Background(), c.store, name)
	if errdefs.IsNotFound(err) {
		return 0
	}
	if err != nil {
		c.t.Error(err)
	}
	return row.Value
}

func (c *counter) mustEnd() error {
	c.t.Helper()
	synctest.Wait()
	select {
	case err := <-c.done:
		if err == nil {
			c.t.Error("Run returned nil")
		}
		if c.loop.Leading() {
			c.t.Error("it still says that it leads")
		}
		return err
	default:
		c.t.Error("the leadership goes on")
		return nil
	}
}

func (c *counter) mustGoOn() {
	c.t.Helper()
	if err := c.loop.Do(c.t.Context(), c.set("after", 1)); err != nil || c.stored("after") != 1 {
		c.t.Errorf("a later request: got %v and %d, want nil and 1", err, c.stored("after"))
	}
}

func TestAChangeIsDurableAndTakenInBeforeItIsAnswered(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		order := []string{}
		err := c.loop.Do(t.Context(), func(ctx context.Context, ch *Change) error {
			ch.After(func(context.Context) error { order = append(order, fmt.Sprint("after ", c.state["a"])); return nil })
			ch.Then(func() { order = append(order, fmt.Sprint("then, stored ", c.stored("a"))) })
			return c.set("a", 7)(ctx, ch)
		})
		if want := []string{"then, stored 7", "after 7"}; err != nil || !slices.Equal(order, want) {
			t.Errorf("got %v and %q, want nil and %q", err, order, want)
		}
	})
}

func TestWhatAPlanFailsByIsItsAskersAlone(t *testing.T) {
	for _, kind := range []error{errdefs.ErrInvalidArgument, errdefs.ErrUnavailable, store.ErrUnknownOutcome,
		context.DeadlineExceeded, context.Canceled} {
		t.Run(kind.Error(), func(t *testing.T) {
			run(t, func(t *testing.T, c *counter) {
				err := c.loop.Do(t.Context(), func(ctx context.Context, ch *Change) error {
					return errors.Join(c.set("a", 1)(ctx, ch), fmt.Errorf("a read that timed out: %w", kind))
				})
				if !errors.Is(err, kind) || c.state["a"] != 0 || c.stored("a") != 0 {
					t.Errorf("got %v, %d in memory, %d stored, want the plan's error and nothing", err, c.state["a"], c.stored("a"))
				}
				c.mustGoOn()
			})
		})
	}
}

func TestAPanicOfAPlanHarmsNobody(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		err := c.loop.Do(t.Context(), func(ctx context.Context, ch *Change) error {
			_ = c.set("a", 1)(ctx, ch)
			panic("planted")
		})
		if !errors.Is(err, ErrPanic) || strings.Contains(err.Error(), "planted") || c.stored("a") != 0 {
			t.Errorf("got %v and %d stored, want ErrPanic without internals and nothing", err, c.stored("a"))
		}
		c.mustGoOn()
	})
}

func TestUnknownOutcomeOfARequestEndsTheLeadership(t *testing.T) {
	for _, applied := range []bool{true, false} {
		run(t, func(t *testing.T, c *counter) {
			c.store.LoseReply(applied)
			if err := c.loop.Do(t.Context(), c.set("a", 1)); !errors.Is(err, store.ErrUnknownOutcome) {
				t.Errorf("applied %v: got %v, want ErrUnknownOutcome", applied, err)
			}
			if err := c.mustEnd(); !errors.Is(err, store.ErrUnknownOutcome) {
				t.Errorf("applied %v: Run: got %v", applied, err)
			}
			if err := c.loop.Do(t.Context(), c.set("b", 1)); !errors.Is(err, ErrNotLeading) {
				t.Errorf("applied %v: a later request: got %v, want ErrNotLeading", applied, err)
			}
			if (c.stored("a") == 1) != applied || c.state["a"] != 0 {
				t.Errorf("applied %v: got %d stored, %d in memory", applied, c.stored("a"), c.state["a"])
			}
		})
	}
}

// TestNobodyCanGoOnAfterAnUnknownOutcome has Settle drop the error of its commit and try again.
func TestNobodyCanGoOnAfterAnUnknownOutcome(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		c.settle = func(ctx context.Context) (time.Time, error) {
			c.settle = nil
			c.store.LoseReply(false)
			for n := range 3 {
				ch := &Change{}
				_ = c.set("a", n+1)(ctx, ch)
				_ = c.loop.Commit(ctx, ch)
			}
			return time.Time{}, nil
		}
		_ = c.loop.Tell(t.Context(), func() {})
		if err := c.mustEnd(); !errors.Is(err, store.ErrUnknownOutcome) || c.stored("a") != 0 {
			t.Errorf("got %v and %d stored, want ErrUnknownOutcome and nothing", err, c.stored("a"))
		}
	})
}

func TestALeaderWhoseRowIsGoneWritesNothing(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		c.store.Expire("marina")
		if err := c.loop.Do(t.Context(), c.set("a", 1)); !errors.Is(err, store.ErrFenced) || !Ends(err) {
			t.Errorf("got %v, want ErrFenced", err)
		}
		if err := c.mustEnd(); !errors.Is(err, store.ErrFenced) || c.stored("a") != 0 {
			t.Errorf("Run: got %v and %d stored", err, c.stored("a"))
		}
	})
}

func TestWhatTheKernelSaysAfterACommitEndsTheLeadership(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		gone := fmt.Errorf("stop: %w", errdefs.ErrUnavailable)
		err := c.loop.Do(t.Context(), func(ctx context.Context, ch *Change) error {
			ch.After(func(context.Context) error { return gone })
			return c.set("a", 1)(ctx, ch)
		})
		if !errors.Is(err, gone) || c.stored("a") != 1 {
			t.Errorf("got %v and %d stored, want the kernel's error and 1", err, c.stored("a"))
		}
		if err := c.mustEnd(); !errors.Is(err, gone) {
			t.Errorf("Run: got %v", err)
		}
	})
}

func TestAnErrorOfSettleEndsTheLeadership(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		c.settle = func(context.Context) (time.Time, error) { return time.Time{}, errdefs.ErrUnavailable }
		c.mustGoOn() // the request was answered before
		if err := c.mustEnd(); !errdefs.IsUnavailable(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNothingIsAnsweredBeforeAllIsLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, let := newCounter(t), make(chan struct{})
		c.load = func() error { <-let; return nil }
		c.begin()
		answered := make(chan error, 1)
		go func() { answered <- c.loop.Do(context.Background(), c.set("a", 1)) }()
		synctest.Wait()
		if c.loop.Leading() || len(answered) > 0 {
			t.Errorf("leads %v, answered %d, before it has loaded", c.loop.Leading(), len(answered))
		}
		late, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.loop.Do(late, c.set("b", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who does not wait for long: got %v", err)
		}
		close(let)
		if err := <-answered; err != nil || !c.loop.Leading() || c.stored("b") != 0 {
			t.Errorf("afterwards: got %v, leads %v, b %d", err, c.loop.Leading(), c.stored("b"))
		}
		c.cancel()
		<-c.done
	})
}

func TestARowThatCannotBeLoadedEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounter(t)
		c.load = func() error { return errdefs.ErrDataLoss }
		c.begin()
		if err := c.mustEnd(); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "numbers: load") {
			t.Errorf("got %v", err)
		}
		if err := c.loop.Do(t.Context(), c.set("a", 1)); !errors.Is(err, ErrNotLeading) {
			t.Errorf("Do: got %v, want ErrNotLeading", err)
		}
		if err := c.loop.Tell(t.Context(), func() {}); !errors.Is(err, ErrNotLeading) {
			t.Errorf("Tell: got %v, want ErrNotLeading", err)
		}
	})
}

func TestSettleIsCalledWhenItAskedFor(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		begun := time.Now()
		wakes := []time.Duration{3 * time.Second, 10 * time.Second,
			9 * time.Second} // the last has passed when it is asked for
		c.settle = func(context.Context) (time.Time, error) {
			if len(wakes) == 0 {
				return time.Time{}, nil
			}
			at := begun.Add(wakes[0])
			wakes = wakes[1:]
			return at, nil
		}
		c.calls = nil
		_ = c.loop.Tell(t.Context(), func() {})
		time.Sleep(time.Hour)
		synctest.Wait()
		got := []time.Duration{}
		for _, at := range c.calls {
			got = append(got, at.Sub(begun))
		}
		if want := []time.Duration{0, 3 * time.Second, 10 * time.Second, 10*time.Second + shortest}; !slices.Equal(got,
			want) {
			t.Errorf("calls: got %v, want %v and none more", got, want)
		}
	})
}

func TestWhatTheKernelAndFollowersSayIsSettled(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		calls := len(c.calls)
		c.kernel.AddAgent("a1", 10)
		c.kernel.Complete(true)
		synctest.Wait()
		if len(c.calls) <= calls {
			t.Error("news of the kernel: not settled")
		}
		calls = len(c.calls)
		begun, left := false, false
		if err := c.loop.Tell(t.Context(), func() {
			c.loop.Go(func(ctx context.Context) error {
				begun = true
				_ = c.loop.Tell(ctx, func() { c.state["heard"]++ })
				<-ctx.Done()
				left = true
				return nil
			})
		}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !begun || c.state["heard"] != 1 || len(c.calls) != calls+2 {
			t.Errorf("begun %v, heard %d, settled %d times, want true, 1, 2", begun, c.state["heard"], len(c.calls)-calls)
		}
		c.cancel()
		<-c.done
		if !left {
			t.Error("Run returned before what it had started")
		}
	})
}

func TestAnErrorOfWhatRunsBesideEndsTheLeadership(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		_ = c.loop.Tell(t.Context(), func() { c.loop.Go(func(context.Context) error { return errdefs.ErrAborted }) })
		if err := c.mustEnd(); !errdefs.IsAborted(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhileTheStoreIsFullOnlyWhatMakesRoomIsWritten(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		if err := c.loop.Do(t.Context(), c.set("a", 1)); err != nil {
			t.Fatal(err)
		}
		c.full = fmt.Errorf("full: %w", errdefs.ErrResourceExhausted)
		if err := c.loop.Do(t.Context(), c.set("a", 2)); !errors.Is(err, c.full) || c.state["a"] != 1 || c.stored("a") != 1 {
			t.Errorf("a write: got %v, state %v, want it refused and nothing changed", err, c.state)
		}
		if err := c.loop.Do(t.Context(), func(_ context.Context, ch *Change) error {
			ch.Put(rows.Delete("a"))
			ch.Then(func() { delete(c.state, "a") })
			ch.Always()
			return nil
		}); err != nil || len(c.state) != 0 {
			t.Errorf("what makes room: got %v, state %v", err, c.state)
		}
		if err := c.loop.Do(t.Context(), func(_ context.Context, ch *Change) error {
			ch.Then(func() { c.state["memory"] = 1 })
			return nil
		}); err != nil || c.state["memory"] != 1 {
			t.Errorf("what writes nothing: got %v", err)
		}
		synctest.Wait() // until the owner has settled: it reads what is written next
		settled := change(c, "own", 10)
		if refused, err := c.settled([]*Change{settled}); err != nil || len(refused) > 0 {
			t.Errorf("the leader's own: got %v, %v", refused, err)
		}
		c.full = nil
		if err := c.loop.Do(t.Context(), c.set("a", 3)); err != nil || c.state["a"] != 3 {
			t.Errorf("with room again: got %v", err)
		}
		c.mustGoOn()
	})
}
