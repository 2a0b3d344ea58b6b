package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/marinaos/marina/internal/kernel"

	"github.com/marinaos/marina/internal/agent/check"
	"github.com/marinaos/marina/internal/agent/endpoint"
	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/runtime"
)

// instance is the life of one instance on this machine. Its goroutine (run) owns the record and the facts; others talk
// to it through the mailbox and stop.
type instance struct {
	a   *Agent
	id  kernel.InstanceID
	log *slog.Logger

	mailbox

	rec     record // owned by run
	facts   []fact // owned by run
	do      verb   // owned by run
	given   given  // owned by run, while it starts
	resumed bool   // its containers may have been made by an attempt that was cut off; owned by run
	pending bool   // sizes are on disk which the containers may not have yet; owned by run

	stop    context.CancelCauseFunc // asks for the end; the cause is an *ending
	over    chan struct{}           // closed when nothing is left of it
	results chan checked            // from the checks
	checks  sync.WaitGroup          // the checks; one that hangs in the container ends with it, so run waits for them last

	// shown is the last status told of each task. Guarded by a.mu.
	shown []kernel.Status
	// sizes is those of rec.Assignment, for others to read. Guarded by a.mu.
	sizes []kernel.Size
	// spec and what follows never change.
	spec       *kernel.Spec
	containers []string
	tasks      []kernel.TaskID
	claim      string          // as kernel.Down.Release names it; "" if it has none
	ids        *kernel.IDRange // its own on the machine, if it has some
	idsErr     error           // why it has not
}

// Error makes an ending the cause of a context's end.
func (e *ending) Error() string { return e.Why }

func (a *Agent) newInstance(p plan, stop context.CancelCauseFunc) *instance {
	g := &instance{a: a, id: p.rec.Assignment.ID, log: a.log.With("group", p.rec.Assignment.ID), rec: p.rec,
		facts: p.facts, do: p.do,
		stop: stop, over: make(chan struct{}), results: make(chan checked), spec: &p.rec.Spec,
		sizes: p.rec.Assignment.Sizes, pending: len(p.rec.Assignment.Sizes) > 0, mailbox: newMailbox()}
	if c := p.rec.Spec.Reservation; c != nil {
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

// run lives the instance's life. It returns when the instance is ended and acknowledged, or, with the tasks left as
// they are, when ctx ends; stopping is a context below ctx that ends when the instance is to end.
func (g *instance) run(ctx, stopping context.Context) {
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
	g.a.claims.Look()
	if g.awaitAcks(ctx) {
		g.a.ended(g)
	}
}

// status changes one task's status: Seq rises, Time is now. It counts once commit has returned.
func (g *instance) status(i int, change func(*kernel.Status)) {
	s := &g.rec.Tasks[i].Status
	change(s)
	s.Seq++
	s.Time = time.Now().UTC()
}

// lastSave is the longest wait between attempts to write a checkpoint.
const lastSave = 5 * time.Second

// save writes the record, again and again until it is on disk or ctx ends: what is not durable is not told to anyone.
func (g *instance) save(ctx context.Context) bool {
	return retry.Until(ctx, lastSave, func() error { return g.a.dir.Save(checkpointFile(g.id), &g.rec) }, func(err error) {
		g.log.Error("checkpoint cannot be written, trying again", "err", err)
	})
}

// commit makes the statuses durable and then tells them.
func (g *instance) commit(ctx context.Context) {
	if g.save(ctx) {
		g.publish()
	}
}

func (g *instance) publish() {
	now := make([]kernel.Status, len(g.rec.Tasks))
	for i := range g.rec.Tasks {
		now[i] = g.rec.Tasks[i].Status
		now[i].Health = append([]kernel.Health(nil), now[i].Health...)
		g.a.ends.SetLocal(now[i].Task, endpoint.ViewOf(&now[i]))
	}
	g.a.show(g, now)
}

// adopt goes on with tasks that an earlier agent started. What it did not get to say is said now.
func (g *instance) adopt(ctx context.Context) {
	changed := false
	for i := range g.rec.Tasks {
		t := &g.rec.Tasks[i]
		if t.Phase != phaseStarted || t.Status.State != kernel.Running ||
			len(t.Status.Health) != len(g.spec.Tasks[i].Checks) {
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
func (g *instance) running(i int, p runtime.Process) {
	g.rec.Tasks[i].Phase = phaseStarted
	g.facts[i] = fact{running: true, process: p}
	g.status(i, func(s *kernel.Status) {
		s.State, s.Reason, s.Message = kernel.Running, kernel.ReasonNone, ""
		s.PID, s.Started = p.PID, p.Started.UTC()
		s.Health = make([]kernel.Health, len(g.rec.Spec.Tasks[i].Checks))
	})
}

// watch waits for the first reason to end the instance. Nil means that ctx ended.
func (g *instance) watch(ctx, stopping context.Context, fresh bool) *ending {
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
			h, tell := check.Next(&g.rec.Spec.Tasks[r.task].Checks[r.check], t.Health[r.check], t.Started, r.outcome)
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
func (g *instance) collect() *ending {
	var e *ending
	for i, id := range g.containers {
		f := &g.facts[i]
		if !f.running {
			continue
		}
		switch x, gone := g.fate(id); {
		case x != nil:
			if x.Code != 0 && g.rec.Spec.Reservation != nil {
				x.Said = g.a.sandboxes.LastWords(g.rec.Tasks[i].Status.Task)
			}
			f.running, f.exit = false, x
		case gone:
			f.running, f.gone = false, true
		default:
			continue
		}
		if e == nil {
			e = endedBy(&g.rec, i, *f)
		}
	}
	return e
}
