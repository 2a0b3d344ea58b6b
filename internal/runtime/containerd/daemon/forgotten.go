package daemon

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// killAgain is the time in which killed processes must be gone.
const killAgain = 10 * time.Millisecond

// KillForgotten kills what may still be making a container that containerd knows nothing of, its shim and runc, and
// waits until they are gone: they make cgroups. With "" it is those of all our containers.
func (d *Daemon) KillForgotten(ctx context.Context, id string) error {
	shim := d.cfg.shim() + "\x00-namespace\x00" + d.cfg.Namespace + "\x00-id\x00"
	runc := d.cfg.runc() + "\x00--root\x00" + filepath.Join(d.cfg.RuncRoot, d.cfg.Namespace) + "\x00"
	for {
		pids, err := processes(func(line []byte) bool {
			ours := bytes.HasPrefix(line, []byte(shim)) || bytes.HasPrefix(line, []byte(runc))
			return ours && bytes.Contains(line, []byte("\x00"+id))
		})
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			d.log.Warn("process that containerd forgot is killed", "pid", pid, "container", id)
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes do not die: %w", len(pids), ctx.Err())
		case <-time.After(killAgain):
		}
	}
}
