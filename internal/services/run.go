package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/store"
)

// Config is what a Services needs. Fields without a default are required.
type Config struct {
	Store  store.Store
	Kernel kernel.Kernel
	Fence  store.Guard // of this process's leadership; every write carries it
	Log    *slog.Logger

	FirstPort, LastPort int           // service ports, both included; 10000 and 20000
	MaxVersions         int           // kept of each app; 25
	DefaultRole         string        // of apps in no group; "slave_public", as in DC/OS
	Leader              string        // host:port by which clients reach this process, for /v2/leader and /v2/info
	VIPs                netip.Prefix  // what VIPs given by address must be of; 198.18.0.0/16
	HostVolumes         []string      // folders of the machines that apps may bind; nil: machines decide alone
	Build               string        // version for /v2/info; "1.11.0", whose API this is
	NewID               func() string // a UUID, never the same twice; uuid.NewString
	Policy              Policy        // DefaultPolicy
}

// maxLaunches is how many launches are handed to the kernel side by side.
const maxLaunches = 16

// Services runs apps while this process leads. One is made for each leadership and is not used after it.
type Services struct {
	cfg      Config
	requests chan request
	ready    chan struct{} // closed once everything is loaded
	ended    chan struct{} // closed when Run returns
	hub      hub
	count    counters

	mu       sync.RWMutex
	state    *State              // written by Run's goroutine, under mu; read by anyone under mu.RLock
	versions map[string][]string // of each app, oldest first; likewise
	alarms   []kernel.Alarm      // what was set aside; likewise

	last string // newest version given out; Run's goroutine's own
}

type counters struct {
	requests, launched, stopped, started, finished atomic.Int64
}

// request is a change that somebody asked for. Run's goroutine calls plan, which must be quick; what it put into the tx is
// committed, and then answered.
type request struct {
	plan func(*tx) error
	done chan error // holds one
}

// New returns a Services that does nothing until Run.
func New(cfg Config) *Services {
	def := func(p *int, n int) {
		if *p == 0 {
			*p = n
		}
	}
	def(&cfg.FirstPort, 10000)
	def(&cfg.LastPort, 20000)
	def(&cfg.MaxVersions, 25)
	if !cfg.VIPs.IsValid() {
		cfg.VIPs = netip.MustParsePrefix("198.18.0.0/16")
	}
	if cfg.DefaultRole == "" {
		cfg.DefaultRole = "slave_public"
	}
	if cfg.Build == "" {
		cfg.Build = "1.11.0"
	}
	if cfg.NewID == nil {
		cfg.NewID = uuid.NewString
	}
	if cfg.Policy == (Policy{}) {
		cfg.Policy = DefaultPolicy
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Services{cfg: cfg, requests: make(chan request), ready: make(chan struct{}), ended: make(chan struct{}),
		hub: hub{readers: map[*reader]struct{}{}}, state: NewState(), versions: map[string][]string{}}
	s.state.Policy = cfg.Policy
	return s
}

// Run loads what the store holds and works until ctx ends, leadership is lost or the outcome of a write is unknown; then
// nothing more is decided here, and the next leader begins from the store. It is called once.
func (s *Services) Run(ctx context.Context) error {
	defer close(s.ended)
	if err := s.load(ctx); err != nil {
		return fmt.Errorf("services: load: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	changes := make(chan kernel.Changes)
	watch := s.cfg.Kernel.Watch(Framework)
	defer watch.Close()
	g.Go(func() error { return kernel.Follow(ctx, watch, changes) })
	g.Go(func() error { return s.loop(ctx, changes) })
	return g.Wait()
}

// loop is the owner of all writing.
func (s *Services) loop(ctx context.Context, changes <-chan kernel.Changes) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	loaded := false
	var requests <-chan request // nil until the kernel's instances are known
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-changes:
			s.mu.Lock()
			s.state.Observe(c, time.Now())
			s.mu.Unlock()
			if !loaded {
				loaded, requests = true, s.requests
				close(s.ready)
			}
		case r := <-requests:
			fatal, err := s.serve(ctx, r)
			r.done <- err
			if fatal {
				return err
			}
		case <-timer.C:
		}
		if !loaded {
			continue
		}
		wake, err := s.settle(ctx)
		if err != nil {
			return err
		}
		timer.Stop()
		if !wake.IsZero() {
			timer.Reset(time.Until(wake))
		}
	}
}

// settle decides and carries out until there is nothing more to do now, and returns when there will be.
func (s *Services) settle(ctx context.Context) (time.Time, error) {
	for {
		s.mu.Lock()
		d := Decide(s.state, time.Now(), func(app string) kernel.GroupID { return kernel.GroupID(GroupPrefix(app) + s.cfg.NewID()) })
		s.mu.Unlock()
		s.hub.publish(d.Events)
		if d.Empty() {
			return d.Wake, nil
		}
		if err := s.carryOut(ctx, d); err != nil {
			return time.Time{}, err
		}
	}
}

// carryOut makes a decision real. An error ends this leadership's work.
func (s *Services) carryOut(ctx context.Context, d Decision) error {
	if err := s.advance(ctx, d.Transitions); err != nil {
		return err
	}
	if err := s.withdraw(ctx, d.Withdraw); err != nil {
		return err
	}
	if err := s.stop(ctx, d.Stop); err != nil {
		return err
	}
	if err := s.forget(ctx, d.Forget); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxLaunches)
	for _, l := range d.Launch {
		g.Go(func() error { return s.launch(gctx, l) })
	}
	return g.Wait()
}

func (s *Services) advance(ctx context.Context, list []Transition) error {
	if len(list) == 0 {
		return nil
	}
	t := s.begin()
	for _, tr := range list {
		if tr.Finished() {
			t.forgetDeployment(tr.Deployment, nil)
			s.count.finished.Add(1)
			s.cfg.Log.Info("deployment finished", "deployment", tr.Deployment.ID)
		} else if err := t.putErr(rowOf(tr.Deployment, tr.Step)); err != nil {
			return err
		}
		t.then(func() { s.state.Advance(tr, t.now) })
	}
	return t.commit(ctx)
}

func (s *Services) withdraw(ctx context.Context, list []Withdraw) error {
	byKey := map[string][]kernel.GroupID{}
	for _, w := range list {
		byKey[Key(w.App, w.Version)] = append(byKey[Key(w.App, w.Version)], w.Group)
	}
	var out []kernel.GroupID
	for _, key := range sortedKeys(byKey) {
		taken, err := s.cfg.Kernel.Withdraw(ctx, Framework, key, byKey[key])
		if err != nil {
			return fmt.Errorf("services: withdraw %s: %w", key, err)
		}
		out = append(out, taken...)
	}
	s.mu.Lock()
	placed := s.state.Withdrawn(list, out)
	s.mu.Unlock()
	return s.stop(ctx, placed)
}

func (s *Services) stop(ctx context.Context, list []Stop) error {
	byWhy := map[string][]kernel.GroupID{}
	for _, k := range list {
		byWhy[k.Why] = append(byWhy[k.Why], k.Group)
		s.cfg.Log.Info("instance is to stop", "app", k.App, "instance", k.Group, "why", k.Why)
	}
	for _, why := range sortedKeys(byWhy) {
		s.count.stopped.Add(int64(len(byWhy[why])))
		if err := s.cfg.Kernel.Stop(ctx, Framework, byWhy[why], why); err != nil {
			return fmt.Errorf("services: stop %d instances: %w", len(byWhy[why]), err)
		}
	}
	return nil
}

func (s *Services) forget(ctx context.Context, list []Ref) error {
	byApp := map[string][]Ref{}
	for _, r := range list {
		byApp[r.App] = append(byApp[r.App], r)
	}
	for _, app := range sortedKeys(byApp) {
		groups := []kernel.GroupID{}
		for _, r := range byApp[app] {
			groups = append(groups, r.Group)
		}
		err := s.cfg.Kernel.Forget(ctx, Framework, groups)
		switch {
		case errors.Is(err, errdefs.ErrFailedPrecondition) && !errors.Is(err, errdefs.ErrUnavailable):
			s.mu.Lock()
			s.state.ForgetRefused(byApp[app], time.Now())
			s.mu.Unlock()
		case err != nil:
			return fmt.Errorf("services: forget instances of %s: %w", app, err)
		}
	}
	return nil
}

func (s *Services) launch(ctx context.Context, l Launch) error {
	spec, err := Spec(l.App)
	var result kernel.LaunchResult
	if err == nil {
		s.count.launched.Add(int64(len(l.Groups)))
		result, err = s.cfg.Kernel.Launch(ctx, kernel.LaunchRequest{Key: Key(l.App.ID, l.App.Config()), Spec: spec, Groups: l.Groups})
	}
	if refused(err) { // is this app's matter: it backs off, and the others and this leadership go on
		s.mu.Lock()
		defer s.mu.Unlock()
		s.state.LaunchFailed(l, err.Error(), time.Now())
		return nil
	}
	if err != nil {
		return fmt.Errorf("services: launch %d instances of %s: %w", len(l.Groups), l.App.ID, err)
	}
	if result.Waiting > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.state.emit(instancesWaiting(l, result, time.Now()))
	}
	return nil
}

// refused reports whether the kernel said no to one launch, to what it asks for or because there is too much already.
func refused(err error) bool {
	return errors.Is(err, errdefs.ErrInvalidArgument) || errors.Is(err, errdefs.ErrResourceExhausted) || errors.Is(err, errdefs.ErrAlreadyExists)
}

// do has Run's goroutine plan and commit a change. It returns once the change is durable, with the plan's error if there was
// one, or an errdefs.ErrUnavailable when this process does not lead; then the outcome may be unknown.
func (s *Services) do(ctx context.Context, plan func(*tx) error) error {
	r := request{plan: plan, done: make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-s.ended:
		return errNotLeading
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return <-r.done
}

var errNotLeading = fmt.Errorf("this master does not lead, ask again: %w", errdefs.ErrUnavailable)

// serve plans and commits one request. fatal says that this leadership's work is over.
func (s *Services) serve(ctx context.Context, r request) (fatal bool, err error) {
	t := s.begin()
	if err := s.planned(r, t); err != nil {
		return false, err
	}
	if err := t.commit(ctx); err != nil {
		return !errors.Is(err, errdefs.ErrInvalidArgument), err
	}
	if err := s.carryOut(ctx, t.kill); err != nil {
		return true, err
	}
	return false, nil
}

// planned has a request plan its change. A panic is that request's misfortune and nobody else's: nothing is committed yet.
func (s *Services) planned(r request, t *tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("request panicked", "panic", p, "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	return r.plan(t)
}

var errPanic = fmt.Errorf("the request could not be worked on, the master's log says why: %w", errdefs.ErrInternal)
