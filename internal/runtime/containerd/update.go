package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

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
	f, err := r.files(labels[labelCgroup])
	if err != nil {
		return err
	}
	if _, err := os.Stat(f.path("memory", "cgroup.procs")); errors.Is(err, fs.ErrNotExist) {
		return nil // it has ended
	}
	if err := errors.Join(f.setShares(l.MilliCPU), r.throttle(labels), f.setMemory(l.MemLimit)); err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	return nil
}

func (f files) write(controller, name, value string) error {
	return os.WriteFile(f.path(controller, name), []byte(value), 0)
}

// shares is a guarantee as cgroup v1 counts it: 1024 for a core.
func shares(milliCPU int64) uint64 { return uint64(max(milliCPU*1024/1000, 2)) }

func (f files) setShares(milliCPU int64) error {
	n := shares(milliCPU)
	if f.unified {
		weight := 1 + ((min(n, 262144)-2)*9999)/262142 // as runc has it, so that a start and a change give the same
		return f.write("cpu", "cpu.weight", strconv.FormatUint(weight, 10))
	}
	return f.write("cpu", "cpu.shares", strconv.FormatUint(n, 10))
}

// setMemory changes the memory limit, zero for none. Less than is used and cannot be given back is refused: by the
// kernel on v1, by us on v2, where the kernel would kill instead.
func (f files) setMemory(limit int64) error {
	refused := func(err error) error {
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		used, _ := f.number("memory", "memory.usage_in_bytes")
		return fmt.Errorf("memory limit of %d bytes, %d are in use: %w", limit, used, errdefs.ErrFailedPrecondition)
	}
	if f.unified {
		value := "max"
		if limit > 0 {
			value = strconv.FormatInt(limit, 10)
			s, err := f.fields("memory", "memory.stat")
			if err != nil {
				return err
			}
			if held := s["anon"] + s["shmem"] + s["kernel_stack"]; held > limit {
				return fmt.Errorf("memory limit of %d bytes, %d are in use: %w", limit, held, errdefs.ErrFailedPrecondition)
			}
		}
		return f.write("memory", "memory.max", value)
	}
	value := "-1"
	if limit > 0 {
		value = strconv.FormatInt(limit, 10)
	}
	const one, both = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	if _, err := os.Stat(f.path("memory", both)); err != nil { // swap is not counted here
		return refused(f.write("memory", one, value))
	}
	// Memory and swap together are never less than memory: which comes first depends on the way.
	if err := f.write("memory", both, value); err == nil {
		return refused(f.write("memory", one, value))
	}
	if err := f.write("memory", one, value); err != nil {
		return refused(err)
	}
	return refused(f.write("memory", both, value))
}
