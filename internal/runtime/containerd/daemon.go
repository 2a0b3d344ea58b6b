package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/machine"
)

const (
	answerTimeout = 30 * time.Second // from a containerd's start to its first answer
	stopTimeout   = 15 * time.Second // from TERM to KILL of a containerd
	minBackoff    = 100 * time.Millisecond
	maxBackoff    = 5 * time.Second
	steadyAfter   = 5 * time.Second // a containerd that lived so long is restarted without backoff
	maxDaemonLog  = 8 << 20         // bytes of its log kept when it starts, once more as .old
)

// daemon is one process of the private containerd.
type daemon struct {
	pid   int
	pidfd *os.File  // readable once the process ended
	child *exec.Cmd // nil if an earlier agent process started it
}

// adopt returns the running containerd that was started with our configuration file, or nil. It is found by its command
// line and not by a file, so that an agent that died between starting it and noting it loses nothing.
func (c *Config) adopt() (*daemon, error) {
	ours := func(line []byte) bool {
		return bytes.HasSuffix(line, []byte("\x00--config\x00"+c.configFile()+"\x00"))
	}
	pids, err := processes(ours)
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		d, err := watch(pid)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("containerd %d: %w", pid, err)
		}
		if line, err := machine.CommandLine(pid); err == nil && ours(line) {
			return d, nil
		}
		d.pidfd.Close() // it ended, and its number may be somebody else's
	}
	return nil, nil
}

// start runs containerd in a session of its own: it outlives the agent and no terminal's signal reaches it.
func (c *Config) start() (*daemon, error) {
	if st, err := os.Stat(c.logFile()); err == nil && st.Size() > maxDaemonLog {
		if err := os.Rename(c.logFile(), c.logFile()+".old"); err != nil {
			return nil, err
		}
	}
	out, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(c.Bin, "containerd"), "--config", c.configFile())
	cmd.Env = append(os.Environ(), "PATH="+c.Bin+":"+os.Getenv("PATH"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	d, err := watch(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	d.child = cmd
	return d, nil
}

func watch(pid int) (*daemon, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd: %w", err)
	}
	return &daemon{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// wait returns nil once the process ended, or ctx's error.
func (d *daemon) wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { d.pidfd.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := d.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
	if ctx.Err() != nil {
		d.pidfd.SetReadDeadline(time.Time{})
		return ctx.Err()
	}
	if err == nil && d.child != nil {
		d.child.Wait() // reaps; how it ended is in its log
	}
	return err
}

// stop ends the process, gracefully if it is willing.
func (d *daemon) stop(ctx context.Context) error {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(int(d.pidfd.Fd()), sig, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("containerd %d: %w", d.pid, err)
		}
		wctx, cancel := context.WithTimeout(ctx, stopTimeout)
		err := d.wait(wctx)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("containerd %d does not end: %w", d.pid, errdefs.ErrUnavailable)
}

// ensure returns a containerd that answers: the one that runs, if it has our version and configuration, else a new one.
func (r *Runtime) ensure(ctx context.Context) (*daemon, error) {
	want, err := r.cfg.daemonConfig()
	if err != nil {
		return nil, err
	}
	have, err := os.ReadFile(r.cfg.configFile())
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	d, err := r.cfg.adopt()
	if err != nil {
		return nil, err
	}
	if d != nil {
		why := "its configuration changed"
		if bytes.Equal(want, have) {
			if why = r.unfit(ctx, d); why == "" {
				r.log.Info("containerd adopted", "pid", d.pid)
				return d, nil
			}
		}
		if ctx.Err() != nil {
			d.pidfd.Close()
			return nil, ctx.Err()
		}
		r.log.Info("containerd replaced", "pid", d.pid, "why", why)
		if err := d.stop(ctx); err != nil {
			return nil, err
		}
		d.pidfd.Close()
	}
	if err := os.WriteFile(r.cfg.configFile(), want, 0o600); err != nil {
		return nil, err
	}
	if d, err = r.cfg.start(); err != nil {
		return nil, err
	}
	if why := r.unfit(ctx, d); why != "" {
		err := fmt.Errorf("containerd %d: %s; its log is %s: %w", d.pid, why, r.cfg.logFile(), errdefs.ErrUnavailable)
		d.stop(context.WithoutCancel(ctx))
		d.pidfd.Close()
		return nil, err
	}
	r.log.Info("containerd started", "pid", d.pid, "version", r.version)
	return d, nil
}

// unfit says why the containerd behind the socket is not to be used; "" if it is.
func (r *Runtime) unfit(ctx context.Context, d *daemon) string {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	var ended sync.WaitGroup
	defer ended.Wait()
	defer cancel()
	ended.Go(func() {
		if d.wait(ctx) == nil {
			cancel()
		}
	})
	v, err := r.client.Version(ctx)
	if err != nil {
		return "no answer: " + err.Error()
	}
	if m := versionWord.FindStringSubmatch(v.Version); m == nil || (r.version != "" && m[1] != r.version) {
		return fmt.Sprintf("version %s runs, %s is to", v.Version, r.version)
	}
	return ""
}

// Run keeps the private containerd running until ctx ends, and leaves it running then: containers and containerd
// outlive the agent. With an external containerd it only waits. It returns nil when ctx ended.
func (r *Runtime) Run(ctx context.Context) error {
	if err := r.cfg.makeDirs(); err != nil {
		return err
	}
	if err := tempMounts(r.cfg.mounts()); err != nil {
		return err
	}
	if r.cfg.Socket != "" {
		return r.runExternal(ctx)
	}
	backoff := minBackoff
	for ctx.Err() == nil {
		began := time.Now()
		d, err := r.ensure(ctx)
		if err == nil {
			r.markReady()
			if err = d.wait(ctx); err == nil {
				err = fmt.Errorf("containerd %d ended: %w", d.pid, errdefs.ErrUnavailable)
			}
			d.pidfd.Close()
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > steadyAfter {
			backoff = minBackoff
		}
		r.log.Error("containerd is to be started again", "err", err, "in", backoff, "log", r.cfg.logFile())
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// runExternal checks that somebody else's containerd is one we may use.
func (r *Runtime) runExternal(ctx context.Context) error {
	for ctx.Err() == nil {
		v, err := r.client.Version(ctx)
		if err == nil {
			if err := CheckFloor("containerd", v.Version); err != nil {
				return err
			}
			r.markReady()
			<-ctx.Done()
			return nil
		}
		r.log.Error("containerd does not answer", "socket", r.cfg.Socket, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(maxBackoff):
		}
	}
	return nil
}

// makeDir makes what containerd and its shims expect. Containers' root users pass through Run on their way to their
// filesystems, nobody but root enters State.
func (c *Config) makeDirs() error {
	for _, f := range []struct {
		path string
		mode os.FileMode
	}{{c.State, 0o700}, {c.Run, 0o711}, {c.fifos(), 0o700}, {c.mounts(), 0o700}, {c.shimSockets(), 0o700}, {c.runcRoot(), 0o700}} {
		if err := os.MkdirAll(f.path, f.mode); err != nil {
			return err
		}
		if err := os.Chmod(f.path, f.mode); err != nil {
			return err
		}
	}
	return nil
}
