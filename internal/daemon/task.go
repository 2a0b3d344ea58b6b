package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes"
)

// taskExec runs a program in a task and returns its exit code; what it says on either stream goes to out.
func (t *term) taskExec(ctx context.Context, agent kernel.AgentID, task kernel.TaskID, argv []string, in io.Reader,
	out io.Writer) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := t.master.AgentClient(agent)
	if err != nil {
		return 0, err
	}
	body, pipe := io.Pipe()
	defer body.Close()
	sent := make(chan struct{})
	defer func() { <-sent }()
	defer cancel()
	go func() {
		defer close(sent)
		pipe.CloseWithError(feed(pipe, argv, in))
	}()
	defer body.CloseWithError(io.ErrClosedPipe) // unblocks feed
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"https://agent"+kernel.ExecPath(kernel.TaskID(url.PathEscape(string(task)))), body)
	if err != nil {
		return 0, err
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return 0, fmt.Errorf("task %s: %s: %s: %w", task, resp.Status, said, errdefs.ErrFailedPrecondition)
	}
	for {
		kind, payload, err := kernel.ReadExecFrame(resp.Body)
		if err != nil {
			return 0, fmt.Errorf("task %s: %w", task, err)
		}
		switch kind {
		case kernel.ExecStdout, kernel.ExecStderr:
			if _, err := out.Write(payload); err != nil {
				return 0, err
			}
		case kernel.ExecExit:
			var res kernel.ExecResult
			if err := json.Unmarshal(payload, &res); err != nil {
				return 0, err
			}
			if res.Error != "" {
				return 0, fmt.Errorf("task %s: %s: %w", task, res.Error, errdefs.ErrUnknown)
			}
			return res.Code, nil
		}
	}
}

// feed writes what is to run and its input as exec frames.
func feed(w io.Writer, argv []string, in io.Reader) error {
	start, err := json.Marshal(kernel.ExecRequest{Argv: argv})
	if err != nil {
		return err
	}
	if err := kernel.WriteExecFrame(w, kernel.ExecStart, start); err != nil {
		return err
	}
	buf := make([]byte, kernel.MaxExecFrame)
	for in != nil {
		n, err := in.Read(buf)
		if n > 0 {
			if err := kernel.WriteExecFrame(w, kernel.ExecStdin, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return kernel.WriteExecFrame(w, kernel.ExecStdinEOF, nil)
}

// taskUsage asks an agent what a task uses.
func (t *term) taskUsage(ctx context.Context, agent kernel.AgentID, task kernel.TaskID) (kubernetes.Cost, error) {
	var u kernel.Usage
	client, err := t.master.AgentClient(agent)
	if err != nil {
		return kubernetes.Cost{}, err
	}
	err = getJSON(ctx, client, "https://agent/agent/v1/tasks/"+url.PathEscape(string(task))+"/usage", &u)
	return kubernetes.Cost{Private: float64(u.Private) / float64(kernel.MiB),
		Shared: float64(u.Shared) / float64(kernel.MiB), CPU: u.CPU}, err
}

func getJSON(ctx context.Context, client http.RoundTripper, address string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return json.Unmarshal(raw, v)
	case http.StatusNotFound:
		return fmt.Errorf("%.200s: %w", raw, errdefs.ErrNotFound)
	case http.StatusForbidden:
		return fmt.Errorf("%.200s: %w", raw, errdefs.ErrPermissionDenied)
	}
	return fmt.Errorf("%s: %.200s: %w", resp.Status, raw, errdefs.ErrUnavailable)
}
