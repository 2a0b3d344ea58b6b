package containerd

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
)

// drainTimeout bounds the wait for an ended exec's output: a child that keeps it open does not hold the caller.
const drainTimeout = 2 * time.Second

// Exec runs a further process in a container, as the user and with the limits of its first one. When ctx ends the
// process is killed, and the error is ctx's. A reader given as Stdin may be read until it ends, also after Exec
// returned.
func (r *Runtime) Exec(ctx context.Context, id string, e runtime.Exec) (code int, err error) {
	if len(e.Argv) == 0 {
		return 0, fmt.Errorf("container %s: exec: no command: %w", id, errdefs.ErrInvalidArgument)
	}
	t, err := r.task(ctx, id)
	if err != nil {
		return 0, err
	}
	spec, err := r.execSpec(ctx, id, e)
	if err != nil {
		return 0, err
	}
	var stdin io.Reader
	ended := make(chan struct{})
	if e.Stdin != nil {
		stdin = &ending{e.Stdin, sync.OnceFunc(func() { close(ended) })}
	}
	if e.Stdout == nil {
		e.Stdout = io.Discard
	}
	if e.Stderr == nil {
		e.Stderr = io.Discard
	}
	streams := []cio.Opt{cio.WithStreams(stdin, e.Stdout, e.Stderr), cio.WithFIFODir(r.cfg.fifos())}
	if e.TTY {
		streams[0] = cio.WithStreams(stdin, e.Stdout, nil)
		streams = append(streams, cio.WithTerminal)
	}
	made, cancel := r.uncancelled(ctx)
	defer cancel()
	p, err := t.Exec(made, "x"+rand.Text(), spec, cio.NewCreator(streams...))
	if err != nil {
		return 0, fmt.Errorf("container %s: exec: %w", id, err)
	}
	defer func() {
		after, cancel := r.uncancelled(ctx)
		defer cancel()
		if _, derr := p.Delete(after, containerd.WithProcessKill); derr != nil && err == nil && !errdefs.IsNotFound(derr) {
			err = fmt.Errorf("container %s: exec: %w", id, derr)
		}
	}()
	return r.runExec(ctx, id, p, e, ended)
}

// ending is a reader that tells when it has ended.
type ending struct {
	io.Reader
	tell func()
}

func (e *ending) Read(b []byte) (int, error) {
	n, err := e.Reader.Read(b)
	if err != nil {
		e.tell()
	}
	return n, err
}

// uncancelled is a context for one step that must be whole: it ends after the limit of a call, not with its parent.
func (r *Runtime) uncancelled(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), r.limit)
}

// execSpec is the process of the container's own spec with other arguments and more environment.
func (r *Runtime) execSpec(ctx context.Context, id string, e runtime.Exec) (*specs.Process, error) {
	c, err := r.client.LoadContainer(ctx, containerID(id))
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	spec, err := c.Spec(ctx)
	if err != nil {
		return nil, fmt.Errorf("container %s: spec: %w", id, err)
	}
	if err := oci.WithEnv(e.Env)(ctx, nil, nil, spec); err != nil {
		return nil, err
	}
	p := spec.Process
	p.Args, p.Terminal, p.ConsoleSize = slices.Clone(e.Argv), e.TTY, nil
	if e.TTY {
		select {
		case s, ok := <-e.Resize: // one that is known before the start: the process never sees another
			if ok {
				p.ConsoleSize = &specs.Box{Width: uint(s.Columns), Height: uint(s.Rows)}
			}
		default:
		}
	}
	return p, nil
}

func (r *Runtime) runExec(
	ctx context.Context, id string, p containerd.Process, e runtime.Exec, stdinEnded <-chan struct{}) (int, error) {
	done, err := p.Wait(context.WithoutCancel(ctx))
	if err != nil {
		return 0, fmt.Errorf("container %s: exec: %w", id, err)
	}
	start, cancelStart := r.uncancelled(ctx) // half started it could not be killed
	defer cancelStart()
	if err := p.Start(start); err != nil {
		return 0, fmt.Errorf("container %s: exec: %w", id, err)
	}
	rctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() {
		select {
		case <-stdinEnded:
			p.CloseIO(rctx, containerd.WithStdinCloser) // the shim holds the pipe open until told; it may have ended
		case <-rctx.Done():
		}
	})
	if e.TTY && e.Resize != nil {
		beside.Go(func() { follow(rctx, p, e.Resize) })
	}
	select {
	case s := <-done:
		drain(p)
		if err := s.Error(); err != nil {
			return 0, fmt.Errorf("container %s: exec: %w", id, err)
		}
		return int(s.ExitCode()), nil
	case <-ctx.Done():
		kctx, cancel := r.uncancelled(ctx)
		defer cancel()
		if err := p.Kill(kctx, unix.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
			r.log.Warn("exec outlives its caller", "task", id, "err", err)
		}
		return 0, ctx.Err()
	}
}

// drain waits for the output of an ended process.
func drain(p containerd.Process) {
	defer time.AfterFunc(drainTimeout, p.IO().Cancel).Stop()
	p.IO().Wait()
}

// follow gives the terminal the sizes it is told until ctx ends.
func follow(ctx context.Context, p containerd.Process, sizes <-chan runtime.Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sizes:
			if !ok {
				return
			}
			p.Resize(ctx, uint32(s.Columns), uint32(s.Rows)) // a terminal that just closed needs none
		}
	}
}
