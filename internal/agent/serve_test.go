package agent_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/agent/api"
	"github.com/marinaos/marina/internal/kernel"
)

// TestRotationLosesNoLine has a process write numbered lines as fast as it can while its output is rotated many times,
// and a follower that reads along.
func TestRotationLosesNoLine(t *testing.T) {
	w := newWorld(t)
	w.cfg.LogLimit, w.cfg.LogKeep, w.cfg.LogInterval = 16<<10, 500, time.Millisecond
	w.start()
	const lines = 60_000
	w.master.launch(specOf(fmt.Sprintf(`i=0; while [ $i -lt %d ]; do i=$((i+1)); echo "line number $i is here"; done; echo end`, lines)), kernel.Assignment{ID: "log"})
	w.master.reaches("log.t0", kernel.Finished)
	code, all := w.master.get("/agent/v1/tasks/log.t0/logs/stdout")
	if code != http.StatusOK {
		t.Fatalf("got %d %s", code, all)
	}
	i := 0
	for line := range strings.Lines(all) {
		if i++; i <= lines && line != fmt.Sprintf("line number %d is here\n", i) {
			t.Fatalf("line %d: got %q", i, line)
		}
	}
	if i != lines+1 {
		t.Errorf("got %d lines, want %d", i, lines+1)
	}
	rotated, _ := filepath.Glob(w.cfg.State + "/sandboxes/log.t0/stdout.*")
	if len(rotated) < 5 {
		t.Errorf("got rotated files %v, want several", rotated)
	}
	t.Logf("%d rotations", len(rotated))
}

func TestFollowedLogGoesOnOverRotationsUntilTheEnd(t *testing.T) {
	w := newWorld(t)
	w.cfg.LogLimit, w.cfg.LogInterval = 16<<10, time.Millisecond
	w.start()
	w.master.launch(specOf(`i=0; while [ $i -lt 40 ]; do seq -f "$i %05.0f ...................................." 1 100; i=$((i+1)); sleep 0.02; done; echo end`),
		kernel.Assignment{ID: "log"})
	w.master.reaches("log.t0", kernel.Running)
	code, all := w.master.get("/agent/v1/tasks/log.t0/logs/stdout?follow=true")
	n := 0
	for line := range strings.Lines(all) {
		if n++; n <= 4000 && !strings.HasPrefix(line, fmt.Sprintf("%d %05d ", (n-1)/100, (n-1)%100+1)) {
			t.Fatalf("line %d: got %q", n, line)
		}
	}
	if code != http.StatusOK || n != 4001 || !strings.HasSuffix(all, "end\n") {
		t.Errorf("got %d and %d lines, want all 4001", code, n)
	}
	kept, _ := filepath.Glob(w.cfg.State + "/sandboxes/log.t0/stdout*")
	if len(kept) != 3 {
		t.Errorf("got files %v, want the current and two rotated ones", kept)
	}
	// Offsets count from the first byte ever written, also for those that are not kept.
	res := w.master.request(http.MethodGet, fmt.Sprintf("/agent/v1/tasks/log.t0/logs/stdout?offset=%d", len(all)-4), nil)
	if b, _ := io.ReadAll(res.Body); string(b) != "end\n" {
		t.Errorf("from the fourth byte before the end: got %q", b)
	}
	res = w.master.request(http.MethodGet, "/agent/v1/tasks/log.t0/logs/stdout?offset=-10&limit=6", nil)
	if b, _ := io.ReadAll(res.Body); string(b) != all[len(all)-10:len(all)-4] || res.Header.Get("Marina-Offset") != strconv.Itoa(len(all)-10) {
		t.Errorf("six of the last ten bytes: got %q at %s", b, res.Header.Get("Marina-Offset"))
	}
	res = w.master.request(http.MethodGet, "/agent/v1/tasks/log.t0/logs/stdout", nil)
	b, _ := io.ReadAll(res.Body)
	if at, _ := strconv.Atoi(res.Header.Get("Marina-Offset")); at == 0 || string(b) != all[at:] {
		t.Errorf("from the start: got %d bytes at %d, want the kept rest of %d", len(b), at, len(all))
	}
	for path, want := range map[string]int{"/agent/v1/tasks/none/logs/stdout": 404, "/agent/v1/tasks/log.t0/logs/other": 400,
		"/agent/v1/tasks/log.t0/logs/stdout?offset=x": 400, "/agent/v1/tasks/log.t0/logs/stdout?limit=-1": 400, "/agent/v1/tasks/..%2f..%2fx/logs/stdout": 400} {
		if code, _ := w.master.get(path); code != want {
			t.Errorf("%s: got %d, want %d", path, code, want)
		}
	}
}

func TestFilesStayInTheSandbox(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "f"})
	w.master.reaches("f.t0", kernel.Running)
	box := filepath.Join(w.cfg.State, "sandboxes/f.t0")
	for name, content := range map[string]string{"out.html": "<script>", "dir/inner": "in"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(box, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(box, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"passwd": "/etc/passwd", "up": "../../agent.ckpt", "etc": "/etc", "here": "dir/inner", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(box, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(box, "pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	base := "/agent/v1/tasks/f.t0/files/"
	for path, want := range map[string]struct {
		code int
		body string
	}{
		"out.html": {200, "<script>"}, "dir/inner": {200, "in"}, "here": {200, "in"}, "none": {404, ""},
		"passwd": {403, ""}, "up": {403, ""}, "etc/passwd": {403, ""}, "loop": {403, ""}, "pipe": {403, ""},
		"..%2f..%2fagent.ckpt": {404, ""}, "%2e%2e/%2e%2e/agent.ckpt": {404, ""},
	} {
		res := w.master.request(http.MethodGet, base+path, nil)
		b, _ := io.ReadAll(res.Body)
		// Paths that climb are either cleaned by the server, which redirects, or by us, which finds nothing.
		if res.StatusCode != want.code && !(want.code == 404 && res.StatusCode == 307) || want.body != "" && string(b) != want.body {
			t.Errorf("%s: got %d %q, want %d %q", path, res.StatusCode, b, want.code, want.body)
		}
		if want.code == 200 && res.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: got type %s", path, res.Header.Get("Content-Type"))
		}
	}
	var list []struct {
		Name string
		Dir  bool `json:"folder"`
	}
	_, body := w.master.get(base)
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 10 || list[0].Name != "dir" || !list[0].Dir {
		t.Errorf("listing: got %v of %s, want 10 entries, dir first", err, body)
	}
}

func TestLogsStayInTheSandbox(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.launch(specOf("echo hello; exec sleep 600"), kernel.Assignment{ID: "l"})
	w.master.reaches("l.t0", kernel.Running)
	box := filepath.Join(w.cfg.State, "sandboxes/l.t0")
	eventually(t, "it wrote", func() bool { return readFile(t, box+"/stdout") == "hello\n" })
	if err := os.Rename(box+"/stdout", box+"/moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(box + "/stderr"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to, says string
		want     int
	}{
		{"/etc/passwd", "leads out of the task's sandbox", 403}, {"../../agent.ckpt", "leads out of the task's sandbox", 403},
		{"stdout", "leads out of the task's sandbox", 403}, {"stderr", "leads out of the task's sandbox", 403},
		{"none", "no such file", 404}, {"moved", "hello", 200},
	} {
		for _, stream := range []string{"stdout", "stderr"} {
			if err := os.Symlink(c.to, filepath.Join(box, stream)); err != nil {
				t.Fatal(err)
			}
		}
		for _, stream := range []string{"stdout", "stderr"} {
			if code, body := w.master.get("/agent/v1/tasks/l.t0/logs/" + stream); code != c.want || !strings.Contains(body, c.says) {
				t.Errorf("%s linked to %s: got %d %q, want %d %q", stream, c.to, code, body, c.want, c.says)
			}
		}
		for _, stream := range []string{"stdout", "stderr"} {
			if err := os.Remove(filepath.Join(box, stream)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// exec runs something in a task as a client does.
func (w *world) exec(task kernel.TaskID, req kernel.ExecRequest, talk func(send func(kernel.ExecKind, []byte))) (out, errs string, res kernel.ExecResult) {
	w.t.Helper()
	r, pw := io.Pipe()
	answer := make(chan *http.Response, 1)
	go func() { answer <- w.master.request(http.MethodPost, kernel.ExecPath(task), r) }()
	start, _ := json.Marshal(req)
	send := func(k kernel.ExecKind, b []byte) {
		if err := kernel.WriteExecFrame(pw, k, b); err != nil {
			w.t.Error(err)
		}
	}
	send(kernel.ExecStart, start)
	talk(send)
	body := <-answer
	if body.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(body.Body)
		w.t.Fatalf("exec: got %s %s", body.Status, b)
	}
	for {
		kind, p, err := kernel.ReadExecFrame(body.Body)
		if err != nil {
			w.t.Fatalf("exec: %v before its end", err)
		}
		switch kind {
		case kernel.ExecStdout:
			out += string(p)
		case kernel.ExecStderr:
			errs += string(p)
		case kernel.ExecExit:
			if err := json.Unmarshal(p, &res); err != nil {
				w.t.Fatal(err)
			}
			pw.Close()
			return out, errs, res
		}
	}
}

func TestExecTalksBothWays(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "x"})
	w.master.reaches("x.t0", kernel.Running)

	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB, many frames
	out, errs, res := w.exec("x.t0", kernel.ExecRequest{Argv: []string{"/bin/sh", "-c", `cat; echo "$A" >&2; exit 5`}, Env: []string{"A=b"}},
		func(send func(kernel.ExecKind, []byte)) {
			go func() {
				for b := big; len(b) > 0; b = b[min(len(b), kernel.MaxExecFrame):] {
					send(kernel.ExecStdin, b[:min(len(b), kernel.MaxExecFrame)])
				}
				send(kernel.ExecStdinEOF, nil)
			}()
		})
	if out != string(big) || errs != "b\n" || res != (kernel.ExecResult{Code: 5}) {
		t.Errorf("got %d bytes, %q, %+v, want %d back, b, and 5", len(out), errs, res, len(big))
	}

	out, _, res = w.exec("x.t0", kernel.ExecRequest{Argv: []string{"/bin/sh", "-c", `read x; stty size; echo "got $x"`}, TTY: true,
		Size: kernel.ExecSize{Columns: 99, Rows: 33}}, func(send func(kernel.ExecKind, []byte)) {
		send(kernel.ExecResize, []byte(`{"columns":101,"rows":44}`))
		send(kernel.ExecStdin, []byte("hello\n"))
	})
	if !strings.Contains(out, "44 101") || !strings.Contains(out, "got hello") || res.Code != 0 {
		t.Errorf("with a terminal: got %q, %+v, want its size and what was typed", out, res)
	}

	if _, _, res = w.exec("x.t0", kernel.ExecRequest{Argv: []string{"/no/such/program"}}, func(func(kernel.ExecKind, []byte)) {}); res.Error == "" {
		t.Errorf("a program that is not there: got %+v, want an error", res)
	}
	r := w.master.request(http.MethodPost, kernel.ExecPath("none"), strings.NewReader(""))
	if r.StatusCode != http.StatusNotFound {
		t.Errorf("exec in no task: got %s, want 404", r.Status)
	}
	r = w.master.request(http.MethodPost, kernel.ExecPath("x.t0"), strings.NewReader("GET / HTTP/1.1\r\n\r\n"))
	if r.StatusCode != http.StatusBadRequest {
		t.Errorf("exec of nonsense: got %s, want 400", r.Status)
	}
}

func TestStatsTellWhatTasksUse(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.launch(specOf(`head -c 200000 /dev/zero > "$MESOS_SANDBOX/f"; echo up; exec sleep 600`), kernel.Assignment{ID: "s"})
	w.master.reaches("s.t0", kernel.Running)
	eventually(t, "it is up", func() bool { return readFile(t, w.cfg.State+"/sandboxes/s.t0/stdout") == "up\n" })
	var got api.AgentStats
	_, body := w.master.get("/agent/v1/stats")
	if err := json.Unmarshal([]byte(body), &got); err != nil || len(got.Tasks) != 1 || got.Tasks[0].Task != "s.t0" ||
		got.Tasks[0].Mem <= 0 || got.Tasks[0].Disk < 200000 || got.FreeDisk <= 0 {
		t.Errorf("got %s, %v, want one task with its memory and disk", body, err)
	}
}

func TestUnhealthyTaskIsToldAndNotEnded(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := specOf("exec sleep 600")
	s.Tasks[0].Checks = []kernel.Check{{Kind: kernel.CheckCommand, Shell: `echo "sick today"; test -e "$MESOS_SANDBOX/well"`,
		Interval: 20 * time.Millisecond, Timeout: 5 * time.Second, MaxFailed: 2}}
	w.master.launch(s, kernel.Assignment{ID: "h"})
	box := filepath.Join(w.cfg.State, "sandboxes/h.t0")
	w.master.reaches("h.t0", kernel.Running)
	w.master.tell(endpointOf("h.t0", w.master.last.Agent.ID))
	eventually(t, "two failures told", func() bool {
		h := w.master.status("h.t0").Health
		return len(h) == 1 && h[0].Known && h[0].Failures >= 2
	})
	if h := w.master.status("h.t0").Health[0]; h.LastCause != "exited with 1: sick today" || h.Alive {
		t.Errorf("got %+v, want the cause", h)
	}
	w.becomesReady()
	if err := os.WriteFile(filepath.Join(box, "well"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "told healthy", func() bool { st := w.master.status("h.t0"); return st.Healthy() })
	w.becomesReady("h.t0")
	pid := w.master.status("h.t0").PID
	w.kill()
	w.start()
	w.master.connected(1)
	if st := w.master.status("h.t0"); !st.Healthy() || st.PID != pid {
		t.Errorf("after a restart: got %+v, want it healthy as before", st)
	}
	if err := os.Remove(filepath.Join(box, "well")); err != nil {
		t.Fatal(err)
	}
	w.becomesReady()
	if c := w.containers(); len(c) != 1 || !c[0].Running {
		t.Errorf("got %+v, want it running still", c)
	}
}
