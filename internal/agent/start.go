package agent

import (
	"context"
	"fmt"

	"github.com/marinaos/marina/internal/kernel"
)

// start makes the instance run, or says why it does not. What it made is left for finish and clean.
func (g *instance) start(ctx context.Context) *ending {
	if e := g.prepare(ctx, g.a.fetching); e != nil {
		return e
	}
	if err := g.a.starts.Take(ctx); err != nil {
		return failed(ctx, err)
	}
	defer g.a.starts.Give()
	if err := g.a.diskFree(); err != nil {
		return failed(ctx, err)
	}
	if e := g.intend(ctx); e != nil {
		return e
	}
	if e := g.prepare(ctx, g.a.making); e != nil {
		return e
	}
	if e := g.begin(ctx); e != nil {
		return e
	}
	for i := range g.rec.Tasks {
		g.running(i, g.facts[i].process)
	}
	g.commit(ctx)
	g.log.Info("group runs", "tasks", len(g.tasks))
	return nil
}

// intend puts on disk that containers may exist from now on, unless an attempt that was cut off did.
func (g *instance) intend(ctx context.Context) *ending {
	if g.resumed = g.rec.Tasks[0].Phase != phaseNone; g.resumed {
		return nil
	}
	for i := range g.rec.Tasks {
		g.rec.Tasks[i].Phase = phaseCreated
		g.status(i, func(s *kernel.Status) { s.State = kernel.Starting })
	}
	if !g.save(ctx) {
		return failed(ctx, ctx.Err())
	}
	g.publish()
	return nil
}

// begin starts the processes that do not run yet.
func (g *instance) begin(ctx context.Context) *ending {
	for i := range g.rec.Tasks {
		if g.facts[i].running {
			continue
		}
		p, err := g.a.rt.Start(ctx, g.containers[i])
		if err != nil {
			return failed(ctx, &failure{task: i, err: fmt.Errorf("container could not be started: %w", err)})
		}
		g.facts[i] = fact{running: true, process: p}
	}
	return nil
}

// mounts is the first task that mounts a volume of the reservation, all if none does.
func (g *instance) mounts(volume string) int {
	for i := range g.spec.Tasks {
		for _, v := range g.spec.Tasks[i].Volumes {
			if v.Reserved == volume {
				return i
			}
		}
	}
	return all
}
