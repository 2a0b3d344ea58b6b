package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
)

// Group is one cgroup in all its hierarchies, on either version. It may be gone, or not be there yet.
type Group struct {
	at      map[string]string // see Tree.at
	unified bool
	cgroup  string // "/marina-INSTANCE/group/task"
}

// Group returns the cgroup of a path that Path returned.
func (t *Tree) Group(cgroup string) Group { return Group{t.at, t.unified, cgroup} }

func (g Group) path(controller, name string) string {
	if g.unified {
		controller = ""
	}
	return filepath.Join(g.at[controller], g.cgroup, name)
}

// number reads a file that holds one number; "max" is 0.
func (g Group) number(controller, name string) (int64, error) {
	b, err := os.ReadFile(g.path(controller, name))
	if err != nil {
		return 0, err
	}
	s := strings.TrimSpace(string(b))
	if s == "max" {
		return 0, nil
	}
	return strconv.ParseInt(s, 10, 64)
}

// fields reads a file of lines "key number".
func (g Group) fields(controller, name string) (map[string]int64, error) {
	b, err := os.ReadFile(g.path(controller, name))
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

func (g Group) write(controller, name, value string) error {
	return os.WriteFile(g.path(controller, name), []byte(value), 0)
}

// OOM reports whether something in the cgroup was killed for its memory limit. The counter stands as long as the
// cgroup, that is until the container is removed, so it answers also for an end nobody saw. It is false where the
// cgroup went with its shim.
func (g Group) OOM() bool {
	name := "memory.oom_control"
	if g.unified {
		name = "memory.events"
	}
	m, err := g.fields("memory", name)
	return err == nil && m["oom_kill"] > 0
}

// Stats reads what the cgroup uses; all but Disk.
func (g Group) Stats() (s runtime.Stats, err error) {
	number := func(controller, name string) int64 {
		n, e := g.number(controller, name)
		err = errors.Join(err, e)
		return n
	}
	fields := func(controller, name string) map[string]int64 {
		m, e := g.fields(controller, name)
		err = errors.Join(err, e)
		return m
	}
	s.PIDs = number("pids", "pids.current")
	cpu := fields("cpu", "cpu.stat")
	if g.unified {
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

// Signal sends a signal to every process of the cgroup but one (0: to all), and returns to how many.
func (g Group) Signal(but int, sig unix.Signal) (int, error) {
	return signalAll(g.path("pids", "cgroup.procs"), but, sig)
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
