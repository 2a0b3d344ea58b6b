package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/agent/locks"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/runtime"
)

// Agent runs tasks on one machine. Make it with New and have Run running.
type Agent struct {
	cfg         Config
	rt          runtime.Runtime
	network     Network
	secrets     Secrets // nil: there are none
	log         *slog.Logger
	dial        func(ctx context.Context, address string) (net.Conn, error)
	incarnation string

	folder *folder // from Run on
	ends   *endpoints
	logs   *streams
	starts slots
	pulls  slots
	checks slots

	// base is Run's context: groups that a session begins outlive the session.
	base context.Context

	mu       sync.Mutex
	self     agentRecord                        // guarded by mu
	groups   map[kernel.GroupID]*group          // guarded by mu
	owners   map[string]*group                  // by container, guarded by mu
	orphans  map[kernel.GroupID][]runtime.Found // containers without a checkpoint, until the first Sync; guarded by mu
	synced   bool                               // a master has said what is assigned; guarded by mu
	draining bool                               // nothing new is begun; guarded by mu
	closing  bool                               // Run is about to return; guarded by mu
	live     *outbox                            // of the session, if there is one; guarded by mu
	lives    sync.WaitGroup                     // groups' goroutines
	ready    chan struct{}                      // closed when recovery is done
	recon    chan struct{}                      // asks for a comparison with the runtime now
	release  map[string]bool                    // claims to be deleted, as kernel.Down.Release names them; guarded by mu
	releases chan struct{}                      // asks to look at them

	claims locks.Table // a claim's volumes are mounted, unmounted or deleted by one goroutine at a time
}

// slots bounds how many do something at a time.
type slots chan struct{}

func (s slots) take(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slots) give() { <-s }

// New checks the configuration (errdefs.ErrInvalidArgument) and makes an agent that does nothing until Run.
func New(cfg Config, deps Deps) (*Agent, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	return &Agent{
		cfg: cfg, rt: deps.Runtime, network: deps.Network, secrets: deps.Secrets, log: deps.Log, dial: deps.Dial, incarnation: rand.Text(),
		starts: make(slots, cfg.ParallelStarts), pulls: make(slots, cfg.ParallelPulls), checks: make(slots, cfg.ParallelChecks),
		groups: map[kernel.GroupID]*group{}, owners: map[string]*group{}, orphans: map[kernel.GroupID][]runtime.Found{},
		ready: make(chan struct{}), recon: make(chan struct{}, 1),
		release: map[string]bool{}, releases: make(chan struct{}, 1),
	}, nil
}

// Run takes the state folder, goes on with the tasks there are, and then with what masters ask for, until ctx ends. Tasks
// are left running then: the next agent on the folder goes on with them. A folder held by another agent is
// errdefs.ErrUnavailable. Run can be called once.
func (a *Agent) Run(ctx context.Context) error {
	f, err := openFolder(ctx, a.cfg.State, a.log)
	if err != nil {
		return err
	}
	defer f.close()
	a.folder, a.base, a.logs = f, ctx, newStreams(f)
	recs, err := a.identify()
	if err != nil {
		return err
	}
	a.ends = newEndpoints(a.self.ID, a.network, a.log)
	if err := a.ends.restore(f); err != nil {
		return err
	}
	eg, ctx := errgroup.WithContext(ctx)
	a.base = ctx
	eg.Go(func() error { return a.ends.run(ctx, f) })
	eg.Go(func() error {
		if err := a.recover(ctx, recs); err != nil {
			return err
		}
		eg.Go(func() error { return a.dispatch(ctx) })
		eg.Go(func() error { return a.reconcile(ctx) })
		eg.Go(func() error { return a.every(ctx, a.cfg.LogInterval, a.rotate) })
		eg.Go(func() error { return a.every(ctx, a.cfg.DiskInterval, a.measure) })
		eg.Go(func() error { return a.every(ctx, a.cfg.DiskInterval, a.collectSandboxes) })
		eg.Go(func() error { return a.every(ctx, a.cfg.SecretsEvery, a.refreshSecrets) })
		eg.Go(func() error { return a.every(ctx, a.cfg.BundleInterval, a.watchBundles) })
		eg.Go(func() error { return a.releaseClaims(ctx) })
		eg.Go(func() error { return a.connect(ctx) })
		return nil
	})
	<-ctx.Done()
	a.mu.Lock()
	a.closing = true
	a.mu.Unlock()
	a.lives.Wait()
	return eg.Wait()
}

// every does something now and then until ctx ends; an error is logged when it is a new one, and the next time is another
// chance.
func (a *Agent) every(ctx context.Context, d time.Duration, f func() error) error {
	was := ""
	for pause(ctx, d) {
		is := ""
		if err := f(); err != nil {
			is = err.Error()
		}
		if is != was && is != "" {
			a.log.Warn("housekeeping", "err", is)
		}
		was = is
	}
	return nil
}

// identify reads who the agent is and what it was doing. An agent whose own checkpoint is damaged finds its name in those of
// its groups.
func (a *Agent) identify() ([]record, error) {
	recs, err := a.folder.groups()
	if err != nil {
		return nil, err
	}
	err = a.folder.load(agentFile, &a.self)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errCorrupt) {
		return nil, err
	}
	for _, r := range recs {
		a.self.ID = either(a.self.ID, r.Agent)
		a.self.Epoch = max(a.self.Epoch, r.Epoch)
	}
	if a.self.ID == "" && errors.Is(err, errCorrupt) {
		// Nothing of the agent's is on disk: a container of its own may still carry its name.
		if found, err := call(a.base, a, a.rt.Containers); err == nil {
			for _, f := range found {
				a.self.ID = either(a.self.ID, kernel.AgentID(f.Labels[runtime.LabelAgent]))
			}
		}
	}
	a.self.ID = either(a.cfg.ID, either(a.self.ID, kernel.AgentID("agent-"+rand.Text()[:16])))
	a.self.Boot = a.cfg.Boot
	if a.self.Disk == 0 {
		if a.self.Disk, _, err = machine.FreeDisk(a.folder.path); err != nil {
			return nil, err
		}
	}
	return recs, a.folder.save(agentFile, &a.self)
}

const agentFile = "agent" + checkpointExt

// recover goes on with the groups of earlier agents. It waits for the runtime as long as it takes.
func (a *Agent) recover(ctx context.Context, recs []record) error {
	if a.self.Network != nil {
		a.configure(ctx, &a.self)
	}
	var found []runtime.Found
	for wait := firstRetry; ; wait = min(2*wait, a.cfg.BackoffMax) {
		var err error
		if found, err = call(ctx, a, a.rt.Containers); err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		a.log.Warn("runtime does not answer, waiting for it", "err", err)
		if !pause(ctx, wait) {
			return nil
		}
	}
	byID := make(map[string]runtime.Found, len(found))
	for _, f := range found {
		byID[f.ID] = f
	}
	for _, r := range recs {
		for _, t := range r.Tasks {
			if f, ok := byID[t.Container]; ok {
				delete(byID, f.ID)
			}
		}
	}
	for _, f := range found {
		if _, unknown := byID[f.ID]; unknown {
			g := kernel.GroupID(f.Labels[runtime.LabelGroup])
			a.orphans[g] = append(a.orphans[g], f)
			a.log.Warn("container without a checkpoint, kept until a master says whose it is", "container", f.ID, "group", g)
		}
		byID[f.ID] = f
	}
	plans := make([]plan, len(recs))
	views := map[kernel.TaskID]localView{}
	for i, r := range recs {
		plans[i] = decideRecovery(r, a.cfg.Boot, byID)
		for k := range r.Tasks {
			if s := &r.Tasks[k].Status; plans[i].do == verbWatch {
				views[s.Task] = viewOf(s)
			}
		}
	}
	a.ends.seed(views) // before anything can ask for a table without them
	a.mu.Lock()
	for _, p := range plans {
		a.beginLocked(p)
	}
	a.mu.Unlock()
	close(a.ready)
	a.log.Info("agent recovered", "agent", a.self.ID, "groups", len(recs), "unknown", len(a.orphans))
	return nil
}

// beginLocked gives a group its goroutine.
func (a *Agent) beginLocked(p plan) {
	if a.closing {
		return
	}
	stopping, stop := context.WithCancelCause(a.base)
	g := a.newGroup(p, stop)
	a.groups[g.id] = g
	for _, c := range g.containers {
		a.owners[c] = g
	}
	ctx := a.base
	a.lives.Go(func() {
		defer stop(nil)
		g.run(ctx, stopping)
	})
}

// ended forgets a group whose end is known to whom it concerns.
func (a *Agent) ended(g *group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.groups, g.id)
	for _, c := range g.containers {
		delete(a.owners, c)
	}
	for _, t := range g.tasks {
		a.ends.drop(t)
	}
}

// show makes a group's statuses those that are told, and sends what changed.
func (a *Agent) show(g *group, now []kernel.Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := map[kernel.TaskID]uint64{}
	for i := range g.shown {
		was[g.shown[i].Task] = g.shown[i].Seq
	}
	g.shown = now
	if a.live == nil {
		return
	}
	for _, s := range now {
		if s.Seq > was[s.Task] {
			a.live.add(s)
		}
	}
}

// liveTasks are the tasks of all groups there are.
func (a *Agent) liveTasks() map[kernel.TaskID]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[kernel.TaskID]bool{}
	for _, g := range a.groups {
		for _, t := range g.tasks {
			out[t] = true
		}
	}
	return out
}

// dispatch hands exits to the groups they concern.
func (a *Agent) dispatch(ctx context.Context) error {
	for e := range a.rt.Exits(ctx) {
		a.mu.Lock()
		g := a.owners[e.ID]
		a.mu.Unlock()
		if g != nil {
			g.exited(e)
		}
	}
	if ctx.Err() == nil {
		return fmt.Errorf("runtime reports no more exits: %w", errdefs.ErrUnavailable)
	}
	return nil
}

// reconcile compares what runs with what should, now and then: an exit that was missed is found, a container that vanished
// too, and one that nobody asked for is removed.
func (a *Agent) reconcile(ctx context.Context) error {
	for {
		t := time.NewTimer(a.cfg.Reconcile)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-a.recon:
			t.Stop()
		case <-t.C:
		}
		if err := a.compare(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("runtime cannot be compared", "err", err)
		}
	}
}

func (a *Agent) compare(ctx context.Context) error {
	expected := a.runningContainers() // before the listing: one that starts meanwhile is not missed
	found, err := call(ctx, a, a.rt.Containers)
	if err != nil {
		return err
	}
	var unknown []runtime.Found
	a.mu.Lock()
	for _, f := range found {
		g := a.owners[f.ID]
		if g == nil && a.synced {
			unknown = append(unknown, f)
		}
		if g != nil && f.Exit != nil {
			g.exited(*f.Exit)
		}
		delete(expected, f.ID)
	}
	for id, g := range expected {
		g.vanished(id)
	}
	synced := a.synced
	a.mu.Unlock()
	var errs []error
	for _, f := range unknown {
		a.log.Warn("container that nobody asked for is removed", "container", f.ID, "group", f.Labels[runtime.LabelGroup])
		_, err := call(ctx, a, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.rt.Remove(ctx, f.ID) })
		errs = append(errs, err)
	}
	if synced {
		errs = append(errs, a.detachUnknown(ctx), a.unmountUnknown(ctx))
	}
	return errors.Join(errs...)
}

// runningContainers are those whose processes were told to run.
func (a *Agent) runningContainers() map[string]*group {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]*group{}
	for _, g := range a.groups {
		for i := range g.shown {
			if s := g.shown[i].State; s == kernel.Running || s == kernel.Killing {
				out[g.containers[i]] = g
			}
		}
	}
	return out
}

// detachUnknown disconnects groups that are attached and not there.
func (a *Agent) detachUnknown(ctx context.Context) error {
	attached, err := call(ctx, a, a.network.Attached)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range attached {
		a.mu.Lock()
		known := a.groups[id] != nil
		a.mu.Unlock()
		if !known {
			_, err := call(ctx, a, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.network.Detach(ctx, id) })
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// measure ends tasks that use more disk than they may.
func (a *Agent) measure() error {
	type one struct {
		g    *group
		task int
		size kernel.Size
	}
	var todo []one
	a.mu.Lock()
	for _, g := range a.groups {
		for i := range g.shown {
			if g.shown[i].State == kernel.Running {
				todo = append(todo, one{g, i, (&kernel.Group{Sizes: g.sizes}).Size(g.spec, i)})
			}
		}
	}
	a.mu.Unlock()
	for _, o := range todo {
		bound := limit(o.size.Guarantee.Disk, o.size.Limit.Disk)
		if bound <= 0 {
			bound = a.cfg.DiskDefault // nobody fills the machine's disk unasked: the datacenter's state is on it too
		}
		if bound <= 0 {
			continue
		}
		used, err := a.usage(string(o.g.tasks[o.task]))
		if err != nil {
			continue // it ended meanwhile
		}
		if st, err := call(a.base, a, func(ctx context.Context) (runtime.Stats, error) { return a.rt.Stats(ctx, o.g.containers[o.task]) }); err == nil {
			used += st.Disk
		}
		if used > bound {
			o.g.stop(&ending{State: kernel.Failed, Reason: kernel.ReasonDisk, Task: o.task,
				Why: fmt.Sprintf("uses %s of disk, its limit is %s", kernel.FormatBytes(used), kernel.FormatBytes(bound))})
		}
	}
	return nil
}

// Drain stops every group and begins no others; it returns when nothing runs any more. Run must be running. Their ends are
// told to a master when there is one, now or at the next start.
func (a *Agent) Drain(ctx context.Context) error {
	select {
	case <-a.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	a.mu.Lock()
	a.draining = true
	groups := make([]*group, 0, len(a.groups))
	for _, g := range a.groups {
		g.stop(&ending{State: kernel.Killed, Reason: kernel.ReasonKilled, Why: "the machine's agent was told to stop everything", Task: all})
		groups = append(groups, g)
	}
	a.mu.Unlock()
	for _, g := range groups {
		if err := g.waitEnd(ctx); err != nil {
			return fmt.Errorf("group %s still runs: %w", g.id, err)
		}
	}
	return nil
}
