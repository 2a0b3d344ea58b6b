package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/machine"
)

const stopTimeout = 15 * time.Second // from TERM to KILL of a containerd

// process is one containerd.
type process struct {
	pid   int
	pidfd *os.File  // readable once the process ended
	child *exec.Cmd // nil if an earlier agent process started it
}

func watch(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd: %w", err)
	}
	return &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// wait returns nil once the process ended, or ctx's error.
func (p *process) wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { p.pidfd.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
	if ctx.Err() != nil {
		p.pidfd.SetReadDeadline(time.Time{})
		return ctx.Err()
	}
	if err == nil && p.child != nil {
		p.child.Wait() // reaps; how it ended is in its log
	}
	return err
}

// stop ends the process, gracefully if it is willing.
func (p *process) stop(ctx context.Context) error {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(int(p.pidfd.Fd()), sig, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("containerd %d: %w", p.pid, err)
		}
		wctx, cancel := context.WithTimeout(ctx, stopTimeout)
		err := p.wait(wctx)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("containerd %d does not end: %w", p.pid, errdefs.ErrUnavailable)
}

// processes lists those whose command line, words ended by zero bytes, is so.
func processes(is func(commandLine []byte) bool) ([]int, error) {
	pids, err := machine.PIDs()
	if err != nil {
		return nil, err
	}
	var out []int
	for _, pid := range pids {
		if line, err := machine.CommandLine(pid); err == nil && is(line) {
			out = append(out, pid)
		}
	}
	return out, nil
}
