package agent

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// cpuLook is how long a task's processor time is looked at to tell what it uses now.
const cpuLook = 250 * time.Millisecond

// serveUsage answers with what one task uses now, a kernel.Usage: its memory by the kernel's own account of every process
// below its first one (smaps_rollup), so that what is shared with others counts in proportion.
func (a *Agent) serveUsage(w http.ResponseWriter, r *http.Request) error {
	id := kernel.TaskID(r.PathValue("id"))
	container, ok := a.runningTasks()[id]
	pid := a.pidOf(id)
	if !ok || pid == 0 {
		return fmt.Errorf("task %.200s does not run here: %w", id, errdefs.ErrNotFound)
	}
	stats := func() (runtime.Stats, error) {
		return call(r.Context(), a, func(ctx context.Context) (runtime.Stats, error) { return a.rt.Stats(ctx, container) })
	}
	before, err := stats()
	if err != nil {
		return err
	}
	began := time.Now()
	var out kernel.Usage
	for _, p := range descendants(pid) {
		private, shared := memoryOf(p)
		out.Private, out.Shared = out.Private+private, out.Shared+shared
	}
	select {
	case <-time.After(cpuLook - time.Since(began)):
	case <-r.Context().Done():
		return r.Context().Err()
	}
	after, err := stats()
	if err != nil {
		return err
	}
	out.CPU = (after.CPU - before.CPU).Seconds() / time.Since(began).Seconds()
	return serveJSON(w, out)
}

// pidOf is the first process of a running task, 0 if it is not known.
func (a *Agent) pidOf(id kernel.TaskID) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range a.groups {
		for k := range g.shown {
			if g.shown[k].Task == id {
				return g.shown[k].PID
			}
		}
	}
	return 0
}

// descendants is a process and all below it. What was orphaned inside of a container is its first process's.
func descendants(root int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, file := range stats {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it ended meanwhile
		}
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:])) // the name before may hold anything
		if len(fields) < 2 {
			continue
		}
		pid, err1 := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parent, err2 := strconv.Atoi(fields[1])
		if err1 == nil && err2 == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	out := []int{root}
	for n := 0; n < len(out); n++ {
		out = append(out, children[out[n]]...)
	}
	return out
}

// memoryOf is a process's anonymous memory and its part of memory that files back, in bytes; nothing if it is gone.
func memoryOf(pid int) (private, shared int64) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(raw)) {
		name, rest, _ := strings.Cut(line, ":")
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "Pss_Anon", "SwapPss":
			private += n << 10
		case "Pss_File", "Pss_Shmem":
			shared += n << 10
		}
	}
	return private, shared
}
