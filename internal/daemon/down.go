package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/agent"
	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/network"
	"github.com/marinaos/marina/internal/settings"
)

// Down stops everything of the datacenter on this machine: daemon, agent, tasks with their grace, containerd, network.
// The state stays. Tasks that do not end within a minute are killed. It works whatever is left of a datacenter, and
// again.
func Down(ctx context.Context, cfg settings.Datacenter, progress io.Writer) error {
	return take(ctx, cfg, progress, func(ctx context.Context, c *config, m *machine) error {
		if m == nil {
			return nil
		}
		return m.runtime.Down(ctx)
	})
}

// Clean is Down, and removes the state directory and all the runtime had. A directory that no datacenter was started in
// is left as it is: errdefs.ErrFailedPrecondition.
func Clean(ctx context.Context, cfg settings.Datacenter, progress io.Writer) error {
	return take(ctx, cfg, progress, func(ctx context.Context, c *config, m *machine) error {
		if m != nil {
			if err := errors.Join(agent.Unmount(ctx, m.runtime, agent.Config{State: c.path("agent")}),
				m.runtime.RemoveAll(ctx)); err != nil {
				return err
			}
		}
		fmt.Fprintln(progress, "removing", c.State)
		return c.removeState()
	})
}

const (
	takeDown  = 3 * time.Minute // bounds Down and Clean as a whole
	taskGrace = time.Minute     // for tasks to end by themselves
)

// take ends the processes, the tasks and the network, and has last do the rest; m is nil if no datacenter was started
// here. Until it returns, neither a daemon nor an agent can start on the state.
func take(ctx context.Context, cfg settings.Datacenter, progress io.Writer,
	last func(context.Context, *config, *machine) error) error {
	c, err := complete(cfg)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("only root takes a datacenter down: use sudo: %w", errdefs.ErrPermissionDenied)
	}
	if _, err := os.Stat(c.State); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(progress, "no datacenter was started in", c.State)
		return nil
	}
	if err := c.checkState(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, takeDown, errors.New("taking the datacenter down took too long"))
	defer cancel()
	alone, err := lock(ctx, c.path("run", "down.lock"))
	if err != nil {
		return fmt.Errorf("another `marina down` is at work: %w", err)
	}
	defer alone.Close()
	for _, p := range []struct{ name, pidFile string }{{"daemon", c.daemonPID()}, {"agent", c.agentPID()}} {
		if pid := durable.Holder(p.pidFile); pid != 0 {
			fmt.Fprintln(progress, "stopping the", p.name)
			if err := end(ctx, pid, 20*time.Second); err != nil {
				return err
			}
		}
		held, err := lock(ctx, p.pidFile)
		if err != nil {
			return fmt.Errorf("the %s was started again, run this again: %w", p.name, err)
		}
		defer held.Close()
	}
	if _, err := os.Stat(c.datacenterFile()); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(progress, "no datacenter was started in", c.State)
		return last(ctx, c, nil)
	}
	m, err := c.machine(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	fmt.Fprintln(progress, "stopping tasks")
	if err := m.drain(ctx, taskGrace, progress); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	fmt.Fprintln(progress, "stopping the container runtime and the network")
	if err := m.network.Cleanup(ctx); err != nil {
		return err
	}
	// else another datacenter on this machine needs the limits that were raised
	if network.Neighbour(network.BridgeName(c.id)) == "" {
		if err := c.sysctls().Restore(); err != nil {
			return err
		}
	}
	return last(ctx, c, m)
}

// drain has an agent of our own end every task, and kills those that are left after the grace or that it does not know.
func (m *machine) drain(ctx context.Context, grace time.Duration, progress io.Writer) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	g, running := errgroup.WithContext(running)
	m.begin(running, g)
	ag, end := context.WithCancel(running)
	g.Go(func() error { return ended(ag, m.agent.Run(ag)) })
	g.Go(func() error {
		defer stop()
		soft, cancel := context.WithTimeout(running, grace)
		err := m.agent.Drain(soft)
		cancel()
		end()
		if err != nil && running.Err() == nil {
			fmt.Fprintln(progress, "tasks that do not end by themselves are killed:", err)
		}
		left, err := m.runtime.Containers(running)
		if err != nil {
			return fmt.Errorf("containers: %w", err)
		}
		for _, c := range left {
			if err := m.runtime.Remove(running, c.ID); err != nil {
				return fmt.Errorf("container %s: %w", c.ID, err)
			}
		}
		return nil
	})
	return g.Wait()
}
