package containerd

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/runtime"
	"github.com/marinaos/marina/internal/runtime/containerd/spec"
)

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
	cgroup, err := r.cgroups.Path(cmp.Or(c.Cgroup, c.ID))
	if err != nil {
		return fmt.Errorf("container %s: %w", c.ID, err)
	}
	id := containerID(c.ID)
	made := r.cgroups.Make(cgroup)
	r.fresh.Store(id, true)
	err = r.create(ctx, id, cgroup, &c)
	r.fresh.Delete(id)
	made()
	if err != nil {
		return fmt.Errorf("container %s: %w", c.ID, errors.Join(err, r.cgroups.Prune(cgroup)))
	}
	return nil
}

func (r *Runtime) create(ctx context.Context, id, cgroup string, c *runtime.Container) (err error) {
	image, snapshot, err := r.rootFS(ctx, id, c)
	if err != nil {
		return err
	}
	sysfs := ""
	if c.NetNS != "" && !spec.IsNode(c) {
		var undo func() error
		if sysfs, undo, err = spec.Sysfs(c.NetNS, r.cfg.mounts()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, undo()) }()
	}
	opts := spec.Opts(r.ids, c, spec.Place{
		Image: image, Cgroup: cgroup, CountsSwap: r.cgroups.CountsSwap(), Sysfs: sysfs})
	labels := map[string]string{labelID: c.ID, labelCgroup: cgroup}
	if c.CPULimit > 0 {
		labels[labelCPU] = strconv.FormatInt(c.CPULimit, 10)
	}
	for k, v := range c.Labels {
		labels[labelAgent+k] = v
	}
	made, err := r.client.NewContainer(ctx, id, append(snapshot, containerd.WithContainerLabels(labels),
		containerd.WithRuntime(runtimeName, &options.Options{
			BinaryName: r.cfg.runc(), Root: r.cfg.runcRoot(), NoNewKeyring: true,
		}), containerd.WithNewSpec(opts...))...)
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
	record := sandbox.Sandbox{ID: id, Runtime: sandbox.RuntimeOpts{Name: runtimeName}}
	if _, err := r.client.SandboxStore().Create(ctx, record); err != nil {
		return err
	}
	if _, err = made.NewTask(ctx, r.output(c), containerd.WithRuntimePath(r.cfg.shim())); err != nil {
		return err
	}
	if spec.IsNode(c) {
		return r.cgroups.Delegate(cgroup, r.ids.Root(c))
	}
	return nil
}

// rootFS returns how to make a container's root filesystem: a snapshot of its image, or an empty one for a task that
// runs the machine's programs, whose image is nil.
func (r *Runtime) rootFS(ctx context.Context, id string, c *runtime.Container) (
	containerd.Image, []containerd.NewContainerOpts, error) {
	if c.Image == "" {
		if c.Shell == "" && len(c.Argv) == 0 {
			return nil, nil, fmt.Errorf("neither image nor command: %w", errdefs.ErrInvalidArgument)
		}
		return nil, []containerd.NewContainerOpts{withMachineRoot(id, r.ids.Root(c))}, nil
	}
	image, err := r.images.Get(ctx, c.Image)
	if err != nil {
		return nil, nil, err
	}
	snapshot := containerd.WithNewSnapshot(id, image)
	if r.ids.Mapped(c) {
		snapshot = containerd.WithNewSnapshot(id, image, containerd.WithUserNSRemapperLabels(r.ids.Map(c), r.ids.Map(c)))
	}
	return image, []containerd.NewContainerOpts{
		containerd.WithSnapshotter(defaults.DefaultSnapshotter), containerd.WithImage(image), snapshot}, nil
}

// withMachineRoot makes an empty snapshot that belongs to owner, the container's root, so that runc can make mount
// points in it.
func withMachineRoot(id string, owner int) containerd.NewContainerOpts {
	return func(ctx context.Context, client *containerd.Client, rec *containers.Container) error {
		mounts, err := client.SnapshotService(defaults.DefaultSnapshotter).Prepare(ctx, id, "")
		if err != nil {
			return err
		}
		rec.Snapshotter, rec.SnapshotKey = defaults.DefaultSnapshotter, id
		if len(mounts) != 1 || mounts[0].Type != "bind" {
			return fmt.Errorf("empty snapshot is %v, expected one bind: %w", mounts, errdefs.ErrInternal)
		}
		if err := os.Chown(mounts[0].Source, owner, owner); err != nil {
			return err
		}
		root, err := os.OpenRoot(mounts[0].Source)
		if err != nil {
			return err
		}
		defer root.Close()
		return spec.MachineRoot(root, owner)
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

// throttle sets the CPU limit that a container's labels say; one without has none.
func (r *Runtime) throttle(labels map[string]string) error {
	limit, err := strconv.ParseInt(labels[labelCPU], 10, 64)
	if err != nil {
		return nil //nolint:nilerr // it has none
	}
	return r.cgroups.Group(labels[labelCgroup]).Throttle(limit)
}

func (r *Runtime) labels(ctx context.Context, id string) (map[string]string, error) {
	c, err := r.client.ContainerService().Get(ctx, id)
	return c.Labels, err
}

// output has a container's first process write to files, through a program of its own that its shim starts: it outlives
// agent and containerd, and a full disk does not stop the task.
func (r *Runtime) output(c *runtime.Container) cio.Creator {
	to := url.URL{Scheme: "binary", Path: filepath.Join(r.cfg.Bin, "marina-log"), RawQuery: url.Values{
		"stdout": {c.Stdout}, "stderr": {c.Stderr},
		"uid": {strconv.Itoa(r.ids.Root(c))}, "gid": {strconv.Itoa(r.ids.Root(c))},
	}.Encode()}
	if c.TTY {
		return cio.TerminalLogURI(&to)
	}
	return cio.LogURI(&to)
}
