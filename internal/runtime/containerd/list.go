package containerd

import (
	"context"
	"fmt"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/runtime"
)

const (
	listWorkers = 32              // shims asked at a time
	askTimeout  = 5 * time.Second // for containerd's answer about one shim, on which itself it gives up after 2
)

// Containers lists the containers of this datacenter, whoever made them. One whose shim does not answer is listed as
// running, without a process.
func (r *Runtime) Containers(ctx context.Context) ([]runtime.Found, error) {
	all, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]runtime.Found, len(all))
	for i := range all {
		out[i] = all[i].Found
	}
	return out, nil
}

// found is a container with one thing more: vanished means that it has no process, not even an ended one.
type found struct {
	runtime.Found
	vanished bool
}

func (r *Runtime) list(ctx context.Context) ([]found, error) {
	if err := r.Ready(ctx); err != nil {
		return nil, err
	}
	recs, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("containers: %w", err)
	}
	kept := recs[:0]
	for _, rec := range recs {
		if _, making := r.fresh.Load(rec.ID); !making {
			kept = append(kept, rec)
		}
	}
	out := make([]found, len(kept))
	ask, ctx := errgroup.WithContext(ctx)
	ask.SetLimit(listWorkers)
	for i, rec := range kept {
		ask.Go(func() (err error) {
			out[i], err = r.found(ctx, rec)
			return err
		})
	}
	return out, ask.Wait()
}

func (r *Runtime) found(ctx context.Context, rec containers.Container) (found, error) {
	f := found{Found: runtime.Found{ID: rec.Labels[labelID], Labels: map[string]string{}}}
	for k, v := range rec.Labels {
		if name, ok := strings.CutPrefix(k, labelAgent); ok {
			f.Labels[name] = v
		}
	}
	call, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := r.client.TaskService().Get(call, &tasksapi.GetRequest{ContainerID: rec.ID})
	err = errgrpc.ToNative(err)
	switch {
	case errdefs.IsNotFound(err):
		f.vanished = true
	case err != nil && call.Err() == nil && !errdefs.IsUnavailable(err):
		r.log.Warn("container does not answer", "task", f.ID, "err", err)
		f.Running = true
	case err != nil:
		return f, fmt.Errorf("container %s: %w", f.ID, err)
	case resp.Process.Status == task.Status_STOPPED:
		f.Exit = r.exit(rec.Labels, resp.Process.ExitStatus, resp.Process.ExitedAt.AsTime())
	case resp.Process.Status != task.Status_CREATED:
		f.Running, f.Process = true, process(resp.Process.Pid)
		if err := r.throttle(rec.Labels); err != nil { // whoever started it may have died before it got to that
			r.log.Warn("container has no CPU limit", "task", f.ID, "err", err)
		}
	}
	return f, nil
}

// exit describes the end of a container's first process. Memory is to blame if something in it was killed for its limit
// and it did not end well.
func (r *Runtime) exit(labels map[string]string, status uint32, at time.Time) *runtime.Exit {
	oom := status != 0 && r.cgroups.Group(labels[labelCgroup]).OOM()
	return &runtime.Exit{ID: labels[labelID], Code: int(status), OOM: oom, Time: at}
}
