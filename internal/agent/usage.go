package agent

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/machine"
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
	for _, p := range machine.Descendants(pid) {
		m := machine.MemoryOf(p)
		out.Private, out.Shared = out.Private+m.Anonymous, out.Shared+m.Files
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
