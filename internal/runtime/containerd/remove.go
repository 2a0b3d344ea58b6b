package containerd

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
)

// ErrStuck is the kind of error for a container whose shim or process does not answer or does not die. It is an
// errdefs.ErrUnavailable, and no other container is affected.
var ErrStuck = fmt.Errorf("stuck: %w", errdefs.ErrUnavailable)

// stuck marks the error of a call that used up its time, while its caller, whose context is ctx, would have waited on.
func stuck(ctx context.Context, id, what string, err error) error {
	if ctx.Err() == nil && (errors.Is(err, context.DeadlineExceeded) || errdefs.IsDeadlineExceeded(err)) {
		return fmt.Errorf("container %s: %s: its process or shim hangs: %w", id, what, ErrStuck)
	}
	return fmt.Errorf("container %s: %s: %w", id, what, err)
}

// Remove kills what still runs of a container and removes it with its filesystem, cgroup and mounts. ErrStuck if it
// does not die; it can be tried again.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	call, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	if err := r.Ready(call); err != nil {
		return err
	}
	if err := r.remove(call, containerID(id)); err != nil {
		return stuck(ctx, id, "remove", err)
	}
	return nil
}

func (r *Runtime) remove(ctx context.Context, id string) error {
	c, err := r.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return r.removeParts(ctx, id)
	}
	if err != nil {
		return err
	}
	labels, err := c.Labels(ctx)
	if err != nil {
		return err
	}
	cgroup := labels[labelCgroup]
	ours := r.cgroups.Has(cgroup)
	if err := r.removeTask(ctx, c); err != nil {
		if ours {
			_, kerr := r.cgroups.Group(cgroup).Signal(0, unix.SIGKILL) // whoever hangs, the task is not to go on
			err = errors.Join(err, kerr)
		}
		return err
	}
	if ours {
		if err := r.cgroups.Remove(ctx, cgroup); err != nil {
			return err
		}
		if err := r.cgroups.Prune(cgroup); err != nil {
			return err
		}
	}
	if err := c.Delete(ctx); err != nil && !errdefs.IsNotFound(err) { // last: without it nobody knows of the rest
		return err
	}
	return r.removeParts(ctx, id)
}

// removeTask kills and removes a container's process. If containerd ended while it was being made there is no task, but
// there may be a shim, and a process of runc that waits for good.
func (r *Runtime) removeTask(ctx context.Context, c containerd.Container) error {
	t, err := c.Task(ctx, nil)
	if err == nil {
		_, err = t.Delete(ctx, containerd.WithProcessKill)
	}
	if !errdefs.IsNotFound(err) {
		return err
	}
	_, err = r.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: c.ID()})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if err := r.daemon.KillForgotten(ctx, c.ID()); err != nil {
		return err
	}
	root := filepath.Join(r.cfg.runcRoot(), r.cfg.namespace())
	out, err := exec.CommandContext(ctx, r.cfg.runc(), "--root", root, "delete", "--force", c.ID()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("runc delete: %w: %s", err, out)
	}
	return nil
}

// removeParts removes what belongs to a container and may be there without it: an agent can die at any step of Create.
func (r *Runtime) removeParts(ctx context.Context, id string) error {
	if err := r.client.SandboxStore().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	err := r.client.SnapshotService(defaults.DefaultSnapshotter).Remove(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}
