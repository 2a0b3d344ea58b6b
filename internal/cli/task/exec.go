package task

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kernel"
)

func exec(e *command.Env) *cobra.Command {
	var tty bool
	c := &cobra.Command{Use: "exec TASK -- COMMAND [ARG...]",
		Short: "Run a command in a task; its exit code is this command's",
		Args:  command.AtLeast(2), ValidArgsFunction: completeTasks(e), RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			t, err := find(c.Context(), cl, args[0])
			if err != nil {
				return err
			}
			return run(c.Context(), e, cl, t.ID, kernel.ExecRequest{Argv: args[1:], TTY: tty})
		}}
	c.Flags().BoolVarP(&tty, "tty", "t", false, "give the command a terminal")
	return c
}

// run runs a command in a task over one full-duplex request.
func run(ctx context.Context, e *command.Env, cl *client.Client, task string, start kernel.ExecRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	var resized *os.File // the terminal whose size is the command's
	if in, ok := output.Terminal(e.In); ok && start.TTY {
		start.Size = size(in)
		start.Env = []string{"TERM=" + cmp.Or(os.Getenv("TERM"), "xterm")}
		old, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		defer term.Restore(int(in.Fd()), old)
		resized = in
	}
	go feed(ctx, pw, start, e.In, resized) // ends when the request does: the pipe breaks
	resp, err := cl.Request(ctx, http.MethodPost, "/tasks/v1/"+url.PathEscape(task)+"/exec", pr,
		"application/octet-stream")
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return client.Refused(resp)
	}
	defer resp.Body.Close()
	return copyOut(resp.Body, e.Out, e.Err, task)
}

// copyOut copies what a command writes until it ends, and returns how that was.
func copyOut(r io.Reader, out, errOut io.Writer, task string) error {
	for {
		kind, payload, err := kernel.ReadExecFrame(r)
		if err != nil {
			return &exit.Error{Code: exit.Unreachable, Message: "the connection to the task was lost",
				Next: "marina task show " + task}
		}
		switch kind {
		case kernel.ExecStdout:
			out.Write(payload)
		case kernel.ExecStderr:
			errOut.Write(payload)
		case kernel.ExecExit:
			var r kernel.ExecResult
			if err := json.Unmarshal(payload, &r); err != nil {
				return err
			}
			if r.Error != "" {
				return &exit.Error{Code: exit.Failed, Message: r.Error}
			}
			if r.Code != 0 {
				return exit.Status(r.Code)
			}
			return nil
		}
	}
}

// frame writes one frame of a request.
type frame func() error

// feed sends the request's body: what to run, then the input and the sizes of the terminal, if there is one.
func feed(ctx context.Context, w *io.PipeWriter, start kernel.ExecRequest, in io.Reader, resized *os.File) {
	frames := make(chan frame, 16)
	send := func(kind kernel.ExecKind, value any) frame {
		return func() error {
			b, err := json.Marshal(value)
			if err != nil {
				return err
			}
			return kernel.WriteExecFrame(w, kind, b)
		}
	}
	frames <- send(kernel.ExecStart, start)
	go pump(ctx, in, w, frames)
	if resized != nil {
		winch := make(chan os.Signal, 1)
		signal.Notify(winch, syscall.SIGWINCH)
		defer signal.Stop(winch)
		go func() {
			for {
				select {
				case <-winch:
					put(ctx, frames, send(kernel.ExecResize, size(resized)))
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	for {
		select {
		case <-ctx.Done():
			w.CloseWithError(ctx.Err())
			return
		case write := <-frames:
			if err := write(); err != nil {
				w.CloseWithError(err)
				return
			}
		}
	}
}

// put queues a frame unless ctx ends first.
func put(ctx context.Context, frames chan<- frame, f frame) bool {
	select {
	case frames <- f:
		return true
	case <-ctx.Done():
		return false
	}
}

// pump turns input into frames until it ends.
func pump(ctx context.Context, in io.Reader, w io.Writer, frames chan<- frame) {
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			payload := append([]byte(nil), buf[:n]...)
			if !put(ctx, frames, func() error { return kernel.WriteExecFrame(w, kernel.ExecStdin, payload) }) {
				return
			}
		}
		if err != nil {
			put(ctx, frames, func() error { return kernel.WriteExecFrame(w, kernel.ExecStdinEOF, nil) })
			return
		}
	}
}

func size(f *os.File) kernel.ExecSize {
	w, h, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return kernel.ExecSize{Columns: output.Columns, Rows: 24}
	}
	return kernel.ExecSize{Columns: uint16(w), Rows: uint16(h)}
}
