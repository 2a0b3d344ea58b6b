package containerd

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Signal sends a signal. A first process that has no handler for TERM would never see it, being pid 1 of its namespace:
// then the other processes of the container get it, and where there is none the first gets what TERM means without a
// handler, its end.
func (r *Runtime) Signal(ctx context.Context, id string, signal int) error {
	call, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	t, err := r.task(call, id)
	if err != nil {
		return stuck(ctx, id, "signal", err)
	}
	sig := unix.Signal(signal)
	if sig == unix.SIGTERM && deaf(int(t.Pid()), sig) {
		others, err := r.signalOthers(call, t, sig)
		if err != nil {
			return fmt.Errorf("container %s: signal: %w", id, err)
		}
		if others > 0 {
			return nil
		}
		sig = unix.SIGKILL
	}
	if err := t.Kill(call, sig); err != nil && !errdefs.IsNotFound(err) {
		return stuck(ctx, id, "signal", err)
	}
	return nil
}

// signalOthers sends a signal to all processes of a container but the first, and returns to how many.
func (r *Runtime) signalOthers(ctx context.Context, t containerd.Task, sig unix.Signal) (int, error) {
	labels, err := r.labels(ctx, t.ID())
	if err != nil {
		return 0, err
	}
	return r.cgroups.Group(labels[labelCgroup]).Signal(int(t.Pid()), sig)
}

// deaf reports whether a process neither handles nor ignores a signal.
func deaf(pid int, sig unix.Signal) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		key, val, _ := strings.Cut(line, ":")
		if key != "SigCgt" && key != "SigIgn" {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(val), 16, 64)
		if err != nil || set&(1<<(sig-1)) != 0 {
			return false
		}
	}
	return true
}
