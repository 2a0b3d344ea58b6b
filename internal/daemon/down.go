package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// Down stops everything of the datacenter on this machine: daemon, agent, tasks with their grace, containerd, network. The
// state stays. It works whatever is left of a datacenter, and again.
func Down(ctx context.Context, cfg Config, progress io.Writer) error {
	return take(ctx, cfg, progress, func(ctx context.Context, s *site, m *machine) error { return m.runtime.Down(ctx) })
}

// Clean is Down, and removes the state folder and all the runtime had.
func Clean(ctx context.Context, cfg Config, progress io.Writer) error {
	return take(ctx, cfg, progress, func(ctx context.Context, s *site, m *machine) error {
		if m != nil {
			if err := m.runtime.RemoveAll(ctx); err != nil {
				return err
			}
		}
		fmt.Fprintln(progress, "removing", s.State)
		return os.RemoveAll(s.State)
	})
}

// takeDown bounds Down as a whole.
const takeDown = 3 * time.Minute

// take ends the processes, the tasks and the network, and has last do the rest; m is nil if no datacenter was started here.
func take(ctx context.Context, cfg Config, progress io.Writer, last func(context.Context, *site, *machine) error) error {
	s, err := cfg.complete()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, takeDown, errors.New("taking the datacenter down took too long"))
	defer cancel()
	for _, p := range []struct{ name, pidFile string }{{"daemon", s.daemonPID()}, {"agent", s.agentPID()}} {
		if pid := alive(p.pidFile); pid != 0 {
			fmt.Fprintln(progress, "stopping the", p.name)
			if err := end(ctx, pid, 20*time.Second); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat(s.datacenterFile()); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(progress, "no datacenter was started in", s.State)
		return last(ctx, s, nil)
	}
	m, err := s.machine(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	fmt.Fprintln(progress, "stopping tasks")
	if err := m.drain(ctx); err != nil {
		return err
	}
	fmt.Fprintln(progress, "stopping the container runtime and the network")
	if err := m.network.Cleanup(ctx); err != nil {
		return err
	}
	return last(ctx, s, m)
}

// drain has an agent of our own end every task, those it does not know included.
func (m *machine) drain(ctx context.Context) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	g, running := errgroup.WithContext(running)
	m.begin(running, g)
	g.Go(func() error { return ended(running, m.agent.Run(running)) })
	g.Go(func() error {
		defer stop()
		if err := m.agent.Drain(running); err != nil {
			return fmt.Errorf("tasks: %w", err)
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
