package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/agent/endpoint"
	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/kernel"
)

const settleTimeout = 2 * time.Second // for the network to stop sending new connections

// finish ends the instance for the reason in the record, and makes the verdict on every task durable. It leaves what is
// left of the instance to clean. If ctx ends first, the next agent goes on.
func (g *instance) finish(ctx context.Context) {
	for _, t := range g.tasks {
		g.a.ends.SetLocal(t, endpoint.View{})
	}
	g.collect()
	if g.alive() {
		g.kill(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	for i := range g.rec.Tasks {
		if g.rec.Tasks[i].Status.State.Terminal() {
			continue
		}
		v := verdict(&g.rec, i, g.facts[i])
		g.rec.Tasks[i].Phase = phaseEnded
		g.status(i, func(s *kernel.Status) { *s = v })
	}
	g.save(ctx)
}

func (g *instance) alive() bool {
	for i := range g.facts {
		if g.facts[i].running {
			return true
		}
	}
	return false
}

// kill ends what runs: no new connections, a moment to notice, TERM, the task's grace, KILL.
func (g *instance) kill(ctx context.Context) {
	for i := range g.rec.Tasks {
		if g.facts[i].running && g.rec.Tasks[i].Status.State == kernel.Running {
			g.status(i, func(s *kernel.Status) {
				s.State, s.Reason, s.Message = kernel.Killing, g.rec.Ending.Reason, g.rec.Ending.Why
			})
		}
	}
	g.commit(ctx)
	if reachable(g.spec) {
		sctx, cancel := context.WithTimeout(ctx, settleTimeout)
		g.a.ends.Settle(sctx)
		cancel()
		g.waitExits(ctx, time.Now().Add(g.a.cfg.Drain))
	}
	g.signal(ctx, unix.SIGTERM, func(int) bool { return true })
	began := time.Now()
	for g.alive() && ctx.Err() == nil {
		next, ok := g.nextGrace(began)
		if !ok {
			break
		}
		g.waitExits(ctx, next)
		g.signal(ctx, unix.SIGKILL, func(i int) bool { return !time.Now().Before(began.Add(g.grace(i))) })
	}
	g.waitExits(ctx, time.Now().Add(g.a.cfg.Stuck))
	if g.alive() && ctx.Err() == nil {
		g.insist(ctx)
	}
}

func (g *instance) grace(i int) time.Duration {
	return cmp.Or(g.spec.Tasks[i].KillGrace, kernel.DefaultKillGrace)
}

// nextGrace returns the time at which the next task's grace is over, if there is one whose is not.
func (g *instance) nextGrace(began time.Time) (next time.Time, ok bool) {
	now := time.Now()
	for i := range g.facts {
		if t := began.Add(g.grace(i)); g.facts[i].running && t.After(now) && (!ok || t.Before(next)) {
			next, ok = t, true
		}
	}
	return next, ok
}

func (g *instance) signal(ctx context.Context, sig unix.Signal, which func(int) bool) {
	for i := range g.facts {
		if !g.facts[i].running || !which(i) {
			continue
		}
		if err := g.a.rt.Signal(ctx, g.containers[i], int(sig)); err != nil && ctx.Err() == nil {
			g.log.Warn("signal not delivered", "task", g.tasks[i], "signal", sig.String(), "err", err)
		}
	}
}

// waitExits waits until nothing runs any more, but not longer than until.
func (g *instance) waitExits(ctx context.Context, until time.Time) {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	for g.collect(); g.alive(); g.collect() {
		select {
		case <-g.wake:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// insist deals with tasks that KILL did not end: it says so, and goes on removing them until they are gone.
func (g *instance) insist(ctx context.Context) {
	for i := range g.facts {
		if g.facts[i].running {
			g.log.Error("task does not end after KILL", "task", g.tasks[i], "pid", g.rec.Tasks[i].Status.PID)
			g.status(i, func(s *kernel.Status) { s.Message = fmt.Sprintf("stuck: it does not end after KILL (pid %d)", s.PID) })
		}
	}
	g.commit(ctx)
	g.insistently(ctx, "task cannot be ended, trying again", func() error {
		var errs []error
		for i := range g.facts {
			if g.collect(); !g.facts[i].running {
				continue
			}
			err := g.a.rt.Remove(ctx, g.containers[i])
			if g.facts[i].running = err != nil; err != nil {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
}

// insistently does something until it works or ctx ends, and reports which.
func (g *instance) insistently(ctx context.Context, message string, f func() error) bool {
	return retry.Until(ctx, retry.Last, f, func(err error) { g.log.Error(message, "err", err) })
}

// clean removes what is left of an instance whose end is durable, and then tells the end: who hears of it may give the
// instance's address and ports away.
func (g *instance) clean(ctx context.Context) bool {
	if !g.insistently(ctx, "what is left of the group cannot be removed, trying again",
		func() error { return g.undo(ctx) }) {
		return false
	}
	g.publish()
	g.log.Info("group ended")
	return true
}

// awaitAcks keeps the instance's statuses until the master has them for good, then drops the checkpoint.
func (g *instance) awaitAcks(ctx context.Context) bool {
	for !g.settled(g.rec.Tasks) {
		select {
		case <-g.wake:
		case <-ctx.Done():
			return false
		}
	}
	if err := g.a.dir.Remove(checkpointFile(g.id)); err != nil {
		g.log.Warn("checkpoint not dropped", "err", err) // it is handled like one of a crash
	}
	return true
}

// waitEnd waits until nothing is left of the instance, or ctx ends.
func (g *instance) waitEnd(ctx context.Context) error {
	select {
	case <-g.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
