package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/kernel"
)

// sizing has an instance's containers follow the sizes the master says. It is owned by the instance's run.
type sizing struct {
	timer *time.Timer // until the next attempt, after one that failed
	wait  time.Duration
}

// due fires when an attempt that failed is to be made again.
func (s *sizing) due() <-chan time.Time {
	if s.timer == nil {
		return nil
	}
	return s.timer.C
}

func (s *sizing) end() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// run makes new sizes durable, and then the containers' limits; what a container cannot have yet, such as less memory
// than it uses, is tried again.
func (s *sizing) run(ctx context.Context, g *instance) {
	want := g.takeSizes()
	if want != nil && !slices.Equal(*want, g.rec.Assignment.Sizes) {
		g.rec.Assignment.Sizes = *want
		if !g.save(ctx) {
			return
		}
		g.a.mu.Lock()
		g.sizes = *want
		g.a.mu.Unlock()
		g.log.Info("group has another size")
		g.pending = true
		s.wait = retry.First
		s.end()
	}
	if !g.pending || s.timer != nil {
		return
	}
	if err := g.applySizes(ctx); err != nil && ctx.Err() == nil {
		s.wait = min(max(2*s.wait, retry.First), retry.Last)
		g.log.Warn("group cannot have its size yet, trying again", "err", err)
		s.timer = time.NewTimer(s.wait)
		return
	}
	g.pending = false
}

// applySizes gives the containers their limits, and nodes the word of it.
func (g *instance) applySizes(ctx context.Context) error {
	var errs []error
	for i := range g.rec.Tasks {
		if !g.facts[i].running {
			continue
		}
		err := g.a.rt.Update(ctx, g.containers[i], limitsOf(&g.rec, i))
		if err == nil && g.spec.Tasks[i].Class == kernel.ClassNode {
			err = writeNode(g.a.dir.Root, &g.rec, i)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("task %s: %w", g.tasks[i], err))
		}
	}
	return errors.Join(errs...)
}
