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
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/services/core"
	"github.com/marinaos/marina/internal/store"
)

// Config has the settings of a Services. Fields without a default are required.
type Config struct {
	Store  store.Store
	Kernel kernel.Kernel
	Fence  store.Guard // of this process's leadership; every write carries it
	Log    *slog.Logger

	Admit               func() error      // refuses requests' rows while the store is full; nil: it has room
	Metrics             *metrics.Registry // nil: nothing is measured
	FirstPort, LastPort int               // service ports, both included; 10000 and 20000
	MaxVersions         int               // kept of each app; 25
	MaxApps             int               // 20,000
	DefaultRole         string            // of apps in no group; "slave_public", as in DC/OS
	Leader              string            // host:port by which clients reach this process, for /v2/leader and /v2/info
	VIPs                netip.Prefix      // what VIPs given by address must be of; 198.18.0.0/16
	HostVolumes         []string          // directories of the machines that apps may bind; nil: machines decide alone
	Build               string            // version for /v2/info; "1.11.0", whose API this is
	NewID               func() string     // a UUID, never the same twice; uuid.NewString
	Policy              core.Policy       // DefaultPolicy
}

// maxLaunches bounds the launches that are handed to the kernel side by side.
const maxLaunches = 16

// Services runs apps while this process leads. One is made for each leadership and is not used after it.
type Services struct {
	cfg   Config
	loop  *scheduler.Loop
	hub   hub
	count counters

	mu       sync.RWMutex
	state    *core.State         // written by the loop's owner, under mu; read by anyone under mu.RLock
	versions map[string][]string // of each app, oldest first; likewise

	last string // newest version given out; the owner's own
}

type counters struct {
	launched, stopped, started, finished atomic.Int64
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
	def(&cfg.MaxApps, 20_000)
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
	if cfg.Policy == (core.Policy{}) {
		cfg.Policy = core.DefaultPolicy
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Services{cfg: cfg, hub: hub{readers: map[*Stream]struct{}{}}, state: core.NewState(),
		versions: map[string][]string{}}
	s.loop = scheduler.New(scheduler.Config{Name: "services", Framework: marathon.Framework, Store: cfg.Store,
		Kernel: cfg.Kernel, Fence: cfg.Fence, Log: cfg.Log, Metrics: cfg.Metrics, Admit: cfg.Admit})
	s.state.Policy, s.state.Stack = cfg.Policy, debug.Stack
	return s
}

// Run loads what the store holds and works until ctx ends, leadership is lost or the outcome of a write is unknown;
// then nothing more is decided here, and the next leader begins from the store. It is called once.
func (s *Services) Run(ctx context.Context) error {
	return s.loop.Run(ctx, scheduler.Work{Load: s.load, Observe: s.observe, Settle: s.settle})
}

func (s *Services) observe(c kernel.Changes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Observe(c, time.Now())
}

// settle decides and carries out until there is nothing more to do now, and returns when there will be.
func (s *Services) settle(ctx context.Context) (time.Time, error) {
	for {
		s.mu.Lock()
		d := core.Decide(s.state, time.Now(),
			func(app string) kernel.InstanceID {
				return kernel.InstanceID(marathon.GroupPrefix(app) + s.cfg.NewID())
			})
		s.mu.Unlock()
		s.hub.publish(d.Events)
		for _, a := range d.Aside {
			s.cfg.Log.Error("set aside", "subject", a.Subject, "problem", a.Problem, "stack", string(a.Stack))
		}
		if d.Empty() {
			return d.Wake, nil
		}
		if err := s.carryOut(ctx, d); err != nil {
			return time.Time{}, err
		}
	}
}

// carryOut makes a decision real. An error ends this leadership's work.
func (s *Services) carryOut(ctx context.Context, d core.Decision) error {
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

// advance makes transitions durable, each by itself.
func (s *Services) advance(ctx context.Context, list []core.Transition) error {
	changes, of := []*scheduler.Change{}, map[*scheduler.Change]*core.Deployment{}
	for _, tr := range list {
		t := s.begin(&scheduler.Change{})
		if tr.Finished() {
			t.forgetDeployment(tr.Deployment, nil)
		} else if err := t.putErr(rowOf(tr.Deployment, tr.Step)); err != nil {
			park(s, tr.Deployment, err)
			continue
		}
		t.then(func() {
			s.state.Advance(tr, t.now)
			if tr.Finished() {
				s.count.finished.Add(1)
				s.cfg.Log.Info("deployment finished", "deployment", tr.Deployment.ID)
			}
		})
		changes, of[t.Change] = append(changes, t.Change), tr.Deployment
	}
	refused, err := s.loop.CommitAll(ctx, changes)
	for c, why := range refused {
		park(s, of[c], why)
	}
	return err
}

// park sets a deployment aside whose next step cannot be written.
func park(s *Services, d *core.Deployment, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.state.Park(d, "its next step cannot be written: "+why.Error(), time.Now())
	s.cfg.Log.Error("set aside", "subject", a.Subject, "problem", a.Problem)
}

func (s *Services) withdraw(ctx context.Context, list []core.Withdraw) error {
	byKey := map[string][]kernel.InstanceID{}
	for _, w := range list {
		byKey[core.Key(w.App, w.Version)] = append(byKey[core.Key(w.App, w.Version)], w.Instance)
	}
	var out []kernel.InstanceID
	for _, key := range sortedKeys(byKey) {
		taken, err := s.cfg.Kernel.Withdraw(ctx, marathon.Framework, key, byKey[key])
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

func (s *Services) stop(ctx context.Context, list []core.Stop) error {
	byWhy := map[string][]kernel.InstanceID{}
	for _, k := range list {
		byWhy[k.Why] = append(byWhy[k.Why], k.Instance)
		s.cfg.Log.Info("instance is to stop", "app", k.App, "instance", k.Instance, "why", k.Why)
	}
	for _, why := range sortedKeys(byWhy) {
		s.count.stopped.Add(int64(len(byWhy[why])))
		if err := s.cfg.Kernel.Stop(ctx, marathon.Framework, byWhy[why], why); err != nil {
			return fmt.Errorf("services: stop %d instances: %w", len(byWhy[why]), err)
		}
	}
	return nil
}

func (s *Services) forget(ctx context.Context, list []core.Ref) error {
	byApp := map[string][]core.Ref{}
	for _, r := range list {
		byApp[r.App] = append(byApp[r.App], r)
	}
	for _, app := range sortedKeys(byApp) {
		groups := []kernel.InstanceID{}
		for _, r := range byApp[app] {
			groups = append(groups, r.Instance)
		}
		err := s.cfg.Kernel.Forget(ctx, marathon.Framework, groups)
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

func (s *Services) launch(ctx context.Context, l core.Launch) error {
	var spec kernel.Spec
	var err error
	if p := scheduler.Catch(func() { spec, err = marathon.Spec(l.App) }); p != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		a := s.state.ParkLaunch(l, &core.Panic{Value: p.Value, Stack: p.Stack}, time.Now())
		s.cfg.Log.Error("set aside", "subject", a.Subject, "problem", a.Problem, "stack", string(a.Stack))
		return nil
	}
	var result kernel.LaunchResult
	if err == nil {
		s.count.launched.Add(int64(len(l.Groups)))
		result, err = s.cfg.Kernel.Launch(ctx, kernel.LaunchRequest{Key: core.Key(l.App.ID, l.App.Config()), Spec: spec,
			Instances: l.Groups})
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
		s.state.Waits(l, result, time.Now())
	}
	return nil
}

// refused reports whether the kernel said no to one launch, to what it asks for or because there is too much already.
func refused(err error) bool {
	return errors.Is(err, errdefs.ErrInvalidArgument) || errors.Is(err, errdefs.ErrResourceExhausted) || errors.Is(err,
		errdefs.ErrAlreadyExists)
}

// do has the owner plan and commit a change, see scheduler.Loop.Do.
func (s *Services) do(ctx context.Context, plan func(*tx) error) error {
	return s.loop.Do(ctx, func(_ context.Context, c *scheduler.Change) error { return plan(s.begin(c)) })
}
