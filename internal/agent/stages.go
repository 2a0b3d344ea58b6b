package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/agent/volume"
	"github.com/marinaos/marina/internal/kernel"
)

// admission refuses what cannot run on this machine, before anything is fetched for it.
type admission struct{ kept }

func (admission) Prepare(_ context.Context, g *instance) error {
	if g.rec.Assignment.Goal == kernel.GoalStop {
		return &ending{State: kernel.Killed, Reason: kernel.ReasonKilled,
			Why: cmp.Or(g.rec.Assignment.Why, "stopped before it was started"), Task: all}
	}
	for i, t := range g.tasks {
		if !naming.IsTask(t) {
			return &ending{State: kernel.Error, Reason: kernel.ReasonRuntime, Task: i,
				Why: fmt.Sprintf("task id %.40q cannot name a directory: use at most %d letters, digits and ._-~@+=", t,
					naming.MaxTask)}
		}
		if _, err := container(&g.rec, i, place{lent: g.a.cfg.HostVolumes}); err != nil {
			return &ending{State: kernel.Error, Reason: kernel.ReasonRuntime, Why: err.Error(), Task: i}
		}
	}
	if g.idsErr != nil {
		return g.idsErr
	}
	return g.a.diskFree()
}

// secrets fetches the contents of the instance's secrets.
type secrets struct{ kept }

func (secrets) Prepare(ctx context.Context, g *instance) (err error) {
	g.given.secrets, err = g.a.files.Fetch(ctx, g.owner())
	return err
}

// images pulls what the tasks run.
type images struct{ kept }

func (images) Prepare(ctx context.Context, g *instance) error {
	for i := range g.rec.Spec.Tasks {
		t := &g.rec.Spec.Tasks[i]
		if t.Image == "" {
			continue
		}
		if err := pull(ctx, g.a, t); err != nil {
			return &failure{i, kernel.ReasonImage, err}
		}
	}
	return nil
}

func pull(ctx context.Context, a *Agent, t *kernel.TaskSpec) error {
	if err := a.pulls.Take(ctx); err != nil {
		return err
	}
	defer a.pulls.Give()
	ctx, cancel := context.WithTimeout(ctx, a.cfg.PullTimeout)
	defer cancel()
	err := a.rt.Pull(ctx, t.Image, t.Pull)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("image %s: neither the datacenter's store nor its registry has it: %w", t.Image, err)
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", t.Image, err)
	}
	return nil
}

// volumes mounts those of the instance's claim. Their content stays when they are unmounted.
type volumes struct{}

func (volumes) Prepare(ctx context.Context, g *instance) (err error) {
	if g.spec.Reservation == nil {
		return nil
	}
	g.given.volumes, err = g.a.claims.Mount(ctx, g.claim, g.spec.Reservation.Volumes)
	if m, ok := errors.AsType[*volume.MountError](err); ok {
		return &failure{task: g.mounts(m.Volume), err: m}
	}
	return err
}

func (volumes) Undo(ctx context.Context, g *instance) error {
	if g.claim == "" {
		return nil
	}
	return g.a.claims.Unmount(ctx, g.claim)
}

// files puts the files of the instance's tasks in memory.
type files struct{}

func (files) Prepare(ctx context.Context, g *instance) error {
	err := g.a.files.Place(ctx, g.owner(), g.given.secrets)
	g.given.secrets = nil
	if err != nil {
		return fmt.Errorf("files of the group: %w", err)
	}
	return nil
}

func (files) Undo(ctx context.Context, g *instance) error { return g.a.files.Drop(ctx, g.owner()) }

// connection connects the instance to the network, or holds its host ports.
type connection struct{}

func (connection) Prepare(ctx context.Context, g *instance) (err error) {
	att := attachment(&g.rec, g.ids)
	if att.Mode == kernel.NetworkHost {
		err = g.a.network.OpenPorts(ctx, att)
	} else {
		g.given.netns, err = g.a.network.Attach(ctx, att)
	}
	if errdefs.IsAlreadyExists(err) {
		return &failure{all, kernel.ReasonPort, err}
	}
	return err
}

func (connection) Undo(ctx context.Context, g *instance) error { return g.a.network.Detach(ctx, g.id) }

// sandboxes makes the tasks' directories, and the files that tell the instance where it is. Sandboxes stay, for people
// to read.
type sandboxes struct{}

func (sandboxes) Prepare(_ context.Context, g *instance) error {
	g.given.places = make([]place, len(g.tasks))
	for i, t := range g.tasks {
		w, err := g.makePlace(i)
		if err != nil {
			return &failure{task: i, err: fmt.Errorf("sandbox of task %s: %w", t, err)}
		}
		if w.bundles, err = g.a.bundles(g.rec.Spec.Tasks[i].Bundles); err != nil {
			return &failure{task: i, err: err}
		}
		g.given.places[i] = w
	}
	return nil
}

func (sandboxes) Undo(_ context.Context, g *instance) error {
	g.leavePlace()
	return nil
}

// containers makes them; they are started together, when all are there.
type containers struct{}

func (containers) Prepare(ctx context.Context, g *instance) error {
	for i := range g.rec.Tasks {
		if g.facts[i].running {
			continue
		}
		c, err := container(&g.rec, i, g.given.places[i])
		if err != nil {
			return &failure{task: i, err: err}
		}
		if g.resumed { // a container that was made and never started
			err = g.a.rt.Remove(ctx, c.ID)
		}
		if err == nil {
			err = g.a.rt.Create(ctx, c)
		}
		if err != nil {
			return &failure{task: i, err: fmt.Errorf("container could not be made: %w", err)}
		}
	}
	return nil
}

func (containers) Undo(ctx context.Context, g *instance) error {
	var errs []error
	for _, c := range g.containers {
		errs = append(errs, g.a.rt.Remove(ctx, c))
	}
	return errors.Join(errs...)
}
