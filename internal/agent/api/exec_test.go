package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// one is a machine that runs a process in any task as a function says; nothing else of it is asked.
type one struct {
	runtime.Runtime
	run func(ctx context.Context, container string, x runtime.Exec) (int, error)
}

func (o one) Exec(ctx context.Context, container string, x runtime.Exec) (int, error) {
	return o.run(ctx, container, x)
}

// served serves the exec of a task that is in this state.
func served(t *testing.T, state kernel.State, run func(context.Context, string, runtime.Exec) (int,
	error)) *httptest.Server {
	t.Helper()
	h := New(Config{Runtime: one{run: run}, Log: slog.New(slog.DiscardHandler), Task: func(id kernel.TaskID) (Task, bool) {
		return Task{Container: "c-" + string(id), Status: kernel.Status{State: state}}, id == "t"
	}}).Handler()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true // as on an agent's connection: an answer begins before its request has ended
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// frames writes frames one after the other: kind, payload, kind, payload.
func frames(t *testing.T, all ...any) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	for i := 0; i < len(all); i += 2 {
		if err := kernel.WriteExecFrame(&b, all[i].(kernel.ExecKind), []byte(all[i+1].(string))); err != nil {
			t.Fatal(err)
		}
	}
	return &b
}

// exec asks for a process and returns its status, its output by kind, and how it ended.
func exec(t *testing.T, srv *httptest.Server, task string, body io.Reader) (status int, out map[kernel.ExecKind]string,
	end kernel.ExecResult) {
	t.Helper()
	resp, err := srv.Client().Post(srv.URL+kernel.ExecPath(kernel.TaskID(task)), "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out = map[kernel.ExecKind]string{}
	for resp.StatusCode == http.StatusOK {
		kind, payload, err := kernel.ReadExecFrame(resp.Body)
		if err != nil {
			break
		}
		if out[kind] += string(payload); kind == kernel.ExecExit {
			if err := json.Unmarshal(payload, &end); err != nil {
				t.Error(err)
			}
		}
	}
	return resp.StatusCode, out, end
}

func TestAProcessHasItsInputAndItsEndIsTheLastFrame(t *testing.T) {
	var got runtime.Exec
	srv := served(t, kernel.Running, func(_ context.Context, container string, x runtime.Exec) (int, error) {
		got = x
		in, err := io.ReadAll(x.Stdin)
		if err != nil || container != "c-t" {
			t.Errorf("in %s: %v", container, err)
		}
		_, err = x.Stdout.Write(bytes.Repeat(in, kernel.MaxExecFrame))
		_, eerr := io.WriteString(x.Stderr, "a warning")
		return 3, errors.Join(err, eerr)
	})
	status, out, end := exec(t, srv, "t", frames(t, kernel.ExecStart, `{"argv": ["cat", "-"], "env": ["A=b"]}`,
		kernel.ExecStdin, "ab",
		kernel.ExecStdin, "c", kernel.ExecStdinEOF, ""))
	if status != http.StatusOK || out[kernel.ExecStdout] != strings.Repeat("abc", kernel.MaxExecFrame) ||
		out[kernel.ExecStderr] != "a warning" ||
		end != (kernel.ExecResult{Code: 3}) {
		t.Errorf("status %d, %d bytes and %q, end %+v", status, len(out[kernel.ExecStdout]), out[kernel.ExecStderr], end)
	}
	if strings.Join(got.Argv, " ") != "cat -" || strings.Join(got.Env, " ") != "A=b" || got.TTY {
		t.Errorf("ran %+v", got)
	}
}

func TestATerminalHasTheSizeItWasGivenLast(t *testing.T) {
	first := make(chan runtime.Size, 1)
	srv := served(t, kernel.Killing, func(_ context.Context, _ string, x runtime.Exec) (int, error) {
		if _, err := io.ReadAll(x.Stdin); err != nil { // sizes have come when the input has ended
			t.Error(err)
		}
		first <- <-x.Resize
		return 0, nil
	})
	exec(t, srv, "t", frames(t, kernel.ExecStart, `{"argv": ["sh"], "tty": true, "size": {"columns": 80, "rows": 24}}`,
		kernel.ExecResize, `{"columns": 100, "rows": 30}`, kernel.ExecResize, `{"columns": 120, "rows": 40}`,
		kernel.ExecStdinEOF, ""))
	if got := <-first; got != (runtime.Size{Columns: 120, Rows: 40}) {
		t.Errorf("size %+v, want the last", got)
	}
}

func TestAProcessWhoseClientTalksNonsenseEnds(t *testing.T) {
	for what, after := range map[string]*bytes.Buffer{
		"a frame of an agent's": frames(t, kernel.ExecStdout, "x"),
		"a size that is none":   frames(t, kernel.ExecResize, "large"),
		"no frame":              bytes.NewBufferString("GET / HTTP/1.1\r\n\r\n"),
		"half a frame":          bytes.NewBuffer(frames(t, kernel.ExecStdin, "hello").Bytes()[:7]),
	} {
		srv := served(t, kernel.Running, func(ctx context.Context, _ string, x runtime.Exec) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		})
		_, _, end := exec(t, srv, "t", io.MultiReader(frames(t, kernel.ExecStart, `{"argv": ["sleep", "600"]}`), after))
		if end.Error == "" {
			t.Errorf("%s: ended with %+v, want that it was cut off and why", what, end)
		}
	}
}

func TestWhatCannotBeRunIsRefusedBeforeTheFirstByte(t *testing.T) {
	never := func(context.Context, string, runtime.Exec) (int, error) {
		t.Error("something ran")
		return 0, nil
	}
	start := `{"argv": ["true"]}`
	for what, c := range map[string]struct {
		state  kernel.State
		task   string
		body   io.Reader
		status int
	}{
		"another machine's task": {kernel.Running, "other", frames(t, kernel.ExecStart, start), http.StatusNotFound},
		"one that starts":        {kernel.Starting, "t", frames(t, kernel.ExecStart, start), http.StatusNotFound},
		"one that has ended":     {kernel.Finished, "t", frames(t, kernel.ExecStart, start), http.StatusNotFound},
		"input first":            {kernel.Running, "t", frames(t, kernel.ExecStdin, start), http.StatusBadRequest},
		"no program":             {kernel.Running, "t", frames(t, kernel.ExecStart, `{"argv": []}`), http.StatusBadRequest},
		"no JSON":                {kernel.Running, "t", frames(t, kernel.ExecStart, "true"), http.StatusBadRequest},
		"nothing":                {kernel.Running, "t", strings.NewReader(""), http.StatusBadRequest},
	} {
		if status, _, _ := exec(t, served(t, c.state, never), c.task, c.body); status != c.status {
			t.Errorf("%s: status %d, want %d", what, status, c.status)
		}
	}
}
