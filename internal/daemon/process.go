package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/settings"
)

// logger writes to standard error, which `marina up` sends to a file.
func (c *config) logger() *slog.Logger {
	level := slog.LevelInfo
	if c.Verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// lock takes a file for as long as this process lives. One that a process holds is errdefs.ErrUnavailable.
func lock(ctx context.Context, path string) (*durable.Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return durable.TakeLock(ctx, path)
}

// writePID takes a pid file: its lock says that the process lives, its content which one it is.
func (c *config) writePID(ctx context.Context, path string) (release func(), err error) {
	if err := c.checkState(); err != nil {
		return nil, err
	}
	f, err := lock(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := f.WritePID(); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// Running reports whether a daemon lives on a state directory, also one that does not answer yet.
func Running(cfg settings.Datacenter) bool {
	abs, err := filepath.Abs(cfg.State)
	if err != nil {
		return false
	}
	return durable.Holder((&config{Datacenter: settings.Datacenter{State: abs}}).daemonPID()) != 0
}

// Between two starts of an agent that dies at once.
const (
	firstWait = 100 * time.Millisecond
	longWait  = 5 * time.Second
)

// keepAgent has the machine's agent running until ctx ends. One that runs is left alone if it is of this build, and
// replaced otherwise; one that dies, or cannot be started now, is started again. When ctx ends the agent goes on.
func (c *config) keepAgent(ctx context.Context, build string, log *slog.Logger) error {
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, longWait) {
		begun := time.Now()
		pid, err := c.oneAgent(ctx, build, log)
		if ctx.Err() != nil {
			break
		}
		log.Warn("agent ended, starting it again", "pid", pid, "err", err)
		if time.Since(begun) > longWait {
			wait = firstWait
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// oneAgent finds or starts an agent and returns when it has ended.
func (c *config) oneAgent(ctx context.Context, build string, log *slog.Logger) (pid int, err error) {
	pid = durable.Holder(c.agentPID())
	if b, _ := os.ReadFile(c.path("run", "agent.build")); pid != 0 && string(b) != build {
		log.Info("agent is of another build, replacing it", "pid", pid)
		if err := end(ctx, pid, 10*time.Second); err != nil {
			return pid, err
		}
		pid = 0
	}
	if pid == 0 {
		if pid, err = c.startAgent(build, log); err != nil {
			return 0, err
		}
		log.Info("agent started", "pid", pid)
	}
	return pid, waitFor(ctx, pid)
}

// maxLog is the size from which a process' log is rotated at its start; the one before it is kept.
const maxLog = 8 << 20

func openLog(path string) (*os.File, error) {
	if fi, err := os.Stat(path); err == nil && fi.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// startAgent starts the agent's process in a session of its own, so that it outlives this one.
func (c *config) startAgent(build string, log *slog.Logger) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	logs, err := openLog(c.path("log", "agent.log"))
	if err != nil {
		return 0, err
	}
	defer logs.Close()
	cmd := exec.Command(self, "agent", "--state", c.State) // its settings are there
	cmd.Stdout, cmd.Stderr, cmd.Dir = logs, logs, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("agent: %w", err)
	}
	go cmd.Wait() // reaps it; waitFor watches it
	if err := replaceFile(c.path("run", "agent.build"), []byte(build), 0o600); err != nil {
		log.Warn("agent's build not noted, the next daemon replaces the agent", "pid", cmd.Process.Pid, "err", err)
	}
	return cmd.Process.Pid, nil
}

// waitFor returns nil when a process has ended, and ctx's error before that.
func waitFor(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil //nolint:nilerr // there is no such process
	}
	defer unix.Close(fd)
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 250)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("process %d: %w", pid, err)
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// end asks a process to end, and makes it end after the limit.
func end(ctx context.Context, pid int, limit time.Duration) error {
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return nil //nolint:nilerr // there is no such process
	}
	soft, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if waitFor(soft, pid) == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	return waitFor(ctx, pid)
}
