package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/agent/api"
	"github.com/marinaos/marina/internal/agent/check"
	"github.com/marinaos/marina/internal/agent/checkpoint"
	"github.com/marinaos/marina/internal/agent/endpoint"
	"github.com/marinaos/marina/internal/agent/locks"
	"github.com/marinaos/marina/internal/agent/measure"
	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/agent/sandbox"
	"github.com/marinaos/marina/internal/agent/secret"
	"github.com/marinaos/marina/internal/agent/session"
	"github.com/marinaos/marina/internal/agent/volume"
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
	measured    measure.Agent

	starts locks.Slots
	pulls  locks.Slots
	checks locks.Slots
	prober check.Prober

	fetching, making []stage // what instances are given, in order

	// The parts of what an agent keeps, from Run on.
	dir       *checkpoint.Dir
	ends      *endpoint.Table
	sandboxes *sandbox.Dir
	claims    *volume.Volumes
	files     *secret.Files

	// base is Run's context: instances that a session begins outlive the session.
	base context.Context

	mu        sync.Mutex
	self      agentRecord                           // guarded by mu
	instances map[kernel.InstanceID]*instance       // guarded by mu
	owners    map[string]*instance                  // by container, guarded by mu
	orphans   map[kernel.InstanceID][]runtime.Found // containers without a checkpoint, until the first Sync; guarded by mu
	synced    bool                                  // a master has said what is assigned; guarded by mu
	draining  bool                                  // nothing new is begun; guarded by mu
	closing   bool                                  // Run is about to return; guarded by mu
	live      *session.Outbox                       // of the session, if there is one; guarded by mu
	told      map[string]string                     // bundles, as registered; guarded by mu
	lives     sync.WaitGroup                        // instances' goroutines
	ready     chan struct{}                         // closed when recovery is done
	recon     chan struct{}                         // asks for a comparison with the runtime now
}

// New checks the configuration (errdefs.ErrInvalidArgument) and makes an agent that does nothing until Run.
func New(cfg Config, deps Deps) (*Agent, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	return &Agent{
		measured: measure.New(deps.Metrics), cfg: cfg, log: deps.Log, dial: deps.Dial, incarnation: rand.Text(),
		secrets: deps.Secrets,
		rt:      runtime.Bounded(deps.Runtime, cfg.CallTimeout), network: bounded{deps.Network, cfg.CallTimeout},
		starts: make(locks.Slots, cfg.ParallelStarts), pulls: make(locks.Slots, cfg.ParallelPulls),
		checks: make(locks.Slots, cfg.ParallelChecks),
		prober: check.Prober{Exec: deps.Runtime.Exec}, fetching: fetching(), making: making(),
		instances: map[kernel.InstanceID]*instance{}, owners: map[string]*instance{},
		orphans: map[kernel.InstanceID][]runtime.Found{},
		ready:   make(chan struct{}), recon: make(chan struct{}, 1),
	}, nil
}

// Run takes the state directory, goes on with the tasks there are, and then with what masters ask for, until ctx ends.
// Tasks are left running then: the next agent on the directory goes on with them. A directory held by another agent is
// errdefs.ErrUnavailable. Run can be called once.
func (a *Agent) Run(ctx context.Context) error {
	dir, err := checkpoint.Open(ctx, a.cfg.State, a.log, instancesDir, generatedDir, sandbox.Root, volume.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	a.dir, a.base = dir, ctx
	recs, err := a.identify()
	if err != nil {
		return err
	}
	a.assemble()
	if err := a.ends.Restore(dir); err != nil {
		return err
	}
	eg, ctx := errgroup.WithContext(ctx)
	a.base = ctx
	eg.Go(func() error { return a.ends.Run(ctx, dir) })
	eg.Go(func() error {
		if err := a.recover(ctx, recs); err != nil {
			return err
		}
		keeper{a}.begin(ctx, eg)
		eg.Go(func() error { return a.claims.Run(ctx) })
		eg.Go(func() error { return a.link().Run(ctx) })
		return nil
	})
	<-ctx.Done()
	a.mu.Lock()
	a.closing = true
	a.mu.Unlock()
	a.lives.Wait()
	return eg.Wait()
}

// assemble makes the parts of what the agent keeps.
func (a *Agent) assemble() {
	a.ends = endpoint.New(a.self.ID, a.network, a.log)
	a.sandboxes = sandbox.In(a.dir.Root)
	a.claims = volume.New(volume.Config{Root: a.dir.Root, Storage: a.rt, Log: a.log, InUse: a.usesReservation,
		Released: a.released})
	a.files = secret.New(secret.Config{Dir: filepath.Join(a.cfg.Run, filesDir), Storage: a.rt, Source: a.secrets,
		Timeout:  a.cfg.CallTimeout,
		Patience: a.cfg.SecretsPatience, Log: a.log})
}

// link is the agent's way to its masters, and what it serves them.
func (a *Agent) link() *session.Link {
	serve := api.New(api.Config{Runtime: a.rt, Sandboxes: a.sandboxes, State: a.dir.Path,
		LogKeep: a.cfg.LogKeep, Log: a.log,
		Agent: a.self.ID, Task: a.task, Up: a.up, Metrics: a.measured.Registry})
	return session.New(session.Config{Masters: a.cfg.Masters, TLS: a.cfg.TLS, Dial: a.dial, Heartbeat: a.cfg.Heartbeat,
		BackoffMax: a.cfg.BackoffMax, Suspect: a.cfg.Suspect, Agent: frames{a}, Handler: serve.Handler(), Log: a.log,
		Metrics: a.measured.Registry})
}

// filesDir, below Config.Run, holds the mounted files of running instances.
const filesDir = "files"

// identify reads who the agent is and what it was doing. An agent whose own checkpoint is damaged finds its name in
// those of its instances.
func (a *Agent) identify() ([]record, error) {
	recs, err := readInstances(a.dir)
	if err != nil {
		return nil, err
	}
	err = a.dir.Load(agentFile, &a.self)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, checkpoint.ErrCorrupt) {
		return nil, err
	}
	for _, r := range recs {
		a.self.ID = cmp.Or(a.self.ID, r.Agent)
		a.self.Epoch = max(a.self.Epoch, r.Epoch)
	}
	if a.self.ID == "" && errors.Is(err, checkpoint.ErrCorrupt) {
		// Nothing of the agent's is on disk: a container of its own may still carry its name.
		if found, err := a.rt.Containers(a.base); err == nil {
			for _, f := range found {
				a.self.ID = cmp.Or(a.self.ID, kernel.AgentID(f.Labels[runtime.LabelAgent]))
			}
		}
	}
	a.self.ID = cmp.Or(a.cfg.ID, cmp.Or(a.self.ID, kernel.AgentID("agent-"+rand.Text()[:16])))
	a.self.Boot = a.cfg.Boot
	if a.self.Disk == 0 {
		if a.self.Disk, _, err = machine.FreeDisk(a.dir.Path); err != nil {
			return nil, err
		}
	}
	return recs, a.dir.Save(agentFile, &a.self)
}

// recover goes on with the instances of earlier agents. It waits for the runtime as long as it takes.
func (a *Agent) recover(ctx context.Context, recs []record) error {
	if a.self.Network != nil {
		a.configure(ctx, &a.self)
	}
	var found []runtime.Found
	if !retry.Until(ctx, a.cfg.BackoffMax, func() (err error) { found, err = a.rt.Containers(ctx); return err },
		func(err error) {
			a.log.Warn("runtime does not answer, waiting for it", "err", err)
		}) {
		return nil
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
			g := kernel.InstanceID(f.Labels[runtime.LabelGroup])
			a.orphans[g] = append(a.orphans[g], f)
			a.log.Warn("container without a checkpoint, kept until a master says whose it is", "container", f.ID, "group", g)
		}
		byID[f.ID] = f
	}
	plans := make([]plan, len(recs))
	views := map[kernel.TaskID]endpoint.View{}
	for i, r := range recs {
		plans[i] = decideRecovery(r, a.cfg.Boot, byID)
		for k := range r.Tasks {
			if s := &r.Tasks[k].Status; plans[i].do == verbWatch {
				views[s.Task] = endpoint.ViewOf(s)
			}
		}
	}
	a.ends.Seed(views) // before anything can ask for a table without them
	a.mu.Lock()
	for _, p := range plans {
		a.beginLocked(p)
	}
	a.mu.Unlock()
	close(a.ready)
	a.log.Info("agent recovered", "agent", a.self.ID, "groups", len(recs), "unknown", len(a.orphans))
	return nil
}

// beginLocked gives an instance its goroutine.
func (a *Agent) beginLocked(p plan) {
	if a.closing {
		return
	}
	stopping, stop := context.WithCancelCause(a.base)
	g := a.newInstance(p, stop)
	a.instances[g.id] = g
	for _, c := range g.containers {
		a.owners[c] = g
	}
	ctx := a.base
	a.lives.Go(func() {
		defer stop(nil)
		g.run(ctx, stopping)
	})
}

// ended forgets an instance whose end is known to whom it concerns.
func (a *Agent) ended(g *instance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.instances, g.id)
	for _, c := range g.containers {
		delete(a.owners, c)
	}
	for _, t := range g.tasks {
		a.ends.Drop(t)
	}
}

// show makes an instance's statuses those that are told, and sends what changed.
func (a *Agent) show(g *instance, now []kernel.Status) {
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
			a.live.Status(s)
		}
	}
}

// Drain stops every instance and begins no others; it returns when nothing runs any more. Run must be running. Their
// ends are told to a master when there is one, now or at the next start.
func (a *Agent) Drain(ctx context.Context) error {
	select {
	case <-a.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	a.mu.Lock()
	a.draining = true
	groups := make([]*instance, 0, len(a.instances))
	for _, g := range a.instances {
		g.stop(&ending{State: kernel.Killed, Reason: kernel.ReasonKilled,
			Why: "the machine's agent was told to stop everything", Task: all})
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

// claimed reports whether an instance here may use a reservation.
func (a *Agent) usesReservation(claim string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range a.instances {
		if g.claim != claim {
			continue
		}
		select {
		case <-g.over:
		default:
			return true
		}
	}
	return false
}

// released tells the master that nothing is left of a reservation.
func (a *Agent) released(claim string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.live != nil {
		a.live.Released(claim)
	}
}

// Unmount takes away everything that an agent with this configuration has mounted: before its directory is removed,
// when no agent runs on it and no container is left. Volumes keep their content.
func Unmount(ctx context.Context, s runtime.Storage, cfg Config) error {
	return errors.Join(volume.UnmountBelow(ctx, s, filepath.Join(cfg.State, volume.Dir)),
		volume.UnmountBelow(ctx, s, cfg.runDir()))
}
