package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/machine"
)

// cpuLook is the time over which a task's processor time is measured to tell what it uses now.
const cpuLook = 250 * time.Millisecond

// serveUsage answers with what one task uses now, a kernel.Usage: its memory by the kernel's own account of every
// process below its first one (smaps_rollup), so that what is shared with others counts in proportion.
func (p *API) serveUsage(w http.ResponseWriter, r *http.Request) error {
	id := kernel.TaskID(r.PathValue("id"))
	t, ok := p.cfg.Task(id)
	if !ok || !t.Up() || t.Status.PID == 0 {
		return fmt.Errorf("task %.200s does not run here: %w", id, errdefs.ErrNotFound)
	}
	before, err := p.cfg.Runtime.Stats(r.Context(), t.Container)
	if err != nil {
		return err
	}
	began := time.Now()
	var out kernel.Usage
	for _, pid := range machine.Descendants(t.Status.PID) {
		m := machine.MemoryOf(pid)
		out.Private, out.Shared = out.Private+m.Anonymous, out.Shared+m.Files
	}
	select {
	case <-time.After(cpuLook - time.Since(began)):
	case <-r.Context().Done():
		return r.Context().Err()
	}
	after, err := p.cfg.Runtime.Stats(r.Context(), t.Container)
	if err != nil {
		return err
	}
	out.CPU = (after.CPU - before.CPU).Seconds() / time.Since(began).Seconds()
	return serveJSON(w, out)
}
