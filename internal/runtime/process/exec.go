package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
)

// straggle bounds the wait for output of a process's children after its end.
const straggle = 500 * time.Millisecond

// Exec runs a further process with the container's environment and directory.
func (r *Runtime) Exec(ctx context.Context, id string, e runtime.Exec) (int, error) {
	f, err := r.find(id)
	if err != nil {
		return 0, err
	}
	if !f.Running || len(e.Argv) == 0 {
		return 0, fmt.Errorf("container %s does not run, or nothing was said to run in it: %w",
			id, errdefs.ErrFailedPrecondition)
	}
	c, err := r.load(id)
	if err != nil {
		return 0, err
	}
	_, env, dir := command(&c)
	cmd := exec.CommandContext(ctx, e.Argv[0], e.Argv[1:]...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = append(env, e.Env...), dir, straggle
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if e.TTY {
		err = runTTY(ctx, cmd, e)
	} else {
		err = runPipes(cmd, e)
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if x, ok := errors.AsType[*exec.ExitError](err); ok {
		if s, ok := x.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return 128 + int(s.Signal()), nil
		}
		return x.ExitCode(), nil
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return 0, fmt.Errorf("container %s: %w", id, err)
	}
	return 0, nil
}

// runPipes runs cmd. What is left of stdin when it ends is not read.
func runPipes(cmd *exec.Cmd, e runtime.Exec) error {
	cmd.Stdout, cmd.Stderr = e.Stdout, e.Stderr
	if e.Stdin != nil {
		w, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() { // ends when the caller closes its stdin, which it does after Exec
			_, _ = io.Copy(w, e.Stdin)
			w.Close()
		}()
	}
	return cmd.Run()
}

// runTTY runs cmd on a terminal of its own.
func runTTY(ctx context.Context, cmd *exec.Cmd, e runtime.Exec) error {
	master, slave, err := openTerminal()
	if err != nil {
		return err
	}
	defer master.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setctty = true
	err = cmd.Start()
	slave.Close()
	if err != nil {
		return err
	}
	var out sync.WaitGroup
	out.Go(func() { _, _ = io.Copy(e.Stdout, master) }) // ends with EIO once no process has the terminal open
	if e.Stdin != nil {
		go func() { _, _ = io.Copy(master, e.Stdin) }() // as above
	}
	rctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out.Go(func() {
		for {
			select {
			case <-rctx.Done():
				return
			case s, ok := <-e.Resize:
				if !ok {
					return
				}
				resize(master, s)
			}
		}
	})
	err = cmd.Wait()
	cancel()
	_ = master.SetReadDeadline(time.Now().Add(straggle)) // children may hold the terminal
	out.Wait()
	return err
}

// resize goes around master.Fd, which would make reads from it block past their deadline.
func resize(master *os.File, s runtime.Size) {
	if c, err := master.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) {
			_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Columns})
		})
	}
}

func openTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	return master, slave, nil
}
