package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/agent/sandbox"
	"github.com/marinaos/marina/internal/agent/secret"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/runtime"
)

// keeper does what must be done now and then: it compares what runs with what should, and keeps disks, outputs and
// secrets in order.
type keeper struct{ a *Agent }

// begin has it all done until ctx ends.
func (k keeper) begin(ctx context.Context, eg *errgroup.Group) {
	eg.Go(func() error { return k.dispatch(ctx) })
	eg.Go(func() error { return k.reconcile(ctx) })
	for _, c := range []struct {
		interval time.Duration
		do       func(context.Context) error
	}{
		{k.a.cfg.LogInterval, k.rotate},
		{k.a.cfg.DiskInterval, k.measure},
		{k.a.cfg.DiskInterval, k.collect},
		{k.a.cfg.SecretsEvery, k.refreshSecrets},
		{k.a.cfg.BundleInterval, k.watchBundles},
	} {
		eg.Go(func() error {
			retry.Every(ctx, c.interval, c.do, func(err error) { k.a.log.Warn("housekeeping", "err", err) })
			return nil
		})
	}
}

// dispatch hands exits to the instances they concern.
func (k keeper) dispatch(ctx context.Context) error {
	for e := range k.a.rt.Exits(ctx) {
		k.a.mu.Lock()
		g := k.a.owners[e.ID]
		k.a.mu.Unlock()
		if g != nil {
			g.exited(e)
		}
	}
	if ctx.Err() == nil {
		return fmt.Errorf("runtime reports no more exits: %w", errdefs.ErrUnavailable)
	}
	return nil
}

// reconcile compares what runs with what should, now and then: an exit that was missed is found, a container that
// vanished too, and one that nobody asked for is removed.
func (k keeper) reconcile(ctx context.Context) error {
	for {
		t := time.NewTimer(k.a.cfg.Reconcile)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-k.a.recon:
			t.Stop()
		case <-t.C:
		}
		if err := k.compare(ctx); err != nil && ctx.Err() == nil {
			k.a.log.Warn("runtime cannot be compared", "err", err)
		}
	}
}

func (k keeper) compare(ctx context.Context) error {
	expected := map[string]*instance{}
	for _, s := range k.a.tasks(true) { // before the listing: one that starts meanwhile is not missed
		expected[s.Container] = s.group
	}
	found, err := k.a.rt.Containers(ctx)
	if err != nil {
		return err
	}
	var unknown []runtime.Found
	k.a.mu.Lock()
	for _, f := range found {
		g := k.a.owners[f.ID]
		if g == nil && k.a.synced {
			unknown = append(unknown, f)
		}
		if g != nil && f.Exit != nil {
			g.exited(*f.Exit)
		}
		delete(expected, f.ID)
	}
	for id, g := range expected {
		g.vanished(id)
	}
	synced := k.a.synced
	k.a.mu.Unlock()
	var errs []error
	for _, f := range unknown {
		k.a.log.Warn("container that nobody asked for is removed", "container", f.ID, "group", f.Labels[runtime.LabelGroup])
		errs = append(errs, k.a.rt.Remove(ctx, f.ID))
	}
	if synced {
		errs = append(errs, k.detachUnknown(ctx), k.a.claims.UnmountUnknown(ctx), k.a.files.DropUnknown(ctx, k.known()))
	}
	return errors.Join(errs...)
}

// detachUnknown disconnects instances that are attached and not there.
func (k keeper) detachUnknown(ctx context.Context) error {
	attached, err := k.a.network.Attached(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range attached {
		k.a.mu.Lock()
		known := k.a.instances[id] != nil
		k.a.mu.Unlock()
		if !known {
			errs = append(errs, k.a.network.Detach(ctx, id))
		}
	}
	return errors.Join(errs...)
}

// known tells which instances are here by the names of their files, from when it is first asked.
func (k keeper) known() func(name string) bool {
	names := sync.OnceValue(func() map[string]bool {
		k.a.mu.Lock()
		defer k.a.mu.Unlock()
		out := make(map[string]bool, len(k.a.instances))
		for id := range k.a.instances {
			out[naming.Instance(id)] = true
		}
		return out
	})
	return func(name string) bool { return names()[name] }
}

// measure ends tasks that use more disk than they may.
func (k keeper) measure(ctx context.Context) error {
	for id, s := range k.a.tasks(true) {
		if s.Status.State != kernel.Running {
			continue
		}
		size := k.a.sizeOf(s)
		bound := limit(size.Guarantee.Disk, size.Limit.Disk)
		if bound <= 0 {
			bound = k.a.cfg.DiskDefault // nobody fills the machine's disk unasked: the datacenter's state is on it too
		}
		if bound <= 0 {
			continue
		}
		sandboxed, err := k.a.sandboxes.Usage(id)
		if err != nil {
			continue // it ended meanwhile
		}
		if sandboxed.Files >= sandbox.MaxFiles {
			s.group.stop(&ending{State: kernel.Failed, Reason: kernel.ReasonDisk, Task: s.index,
				Why: fmt.Sprintf("has %d files or more in its sandbox, the limit", sandbox.MaxFiles)})
		}
		used := sandboxed.Bytes
		if layer, err := k.a.rt.Layer(ctx, s.Container); err == nil {
			used += layer
		}
		if used > bound {
			s.group.stop(&ending{State: kernel.Failed, Reason: kernel.ReasonDisk, Task: s.index,
				Why: fmt.Sprintf("uses %s of disk, its limit is %s", kernel.FormatBytes(used), kernel.FormatBytes(bound))})
		}
	}
	return nil
}

// rotate looks at the outputs of everything that runs.
func (k keeper) rotate(context.Context) error {
	var errs []error
	for t := range k.a.tasks(true) {
		for _, name := range []string{"stdout", "stderr"} {
			err := k.a.sandboxes.Rotate(t, name, k.a.cfg.LogLimit, k.a.cfg.LogKeep)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("%s of task %s: %w", name, t, err))
			}
		}
	}
	return errors.Join(errs...)
}

// collect removes the sandboxes of ended tasks that are old, too many or in the way.
func (k keeper) collect(context.Context) error {
	free, _, err := machine.FreeDisk(k.a.dir.Path)
	if err != nil {
		return err
	}
	live := map[kernel.TaskID]bool{}
	for t := range k.a.tasks(false) {
		live[t] = true
	}
	limits := sandbox.Limits{Age: k.a.cfg.SandboxAge, Count: k.a.cfg.SandboxCount, Free: k.a.cfg.SandboxFree}
	removed, err := k.a.sandboxes.Collect(live, limits, free)
	for _, name := range removed {
		k.a.log.Info("sandbox collected", "task", name)
	}
	return err
}

// refreshSecrets looks for newer contents of the secrets of everything that runs.
func (k keeper) refreshSecrets(ctx context.Context) error {
	var running []secret.Instance
	for _, s := range k.a.tasks(true) {
		if s.index == 0 && s.Status.State == kernel.Running && len(secret.Refs(s.group.spec)) > 0 {
			running = append(running, s.group.owner())
		}
	}
	var errs []error
	for _, g := range running {
		errs = append(errs, k.a.files.Refresh(ctx, g))
	}
	return errors.Join(errs...)
}

// watchBundles ends the session when the machine has other bundles than it was registered with: the next begins with
// those.
func (k keeper) watchBundles(context.Context) error {
	k.a.renewUnless(k.a.cfg.BundleVersions())
	return nil
}
