package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// serveExec runs a process in a task, in the frames of kernel.ExecKind. It ends with the process, or when the client
// goes.
func (p *API) serveExec(w http.ResponseWriter, r *http.Request) error {
	id := kernel.TaskID(r.PathValue("id"))
	t, ok := p.cfg.Task(id)
	if !ok || !t.Up() {
		return fmt.Errorf("task %.200s does not run here: %w", id, errdefs.ErrNotFound)
	}
	kind, payload, err := kernel.ReadExecFrame(r.Body)
	if err != nil {
		return fmt.Errorf("exec: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	var req kernel.ExecRequest
	if err := json.Unmarshal(payload, &req); kind != kernel.ExecStart || err != nil || len(req.Argv) == 0 {
		return fmt.Errorf("exec begins with a frame that says what to run: %w", errdefs.ErrInvalidArgument)
	}
	out := &execWriter{w: w, control: http.NewResponseController(w)}
	w.WriteHeader(http.StatusOK)
	if err := out.control.Flush(); err != nil {
		return nil
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	stdin, feed := io.Pipe()
	resize := make(chan runtime.Size, 1)
	if req.TTY && req.Size != (kernel.ExecSize{}) {
		resize <- runtime.Size(req.Size)
	}
	var in sync.WaitGroup
	in.Go(func() { cancelUnlessEOF(cancel, readExec(r.Body, feed, resize)) })
	code, err := p.cfg.Runtime.Exec(ctx, t.Container, runtime.Exec{Argv: req.Argv, Env: req.Env,
		TTY: req.TTY, Stdin: stdin,
		Stdout: out.stream(kernel.ExecStdout), Stderr: out.stream(kernel.ExecStderr), Resize: resize})
	stdin.Close()
	res := kernel.ExecResult{Code: code}
	if err != nil {
		res.Error = err.Error()
	}
	b, err := json.Marshal(res)
	if err == nil {
		_ = out.frame(kernel.ExecExit, b) // a client that went away needs no answer
	}
	r.Body.Close() // ends the reader
	in.Wait()
	return nil
}

func cancelUnlessEOF(cancel context.CancelCauseFunc, err error) {
	if err != nil {
		cancel(err)
	}
}

// readExec hands the client's frames to the process. Nil means that the client said all it had to say.
func readExec(body io.Reader, feed *io.PipeWriter, resize chan runtime.Size) error {
	defer feed.Close()
	for {
		kind, payload, err := kernel.ReadExecFrame(body)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch kind {
		case kernel.ExecStdin:
			_, _ = feed.Write(payload) // a process that reads no more is no error
		case kernel.ExecStdinEOF:
			feed.Close()
		case kernel.ExecResize:
			var size kernel.ExecSize
			if err := json.Unmarshal(payload, &size); err != nil {
				return fmt.Errorf("exec size: %w", errdefs.ErrInvalidArgument)
			}
			select { // only the latest matters
			case <-resize:
			default:
			}
			select {
			case resize <- runtime.Size(size):
			default:
			}
		default:
			return fmt.Errorf("exec frame of kind %d from a client: %w", kind, errdefs.ErrInvalidArgument)
		}
	}
}

// execWriter writes frames, one at a time.
type execWriter struct {
	mu      sync.Mutex
	w       io.Writer // guarded by mu
	control *http.ResponseController
}

func (e *execWriter) frame(kind kernel.ExecKind, p []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := kernel.WriteExecFrame(e.w, kind, p); err != nil {
		return err
	}
	return e.control.Flush()
}

func (e *execWriter) stream(kind kernel.ExecKind) io.Writer { return execStream{e, kind} }

type execStream struct {
	e    *execWriter
	kind kernel.ExecKind
}

func (s execStream) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += kernel.MaxExecFrame {
		if err := s.e.frame(s.kind, p[n:min(len(p), n+kernel.MaxExecFrame)]); err != nil {
			return n, err
		}
	}
	return len(p), nil
}
