package containerd

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/runtime"
)

// Update changes the limits of a container's cgroup, see runtime.Runtime. The CPU limit is also kept as a label, from
// which it is set again when a container is found.
func (r *Runtime) Update(ctx context.Context, id string, l runtime.Limits) error {
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	if err := r.Ready(ctx); err != nil {
		return err
	}
	c, err := r.client.LoadContainer(ctx, containerID(id))
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	labels, err := c.SetLabels(ctx, map[string]string{labelCPU: strconv.FormatInt(l.CPULimit, 10)})
	if err != nil {
		return fmt.Errorf("container %s: CPU limit: %w", id, err)
	}
	if err := r.cgroups.Group(labels[labelCgroup]).Update(l); err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	return nil
}

// Stats reads what a container uses from its cgroup.
func (r *Runtime) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	labels, err := r.labels(ctx, containerID(id))
	if err != nil {
		return runtime.Stats{}, fmt.Errorf("container %s: %w", id, err)
	}
	s, err := r.cgroups.Group(labels[labelCgroup]).Stats()
	if err != nil {
		return s, fmt.Errorf("container %s: stats: %w", id, err)
	}
	return s, nil
}

// layerLimit bounds the walk of a container's layer, which may have files without end.
const layerLimit = 10 * time.Second

// Layer measures a container's snapshot.
func (r *Runtime) Layer(ctx context.Context, id string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, layerLimit)
	defer cancel()
	use, err := r.client.SnapshotService(defaults.DefaultSnapshotter).Usage(ctx, containerID(id))
	if err != nil && !errdefs.IsNotFound(err) { // it has none, or ended meanwhile
		return 0, fmt.Errorf("container %s: size of its layer: %w", id, err)
	}
	return use.Size, nil
}
