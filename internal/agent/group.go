package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/marinaos/marina/internal/kernel"

	"github.com/marinaos/marina/internal/runtime"
)

// group is the life of one group on this machine. Its goroutine (run) owns the record and the facts; others talk to it
// through the mailbox and stop.
type group struct {
	a   *Agent
	id  kernel.GroupID
	log *slog.Logger

	rec   record // owned by run
	facts []fact // owned by run
	do    verb   // owned by run

	stop    context.CancelCauseFunc // asks for the end; the cause is an *ending
	over    chan struct{}           // closed when nothing is left of it
	results chan checked            // from the checks
	checks  sync.WaitGroup          // the checks; one that hangs in the container ends with it, so run waits for them last

	// shown is what was told of the tasks. Guarded by a.mu.
	shown []kernel.Status
	// sizes is those of rec.Group, for others to read. Guarded by a.mu.
	sizes []kernel.Size
	// spec and containers never change.
	spec       *kernel.Spec
	containers []string
	tasks      []kernel.TaskID
	claim      string          // as kernel.Down.Release names it; "" if it has none
	ids        *kernel.IDRange // its own on the machine, if it has some
	idsErr     error           // why it has not

	secrets map[string]kernel.Secret // fetched for the start; owned by run, until they are in place
	pending bool                     // sizes are on disk which the containers may not have yet; owned by run

	filesMu sync.Mutex // held while files are written, and while they are taken away

	mu     sync.Mutex
	exits  map[string]runtime.Exit  // by container; guarded by mu
	acks   map[kernel.TaskID]uint64 // guarded by mu
	gone   map[string]bool          // containers that are not there any more; guarded by mu
	forget bool                     // nobody waits for its statuses; guarded by mu
	want   *[]kernel.Size           // sizes it is to have; guarded by mu
	wake   chan struct{}            // something above changed
}

// Error makes an ending the cause of a context's end.
func (e *ending) Error() string { return e.Why }

func (a *Agent) newGroup(p plan, stop context.CancelCauseFunc) *group {
	g := &group{a: a, id: p.rec.Group.ID, log: a.log.With("group", p.rec.Group.ID), rec: p.rec, facts: p.facts, do: p.do,
		stop: stop, over: make(chan struct{}), results: make(chan checked), spec: &p.rec.Spec,
		sizes: p.rec.Group.Sizes, pending: len(p.rec.Group.Sizes) > 0,
		exits: map[string]runtime.Exit{}, acks: map[kernel.TaskID]uint64{}, gone: map[string]bool{}, wake: make(chan struct{}, 1)}
	if c := p.rec.Spec.Claim; c != nil {
		g.claim = p.rec.Spec.Framework + "/" + c.Name
	}
	g.ids, g.idsErr = ownRange(&p.rec, a.self.Subnet, a.rt.IDs())
	for i := range p.rec.Tasks {
		g.containers = append(g.containers, p.rec.Tasks[i].Container)
		g.tasks = append(g.tasks, p.rec.Tasks[i].Status.Task)
		if p.do != verbClean { // a decided end is told only once nothing is left of it
			g.shown = append(g.shown, p.rec.Tasks[i].Status)
		}
	}
	return g
}

// poke tells run that the mailbox changed.
func (g *group) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *group) exited(e runtime.Exit) {
	g.mu.Lock()
	if _, ok := g.exits[e.ID]; !ok {
		g.exits[e.ID] = e
	}
	g.mu.Unlock()
	g.poke()
}

func (g *group) vanished(container string) {
	g.mu.Lock()
	g.gone[container] = true
	g.mu.Unlock()
	g.poke()
}

func (g *group) acked(ack kernel.StatusAck) {
	g.mu.Lock()
	g.acks[ack.Task] = max(g.acks[ack.Task], ack.Seq)
	g.mu.Unlock()
	g.poke()
}

func (g *group) forgotten() {
	g.mu.Lock()
	g.forget = true
	g.mu.Unlock()
	g.poke()
}

// run lives the group's life. It returns when the group is ended and acknowledged, or, with the tasks left as they are,
// when ctx ends; stopping is a context below ctx that ends when the group is to end.
func (g *group) run(ctx, stopping context.Context) {
	defer g.checks.Wait()
	fresh := g.do == verbStart
	if fresh {
		if e := g.start(stopping); e != nil {
			g.rec.Ending, g.do = e, verbFinish
		} else {
			g.do = verbWatch
		}
	} else if g.do == verbWatch {
		g.adopt(ctx)
	}
	if g.do == verbWatch {
		if e := g.watch(ctx, stopping, fresh); e != nil {
			g.rec.Ending, g.do = e, verbFinish
		}
	}
	if g.do == verbFinish && ctx.Err() == nil {
		g.finish(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	if !g.clean(ctx) {
		return
	}
	close(g.over)
	g.a.pokeReleases()
	if g.awaitAcks(ctx) {
		g.a.ended(g)
	}
}

// status changes one task's status: Seq rises, Time is now. It counts once commit has returned.
func (g *group) status(i int, change func(*kernel.Status)) {
	s := &g.rec.Tasks[i].Status
	change(s)
	s.Seq++
	s.Time = time.Now().UTC()
}

// save writes the record, again and again until it is on disk or ctx ends: what is not durable is not told to anyone.
func (g *group) save(ctx context.Context) bool {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := g.a.folder.save("groups/"+groupFile(g.id), &g.rec)
		if err == nil {
			return true
		}
		g.log.Error("checkpoint cannot be written, trying again", "err", err)
		if !pause(ctx, wait) {
			return false
		}
	}
}

// commit makes the statuses durable and then tells them.
func (g *group) commit(ctx context.Context) {
	if g.save(ctx) {
		g.publish()
	}
}

func (g *group) publish() {
	now := make([]kernel.Status, len(g.rec.Tasks))
	for i := range g.rec.Tasks {
		now[i] = g.rec.Tasks[i].Status
		now[i].Health = append([]kernel.Health(nil), now[i].Health...)
		g.a.ends.setLocal(now[i].Task, viewOf(&now[i]))
	}
	g.a.show(g, now)
}

// adopt goes on with tasks that an earlier agent started. What it did not get to say is said now.
func (g *group) adopt(ctx context.Context) {
	changed := false
	for i := range g.rec.Tasks {
		t := &g.rec.Tasks[i]
		if t.Phase != phaseStarted || t.Status.State != kernel.Running || len(t.Status.Health) != len(g.spec.Tasks[i].Checks) {
			g.running(i, g.facts[i].process)
			changed = true
		}
	}
	if changed {
		g.commit(ctx)
	} else {
		g.publish() // the master may not have heard; the local view surely has not
	}
	g.log.Info("group adopted")
}

// running makes a task's status Running.
func (g *group) running(i int, p runtime.Process) {
	g.rec.Tasks[i].Phase = phaseStarted
	g.facts[i] = fact{running: true, process: p}
	g.status(i, func(s *kernel.Status) {
		s.State, s.Reason, s.Message = kernel.Running, kernel.ReasonNone, ""
		s.PID, s.Started = p.PID, p.Started.UTC()
		s.Health = make([]kernel.Health, len(g.rec.Spec.Tasks[i].Checks))
	})
}

// watch waits for the first reason to end the group. Nil means that ctx ended.
func (g *group) watch(ctx, stopping context.Context, fresh bool) *ending {
	cctx, cancel := context.WithCancel(stopping)
	defer cancel()
	g.check(cctx, fresh)
	var again sizing
	defer again.end()
	for {
		if e := g.collect(); e != nil {
			return e
		}
		again.run(ctx, g)
		select {
		case <-again.due():
			again.end()
		case <-stopping.Done():
			return endingOf(ctx, stopping)
		case <-g.wake:
		case r := <-g.results:
			t := &g.rec.Tasks[r.task].Status
			h, tell := nextHealth(&g.rec.Spec.Tasks[r.task].Checks[r.check], t.Health[r.check], t.Started, r.outcome)
			t.Health[r.check] = h
			if tell {
				g.status(r.task, func(*kernel.Status) {})
				g.commit(ctx)
			}
		}
	}
}

// endingOf is why stopping ended, nil if it is because ctx did.
func endingOf(ctx, stopping context.Context) *ending {
	if ctx.Err() != nil {
		return nil
	}
	if e, ok := errors.AsType[*ending](context.Cause(stopping)); ok {
		return e
	}
	return nil
}

// collect takes exits out of the mailbox and answers with the first end there was.
func (g *group) collect() *ending {
	g.mu.Lock()
	defer g.mu.Unlock()
	var e *ending
	for i, id := range g.containers {
		f := &g.facts[i]
		if !f.running {
			continue
		}
		if x, ok := g.exits[id]; ok {
			if x.Code != 0 && g.rec.Spec.Claim != nil {
				x.Said = g.a.lastWords(g.rec.Tasks[i].Status.Task)
			}
			f.running, f.exit = false, &x
		} else if g.gone[id] {
			f.running, f.gone = false, true
		} else {
			continue
		}
		if e == nil {
			e = endedBy(&g.rec, i, *f)
		}
	}
	return e
}

// start makes the group run, or says why it does not. What it made is left for finish.
func (g *group) start(ctx context.Context) *ending {
	if e := g.prepare(ctx); e != nil {
		return e
	}
	if err := g.a.starts.take(ctx); err != nil {
		return g.failed(ctx, all, err)
	}
	defer g.a.starts.give()
	if err := g.a.room(); err != nil {
		return g.failed(ctx, all, err)
	}
	resumed := g.rec.Tasks[0].Phase != phaseNone
	if !resumed {
		for i := range g.rec.Tasks {
			g.rec.Tasks[i].Phase = phaseCreated
			g.status(i, func(s *kernel.Status) { s.State = kernel.Starting })
		}
		if !g.save(ctx) { // the intent, before anything is made
			return g.failed(ctx, all, ctx.Err())
		}
		g.publish()
	}
	places, e := g.place(ctx)
	if e != nil {
		return e
	}
	if e := g.create(ctx, places, resumed); e != nil {
		return e
	}
	for i := range g.rec.Tasks {
		if g.facts[i].running {
			continue
		}
		p, err := call(ctx, g.a, func(ctx context.Context) (runtime.Process, error) { return g.a.rt.Start(ctx, g.containers[i]) })
		if err != nil {
			return g.failed(ctx, i, fmt.Errorf("container could not be started: %w", err))
		}
		g.facts[i] = fact{running: true, process: p}
	}
	for i := range g.rec.Tasks {
		g.running(i, g.facts[i].process)
	}
	g.commit(ctx)
	g.log.Info("group runs", "tasks", len(g.tasks))
	return nil
}

// prepare does what can be done before the group counts as started: it looks at the spec and fetches the images.
func (g *group) prepare(ctx context.Context) *ending {
	if g.rec.Group.Goal == kernel.GoalStop {
		return &ending{State: kernel.Killed, Reason: kernel.ReasonKilled, Why: orWhy(g.rec.Group.Why, "stopped before it was started"), Task: all}
	}
	for i, t := range g.tasks {
		if !safeName(t) {
			return &ending{State: kernel.Error, Reason: kernel.ReasonRuntime, Task: i,
				Why: fmt.Sprintf("task id %.40q cannot name a folder: use at most %d letters, digits and ._-~@+=", t, maxName)}
		}
		if _, err := container(&g.rec, i, place{lent: g.a.cfg.HostVolumes}); err != nil {
			return &ending{State: kernel.Error, Reason: kernel.ReasonRuntime, Why: err.Error(), Task: i}
		}
	}
	if g.idsErr != nil {
		return g.failed(ctx, all, g.idsErr)
	}
	if err := g.a.room(); err != nil {
		return g.failed(ctx, all, err)
	}
	if e := g.fetchSecrets(ctx); e != nil {
		return e
	}
	for i := range g.rec.Spec.Tasks {
		t := &g.rec.Spec.Tasks[i]
		if t.Image == "" {
			continue
		}
		if err := g.pull(ctx, t); err != nil {
			e := g.failed(ctx, i, err)
			if e.State != kernel.Killed {
				e.Reason = kernel.ReasonImage
			}
			return e
		}
	}
	return nil
}

func (g *group) pull(ctx context.Context, t *kernel.TaskSpec) error {
	if err := g.a.pulls.take(ctx); err != nil {
		return err
	}
	defer g.a.pulls.give()
	ctx, cancel := context.WithTimeout(ctx, g.a.cfg.PullTimeout)
	defer cancel()
	err := g.a.rt.Pull(ctx, t.Image, t.Pull)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("image %s: neither the datacenter's store nor its registry has it: %w", t.Image, err)
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", t.Image, err)
	}
	return nil
}

// place makes the group's folders and connects it.
func (g *group) place(ctx context.Context) ([]place, *ending) {
	volumes, e := g.mountVolumes(ctx)
	if e != nil {
		return nil, e
	}
	if e := g.placeFiles(ctx); e != nil {
		return nil, e
	}
	att := attachment(&g.rec, g.ids)
	netns, err := call(ctx, g.a, func(ctx context.Context) (string, error) {
		if att.Mode == kernel.NetworkHost {
			return "", g.a.network.Hold(ctx, att)
		}
		return g.a.network.Attach(ctx, att)
	})
	if err != nil {
		e := g.failed(ctx, all, err)
		if errdefs.IsAlreadyExists(err) && e.State != kernel.Killed {
			e.Reason = kernel.ReasonPort
		}
		return nil, e
	}
	out := make([]place, len(g.tasks))
	for i, t := range g.tasks {
		if out[i], err = g.a.makePlace(&g.rec, i); err != nil {
			return nil, g.failed(ctx, i, fmt.Errorf("sandbox of task %s: %w", t, err))
		}
		out[i].netns, out[i].volumes, out[i].ids = netns, volumes, g.ids
		if att.IDs != nil {
			out[i].userns = kernel.UserNamespace(netns)
		}
		out[i].secrets = g.filesAt()
		if out[i].bundles, err = g.a.bundles(g.rec.Spec.Tasks[i].Bundles); err != nil {
			return nil, g.failed(ctx, i, err)
		}
	}
	return out, nil
}

func (g *group) create(ctx context.Context, places []place, resumed bool) *ending {
	for i := range g.rec.Tasks {
		if g.facts[i].running {
			continue
		}
		c, err := container(&g.rec, i, places[i])
		if err != nil {
			return g.failed(ctx, i, err)
		}
		_, err = call(ctx, g.a, func(ctx context.Context) (struct{}, error) {
			if resumed { // a container that was made and never started
				if err := g.a.rt.Remove(ctx, c.ID); err != nil {
					return struct{}{}, err
				}
			}
			return struct{}{}, g.a.rt.Create(ctx, c)
		})
		if err != nil {
			return g.failed(ctx, i, fmt.Errorf("container could not be made: %w", err))
		}
	}
	return nil
}

// failed is the end of a group that could not be started because of err; all that is reported is the first such cause, and
// a group that was told to stop meanwhile just stops.
func (g *group) failed(ctx context.Context, task int, err error) *ending {
	if e, ok := errors.AsType[*ending](context.Cause(ctx)); ok {
		return e
	}
	e := &ending{State: kernel.Failed, Reason: kernel.ReasonRuntime, Why: err.Error(), Task: task}
	switch {
	case errdefs.IsInvalidArgument(err):
		e.State = kernel.Error
	case errdefs.IsResourceExhausted(err):
		e.Reason = kernel.ReasonDisk
	}
	return e
}

// call bounds one call to the runtime or the network.
func call[T any](ctx context.Context, a *Agent, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
	defer cancel()
	return f(ctx)
}

func orWhy(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
