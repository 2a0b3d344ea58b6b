package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// logger writes to standard error, which `marina up` sends to a file.
func (s *site) logger() *slog.Logger {
	level := slog.LevelInfo
	if s.Verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// raiseLimits asks for more open files and inotify watches than a machine gives by default. Not getting them is said, once.
func raiseLimits(log *slog.Logger) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err == nil && l.Cur < l.Max {
		l.Cur = l.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			log.Warn("open files stay limited", "limit", l.Cur, "err", err)
		}
	}
}

// lock takes a file for as long as this process lives. One that is taken is errdefs.ErrUnavailable.
func lock(path string) (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is held by another process: %w", path, errdefs.ErrUnavailable)
	}
	return func() { f.Close() }, nil
}

// writePID takes a pid file: its lock says that the process lives, its content which one it is.
func (s *site) writePID(path string) (release func(), err error) {
	release, err = lock(path)
	if err != nil {
		return nil, err
	}
	return release, os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0o600)
}

// alive returns the process that holds a pid file, 0 if none does.
func alive(path string) int {
	release, err := lock(path)
	if err == nil {
		release()
		return 0
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// Between two starts of an agent that dies at once.
const (
	firstWait = 100 * time.Millisecond
	longWait  = 5 * time.Second
)

// keepAgent has the machine's agent running until ctx ends. One that runs is left alone if it is of this build, and replaced
// otherwise; one that dies is started again. When ctx ends the agent goes on.
func (s *site) keepAgent(ctx context.Context, build string, log *slog.Logger) error {
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, longWait) {
		pid := alive(s.agentPID())
		if b, _ := os.ReadFile(s.path("run", "agent.build")); pid != 0 && string(b) != build {
			log.Info("agent is of another build, replacing it", "pid", pid)
			if err := end(ctx, pid, 10*time.Second); err != nil {
				return err
			}
			pid = 0
		}
		begun := time.Now()
		if pid == 0 {
			var err error
			if pid, err = s.startAgent(build); err != nil {
				return err
			}
			log.Info("agent started", "pid", pid)
		}
		if err := waitFor(ctx, pid); err != nil {
			return nil //nolint:nilerr // ctx ended: the agent goes on
		}
		log.Warn("agent ended, starting it again", "pid", pid)
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

// startAgent starts the agent's process in a session of its own, so that it outlives this one.
func (s *site) startAgent(build string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	logs, err := os.OpenFile(s.path("log", "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer logs.Close()
	args := append([]string{"agent"}, os.Args[2:]...) // the daemon's own flags
	cmd := exec.Command(self, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = logs, logs, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("agent: %w", err)
	}
	go cmd.Wait() // reaps it; waitFor watches it
	return cmd.Process.Pid, os.WriteFile(s.path("run", "agent.build"), []byte(build), 0o600)
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
