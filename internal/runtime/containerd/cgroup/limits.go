package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
)

const (
	cpuPeriod = 100_000 // microseconds
	minQuota  = 1_000   // microseconds; the kernel takes no less
)

// Update changes the limits of a container that may run. Less memory than is in use and cannot be given back is
// errdefs.ErrFailedPrecondition.
func (g Group) Update(l runtime.Limits) error {
	if _, err := os.Stat(g.path("memory", "cgroup.procs")); errors.Is(err, fs.ErrNotExist) {
		return nil // it has ended
	}
	return errors.Join(g.setShares(l.MilliCPU), g.Throttle(l.CPULimit), g.setMemory(l.MemLimit))
}

// Throttle limits the CPU of a container that runs, in thousandths of a core; 0 is no limit. Making a container takes
// tens of milliseconds of CPU inside its cgroup, which under a limit of a tenth of a core would take ten times as long:
// so the limit begins with the task. Doing it again changes nothing.
func (g Group) Throttle(limit int64) error {
	quota, none := fmt.Sprint(max(limit*cpuPeriod/1000, minQuota)), "-1"
	if g.unified {
		none = "max"
	}
	if limit <= 0 { // it had one once
		quota = none
	}
	var err error
	if g.unified {
		err = g.write("cpu", "cpu.max", fmt.Sprint(quota, " ", cpuPeriod))
	} else {
		err = g.write("cpu", "cpu.cfs_period_us", strconv.Itoa(cpuPeriod))
		if err == nil {
			err = g.write("cpu", "cpu.cfs_quota_us", quota)
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Shares converts a guarantee to what cgroup v1 counts: 1024 for a core.
func Shares(milliCPU int64) uint64 { return uint64(max(milliCPU*1024/1000, 2)) }

func (g Group) setShares(milliCPU int64) error {
	n := Shares(milliCPU)
	if g.unified {
		weight := 1 + ((min(n, 262144)-2)*9999)/262142 // as runc has it, so that a start and a change give the same
		return g.write("cpu", "cpu.weight", strconv.FormatUint(weight, 10))
	}
	return g.write("cpu", "cpu.shares", strconv.FormatUint(n, 10))
}

// setMemory changes the memory limit, zero for none. Less than is used and cannot be given back is refused: by the
// kernel on v1, by us on v2, where the kernel would kill instead.
func (g Group) setMemory(limit int64) error {
	refused := func(err error) error {
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		used, _ := g.number("memory", "memory.usage_in_bytes")
		return fmt.Errorf("memory limit of %d bytes, %d are in use: %w", limit, used, errdefs.ErrFailedPrecondition)
	}
	if g.unified {
		value := "max"
		if limit > 0 {
			value = strconv.FormatInt(limit, 10)
			s, err := g.fields("memory", "memory.stat")
			if err != nil {
				return err
			}
			if held := s["anon"] + s["shmem"] + s["kernel_stack"]; held > limit {
				return fmt.Errorf("memory limit of %d bytes, %d are in use: %w", limit, held, errdefs.ErrFailedPrecondition)
			}
		}
		return g.write("memory", "memory.max", value)
	}
	value := "-1"
	if limit > 0 {
		value = strconv.FormatInt(limit, 10)
	}
	const one, both = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	if _, err := os.Stat(g.path("memory", both)); err != nil { // swap is not counted here
		return refused(g.write("memory", one, value))
	}
	// Memory and swap together are never less than memory: which comes first depends on the way.
	if err := g.write("memory", both, value); err == nil {
		return refused(g.write("memory", one, value))
	}
	if err := g.write("memory", one, value); err != nil {
		return refused(err)
	}
	return refused(g.write("memory", both, value))
}
