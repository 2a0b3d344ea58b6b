package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/runtime"
)

// ErrStuck is the kind of error for a container whose shim or process does not answer or does not die. It is an
// errdefs.ErrUnavailable, and no other container is affected.
var ErrStuck = fmt.Errorf("stuck: %w", errdefs.ErrUnavailable)

// Labels of our containers; what the agent labels them with stands behind labelAgent.
const (
	labelID     = "marina.id"
	labelCgroup = "marina.cgroup"
	labelCPU    = "marina.cpu" // limit, in thousandths of a core
	labelAgent  = "marina.label."
)

const runtimeName = "io.containerd.runc.v2"

// containerID is containerd's id for ours, which is longer and uses more characters than containerd takes.
func containerID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "m" + hex.EncodeToString(sum[:16])
}

// Create makes a container and its first process, stopped before it executes anything. The image must be present.
func (r *Runtime) Create(ctx context.Context, c runtime.Container) error {
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	if err := r.Ready(ctx); err != nil {
		return err
	}
	cgroup, err := r.cgroupOf(&c)
	if err != nil {
		return err
	}
	id := containerID(c.ID)
	end := r.begin(id, path.Dir(cgroup))
	err = r.create(ctx, id, cgroup, &c)
	end()
	if err != nil {
		return fmt.Errorf("container %s: %w", c.ID, errors.Join(err, r.pruneCgroup(cgroup)))
	}
	return nil
}

// begin notes that a container is being made; the returned function ends that.
func (r *Runtime) begin(id, parent string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.making[parent]++
	r.fresh[id] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.making[parent]--; r.making[parent] == 0 {
			delete(r.making, parent)
		}
		delete(r.fresh, id)
	}
}

func (r *Runtime) create(ctx context.Context, id, cgroup string, c *runtime.Container) (err error) {
	image, snapshot, err := r.rootFS(ctx, id, c)
	if err != nil {
		return err
	}
	sysfs := ""
	if c.NetNS != "" && !isNode(c) {
		var undo func() error
		if sysfs, undo, err = prepareNet(c.NetNS, r.cfg.mounts()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, undo()) }()
	}
	spec, err := r.specOpts(c, image, cgroup, sysfs)
	if err != nil {
		return err
	}
	labels := map[string]string{labelID: c.ID, labelCgroup: cgroup}
	if c.CPULimit > 0 {
		labels[labelCPU] = strconv.FormatInt(c.CPULimit, 10)
	}
	for k, v := range c.Labels {
		labels[labelAgent+k] = v
	}
	opts := append(snapshot, containerd.WithContainerLabels(labels),
		containerd.WithRuntime(runtimeName, &options.Options{
			BinaryName: r.cfg.runc(), Root: r.cfg.runcRoot(), NoNewKeyring: true,
		}), containerd.WithNewSpec(spec...))
	made, err := r.client.NewContainer(ctx, id, opts...)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			undo, cancel := r.uncancelled(ctx)
			defer cancel()
			err = errors.Join(err, r.remove(undo, id))
		}
	}()
	// containerd that starts throws away a shim without processes, and with it how they ended, unless it is a sandbox's.
	// This record says so, and nothing else.
	if _, err := r.client.SandboxStore().Create(ctx, sandbox.Sandbox{ID: id, Runtime: sandbox.RuntimeOpts{Name: runtimeName}}); err != nil {
		return err
	}
	if _, err = made.NewTask(ctx, r.output(c), containerd.WithRuntimePath(r.cfg.shim())); err != nil {
		return err
	}
	if isNode(c) {
		return r.delegate(cgroup, r.hostID(c, 0))
	}
	return nil
}

// rootFS returns how to make a container's root filesystem: a snapshot of its image, or an empty one for a task that
// runs the machine's programs.
func (r *Runtime) rootFS(ctx context.Context, id string, c *runtime.Container) (containerd.Image, []containerd.NewContainerOpts, error) {
	if c.Image == "" {
		if c.Shell == "" && len(c.Argv) == 0 {
			return nil, nil, fmt.Errorf("neither image nor command: %w", errdefs.ErrInvalidArgument)
		}
		return nil, []containerd.NewContainerOpts{r.withMachineRoot(id, c)}, nil
	}
	image, err := r.image(ctx, c.Image)
	if err != nil {
		return nil, nil, err
	}
	snapshot := containerd.WithNewSnapshot(id, image)
	if r.userns(c) {
		snapshot = containerd.WithNewSnapshot(id, image, containerd.WithUserNSRemapperLabels(r.idMap(c), r.idMap(c)))
	}
	return image, []containerd.NewContainerOpts{containerd.WithSnapshotter(defaults.DefaultSnapshotter), containerd.WithImage(image), snapshot}, nil
}

// withMachineRoot makes an empty snapshot that belongs to the container's root, so that runc can make mount points in
// it.
func (r *Runtime) withMachineRoot(id string, c *runtime.Container) containerd.NewContainerOpts {
	return func(ctx context.Context, client *containerd.Client, rec *containers.Container) error {
		mounts, err := client.SnapshotService(defaults.DefaultSnapshotter).Prepare(ctx, id, "")
		if err != nil {
			return err
		}
		rec.Snapshotter, rec.SnapshotKey = defaults.DefaultSnapshotter, id
		if len(mounts) != 1 || mounts[0].Type != "bind" {
			return fmt.Errorf("empty snapshot is %v, expected one bind: %w", mounts, errdefs.ErrInternal)
		}
		if err := os.Chown(mounts[0].Source, r.hostID(c, 0), r.hostID(c, 0)); err != nil {
			return err
		}
		root, err := os.OpenRoot(mounts[0].Source)
		if err != nil {
			return err
		}
		defer root.Close()
		return machineRoot(root, r.hostID(c, 0))
	}
}

// Start starts a created container's process.
func (r *Runtime) Start(ctx context.Context, id string) (runtime.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	t, err := r.task(ctx, id)
	if err != nil {
		return runtime.Process{}, err
	}
	if err := t.Start(ctx); err != nil {
		return runtime.Process{}, fmt.Errorf("container %s: start: %w", id, err)
	}
	p := process(t.Pid())
	labels, err := r.labels(ctx, t.ID())
	if err == nil {
		err = r.throttle(labels)
	}
	if err != nil {
		return p, fmt.Errorf("container %s: CPU limit: %w", id, err)
	}
	return p, nil
}

func (r *Runtime) task(ctx context.Context, id string) (containerd.Task, error) {
	if err := r.Ready(ctx); err != nil {
		return nil, err
	}
	c, err := r.client.LoadContainer(ctx, containerID(id))
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	t, err := c.Task(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("container %s: process: %w", id, err)
	}
	return t, nil
}

// process reads when a process started; a process that has ended already started now.
func process(pid uint32) runtime.Process {
	started, err := machine.StartTime(int(pid))
	if err != nil {
		started = time.Now()
	}
	return runtime.Process{PID: int(pid), Started: started}
}

// Signal sends a signal. A first process that has no handler for TERM would never see it, being pid 1 of its namespace:
// then the other processes of the container get it, and where there is none the first gets what TERM means without a
// handler, its end.
func (r *Runtime) Signal(ctx context.Context, id string, signal int) error {
	call, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	t, err := r.task(call, id)
	if err != nil {
		return stuck(ctx, id, "signal", err)
	}
	sig := unix.Signal(signal)
	if sig == unix.SIGTERM && deaf(int(t.Pid()), sig) {
		others, err := r.signalOthers(call, t, sig)
		if err != nil {
			return fmt.Errorf("container %s: signal: %w", id, err)
		}
		if others > 0 {
			return nil
		}
		sig = unix.SIGKILL
	}
	if err := t.Kill(call, sig); err != nil && !errdefs.IsNotFound(err) {
		return stuck(ctx, id, "signal", err)
	}
	return nil
}

// signalOthers sends a signal to all processes of a container but the first, and returns to how many.
func (r *Runtime) signalOthers(ctx context.Context, t containerd.Task, sig unix.Signal) (int, error) {
	labels, err := r.labels(ctx, t.ID())
	if err != nil {
		return 0, err
	}
	f, err := r.files(labels[labelCgroup])
	if err != nil {
		return 0, err
	}
	return signalAll(f.path("pids", "cgroup.procs"), int(t.Pid()), sig)
}

func (r *Runtime) labels(ctx context.Context, id string) (map[string]string, error) {
	c, err := r.client.ContainerService().Get(ctx, id)
	return c.Labels, err
}

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
	rel, ours := strings.CutPrefix(cgroup, r.cfg.cgroup()+"/")
	if err := r.removeTask(ctx, c); err != nil {
		if f, ferr := r.files(cgroup); ours && ferr == nil {
			_, kerr := signalAll(f.path("pids", "cgroup.procs"), 0, unix.SIGKILL) // whoever hangs, the task is not to go on
			err = errors.Join(err, kerr)
		}
		return err
	}
	if ours {
		if err := r.removeCgroup(ctx, rel); err != nil {
			return err
		}
		if err := r.pruneCgroup(cgroup); err != nil {
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
	if err := r.killMakers(ctx, c.ID()); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, r.cfg.runc(), "--root", filepath.Join(r.cfg.runcRoot(), r.cfg.namespace()), "delete", "--force", c.ID()).CombinedOutput()
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
	if err := r.client.SnapshotService(defaults.DefaultSnapshotter).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// output has a container's first process write to files, through a program of its own that its shim starts: it outlives
// agent and containerd, and a full disk does not stop the task.
func (r *Runtime) output(c *runtime.Container) cio.Creator {
	to := url.URL{Scheme: "binary", Path: filepath.Join(r.cfg.Bin, "marina-log"), RawQuery: url.Values{
		"stdout": {c.Stdout}, "stderr": {c.Stderr},
		"uid": {strconv.Itoa(r.hostID(c, 0))}, "gid": {strconv.Itoa(r.hostID(c, 0))},
	}.Encode()}
	if c.TTY {
		return cio.TerminalLogURI(&to)
	}
	return cio.LogURI(&to)
}
