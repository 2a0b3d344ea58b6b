package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
)

// hierarchies returns where cgroups are mounted, by controller; cgroup v2 is "". It is asked once: what a machine
// mounts there does not change while it runs, and its list of mounts grows with its containers.
var hierarchies = sync.OnceValues(func() (map[string]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, m := range mounts {
		if m.FSType == "cgroup2" {
			out[""] = m.Mountpoint
			continue
		}
		for _, opt := range strings.Split(m.VFSOptions, ",") {
			if opt != "rw" && opt != "ro" {
				out[opt] = m.Mountpoint
			}
		}
	}
	return out, nil
})

// killAgain is how long killed processes get to be gone.
const killAgain = 10 * time.Millisecond

// files reads the cgroup's files of one controller, on either version.
type files struct {
	at      map[string]string
	unified bool
	cgroup  string
}

func (r *Runtime) files(cgroup string) (files, error) {
	at, err := hierarchies()
	return files{at, r.unified, cgroup}, err
}

func (f files) path(controller, name string) string {
	if f.unified {
		controller = ""
	}
	return filepath.Join(f.at[controller], f.cgroup, name)
}

// number reads a file that holds one number; "max" is 0.
func (f files) number(controller, name string) (int64, error) {
	b, err := os.ReadFile(f.path(controller, name))
	if err != nil {
		return 0, err
	}
	s := strings.TrimSpace(string(b))
	if s == "max" {
		return 0, nil
	}
	return strconv.ParseInt(s, 10, 64)
}

// throttle limits the CPU of a container that runs. Making a container takes tens of milliseconds of CPU inside its
// cgroup, which under a limit of a tenth of a core would take ten times as long: so the limit begins with the task.
// Doing it again changes nothing; a container whose cgroup is gone has ended.
func (r *Runtime) throttle(labels map[string]string) error {
	limit, err := strconv.ParseInt(labels[labelCPU], 10, 64)
	if err != nil {
		return nil //nolint:nilerr // it has none
	}
	f, err := r.files(labels[labelCgroup])
	if err != nil {
		return err
	}
	quota, none := fmt.Sprint(max(limit*cpuPeriod/1000, minQuota)), "-1"
	if r.unified {
		none = "max"
	}
	if limit <= 0 { // it had one once
		quota = none
	}
	if r.unified {
		err = f.write("cpu", "cpu.max", fmt.Sprint(quota, " ", cpuPeriod))
	} else {
		err = f.write("cpu", "cpu.cfs_period_us", strconv.Itoa(cpuPeriod))
		if err == nil {
			err = f.write("cpu", "cpu.cfs_quota_us", quota)
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// fields reads a file of lines "key number".
func (f files) fields(controller, name string) (map[string]int64, error) {
	b, err := os.ReadFile(f.path(controller, name))
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		key, val, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(val, 10, 64); err == nil {
			out[key] = n
		}
	}
	return out, nil
}

// oomKills is how many processes of the cgroup were killed for its memory limit. The counter stands as long as the
// cgroup, that is until the container is removed, so it answers also for an end nobody saw.
func (f files) oomKills() int64 {
	name := "memory.oom_control"
	if f.unified {
		name = "memory.events"
	}
	m, err := f.fields("memory", name)
	if err != nil {
		return 0 // the cgroup went with its shim: not known
	}
	return m["oom_kill"]
}

func (f files) stats() (s runtime.Stats, err error) {
	number := func(controller, name string) int64 {
		n, e := f.number(controller, name)
		err = errors.Join(err, e)
		return n
	}
	fields := func(controller, name string) map[string]int64 {
		m, e := f.fields(controller, name)
		err = errors.Join(err, e)
		return m
	}
	s.PIDs = number("pids", "pids.current")
	cpu := fields("cpu", "cpu.stat")
	if f.unified {
		s.Mem = number("memory", "memory.current") - fields("memory", "memory.stat")["inactive_file"]
		s.CPU = time.Duration(cpu["usage_usec"]) * time.Microsecond
		s.Throttle = time.Duration(cpu["throttled_usec"]) * time.Microsecond
	} else {
		s.Mem = number("memory", "memory.usage_in_bytes") - fields("memory", "memory.stat")["total_inactive_file"]
		s.CPU = time.Duration(number("cpuacct", "cpuacct.usage"))
		s.Throttle = time.Duration(cpu["throttled_time"])
	}
	s.Mem = max(s.Mem, 0)
	return s, err
}

// signalAll sends a signal to every process of a cgroup.procs file but one, and returns to how many.
func signalAll(procs string, but int, sig unix.Signal) (n int, err error) {
	b, err := os.ReadFile(procs)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return 0, nil // the cgroup is gone
	}
	if err != nil {
		return 0, err
	}
	for _, word := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return n, err
		}
		if pid == but || pid == 0 {
			continue
		}
		if err := unix.Kill(pid, sig); err == nil {
			n++
		} else if err != unix.ESRCH {
			return n, err
		}
	}
	return n, nil
}

// removeCgroup kills what is in the cgroup at rel below the datacenter's and below it, and removes it, in every
// hierarchy.
func (r *Runtime) removeCgroup(ctx context.Context, rel string) error {
	at, err := hierarchies()
	if err != nil {
		return err
	}
	var trees []string
	for _, mount := range at {
		trees = append(trees, filepath.Join(mount, r.cfg.cgroup(), rel))
	}
	if err := killTrees(ctx, trees); err != nil {
		return err
	}
	var errs []error
	for _, tree := range trees {
		errs = append(errs, removeTree(tree))
	}
	return errors.Join(errs...)
}

// killTrees kills until no process is left: one that was about to start may appear after the first look.
func killTrees(ctx context.Context, trees []string) error {
	for {
		left := 0
		for _, tree := range trees {
			err := filepath.WalkDir(tree, func(p string, d fs.DirEntry, err error) error {
				if errors.Is(err, fs.ErrNotExist) || (err == nil && !d.IsDir()) {
					return nil
				}
				if err != nil {
					return err
				}
				n, err := signalAll(filepath.Join(p, "cgroup.procs"), 0, unix.SIGKILL)
				left += n
				return err
			})
			if err != nil {
				return err
			}
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes do not die: %w", left, ctx.Err())
		case <-time.After(killAgain):
		}
	}
}

func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := os.Remove(dirs[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cgroup %s: %w", dirs[i], err)
		}
	}
	return nil
}

// pruneCgroup removes the empty parents a container leaves, up to the datacenter's own, unless another one is being
// made there.
func (r *Runtime) pruneCgroup(cgroup string) error {
	at, err := hierarchies()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for parent := path.Dir(cgroup); parent != r.cfg.cgroup() && len(parent) > 1 && r.making[parent] == 0; parent = path.Dir(parent) {
		busy := false
		for _, mount := range at {
			err := os.Remove(filepath.Join(mount, parent))
			if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
				busy = true
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cgroup %s: %w", parent, err)
			}
		}
		if busy {
			return nil
		}
	}
	return nil
}

// cgroupOf checks a container's cgroup: a relative path that stays below the datacenter's.
func (r *Runtime) cgroupOf(c *runtime.Container) (string, error) {
	rel := c.Cgroup
	if rel == "" {
		rel = c.ID
	}
	if !filepath.IsLocal(rel) || path.Clean(rel) != rel || rel == "." {
		return "", fmt.Errorf("container %s: cgroup %q leaves the datacenter's: %w", c.ID, c.Cgroup, errdefs.ErrInvalidArgument)
	}
	return path.Join(r.cfg.cgroup(), rel), nil
}
