package agent

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/marinaos/marina/internal/agent/check"
	"github.com/marinaos/marina/internal/kernel"
)

// checked is the outcome of one check of an instance's tasks.
type checked struct {
	task, check int
	outcome     check.Outcome
}

// check runs the checks of the instance's tasks until ctx ends. The checks of tasks that were there before the agent
// are spread over their intervals.
func (g *instance) check(ctx context.Context, fresh bool) {
	for i := range g.spec.Tasks {
		started := g.rec.Tasks[i].Status.Started
		for k := range g.spec.Tasks[i].Checks {
			c := &g.spec.Tasks[i].Checks[k]
			first := max(0, time.Until(started.Add(c.Delay)))
			if fresh {
				first += rand.N(min(c.Interval, check.FirstJitter))
			} else {
				first += rand.N(c.Interval)
			}
			target, port := g.target(i, c)
			var eager time.Time
			if fresh && c.Kind != kernel.CheckCommand {
				eager = started.Add(c.Grace)
			}
			g.checks.Go(func() {
				check.Repeat(ctx, c, first, eager, g.a.checks, func(ctx context.Context) check.Outcome {
					return g.a.prober.Probe(ctx, c, g.containers[i], target, port)
				}, func(o check.Outcome) bool {
					select {
					case g.results <- checked{i, k, o}:
						return true
					case <-ctx.Done():
						return false
					}
				})
			})
		}
	}
}

// target returns the address that a check of a task asks.
func (g *instance) target(task int, c *kernel.Check) (netip.Addr, uint16) {
	addr := address(&g.rec, g.a.cfg.Address)
	if c.PortNumber != 0 || c.Kind == kernel.CheckCommand {
		return addr, c.PortNumber
	}
	ports, host := portsOf(&g.rec, task)
	return addr, inside(g.spec.Network.Mode, ports[c.PortIndex], host[c.PortIndex])
}
