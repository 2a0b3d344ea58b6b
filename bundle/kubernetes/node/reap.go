package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// A Reaper starts processes and waits for them and for every orphan, which are its children too in the first process of
// a container. os/exec cannot be used beside it: both would wait for the same child.
type Reaper struct {
	mu   sync.Mutex
	ours map[int]chan syscall.WaitStatus // started here and not ended yet; guarded by mu
}

// Start starts a process in a session of its own, its output going to out, and returns its id and where its status will
// come, once. The session keeps terminals and signals to groups apart.
func (r *Reaper) Start(args, env []string, out *os.File) (int, <-chan syscall.WaitStatus, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	r.mu.Lock() // over the start, so that reap knows a child that ends at once
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{
		Env: env, Dir: "/", Files: []uintptr{null.Fd(), out.Fd(), out.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, &os.PathError{Op: "start", Path: args[0], Err: err}
	}
	ended := make(chan syscall.WaitStatus, 1)
	if r.ours == nil {
		r.ours = map[int]chan syscall.WaitStatus{}
	}
	r.ours[pid] = ended
	return pid, ended, nil
}

// Signal sends a signal to a process that Start started, unless it has been waited for: its id may be another's then.
func (r *Reaper) Signal(pid int, s syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.ours[pid]; ok {
		_ = syscall.Kill(pid, s) // fails only if there is nobody to tell
	}
}

// Output runs a program to its end, or kills it at ctx's, and returns what it wrote, at most maxConfig bytes. That is
// the error's text too if it fails.
func (r *Reaper) Output(ctx context.Context, args, env []string) (string, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer in.Close()
	pid, ended, err := r.Start(args, env, out)
	out.Close()
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { r.Signal(pid, syscall.SIGKILL) })
	defer stop()
	said, err := io.ReadAll(io.LimitReader(in, maxConfig))
	_, _ = io.Copy(io.Discard, in)
	status := <-ended
	if err == nil && status != 0 {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(args[0]), reason(status), strings.TrimSpace(string(said)))
	}
	return string(said), err
}

// Run waits for whatever ended, once for every signal of SIGCHLD that comes in, until ended is closed.
func (r *Reaper) Run(ended <-chan os.Signal) {
	for range ended {
		for r.reap() { // one signal may stand for many children
		}
	}
}

// reap waits for one child that has ended, and says whether there was one.
func (r *Reaper) reap() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if ended, ok := r.ours[pid]; ok {
		ended <- status
		delete(r.ours, pid)
	}
	return true
}
