package task_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/cli"
	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/kernel"
)

// agent is the API of a datacenter with some tasks, and what a task does.
type agent struct {
	t     *testing.T
	tasks string
	exec  func(w http.ResponseWriter, r *http.Request)
	log   func(w http.ResponseWriter, r *http.Request)
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/v2/tasks"):
		io.WriteString(w, `{"tasks":[`+a.tasks+`]}`)
	case strings.HasSuffix(r.URL.Path, "/exec"):
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			a.t.Error(err)
		}
		a.exec(w, r)
	case strings.Contains(r.URL.Path, "/logs/"):
		a.log(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func running(id, app string) string {
	return fmt.Sprintf(`{"id":%q,"appId":%q,"state":"TASK_RUNNING"}`, id, app)
}

const web1 = "web.instance-1._app.1"

// frames reads a request until the input ends.
func frames(t *testing.T, r io.Reader, each func(kind kernel.ExecKind, payload []byte) bool) {
	for {
		kind, payload, err := kernel.ReadExecFrame(r)
		if err != nil || !each(kind, payload) {
			return
		}
	}
}

func send(t *testing.T, w http.ResponseWriter, kind kernel.ExecKind, payload []byte) {
	if err := kernel.WriteExecFrame(w, kind, payload); err != nil {
		t.Error(err)
	}
	w.(http.Flusher).Flush()
}

func ends(t *testing.T, w http.ResponseWriter, result kernel.ExecResult) {
	b, err := json.Marshal(result)
	if err != nil {
		t.Error(err)
	}
	send(t, w, kernel.ExecExit, b)
}

func TestACommandHasTheTerminalOfThePersonInFrontOfIt(t *testing.T) {
	clitest.Home(t)
	t.Setenv("TERM", "xterm-test")
	started := make(chan kernel.ExecRequest, 1)
	sizes := make(chan kernel.ExecSize, 8)
	a := &agent{t: t, tasks: running(web1, "/web")}
	a.exec = func(w http.ResponseWriter, r *http.Request) {
		frames(t, r.Body, func(kind kernel.ExecKind, payload []byte) bool {
			switch kind {
			case kernel.ExecStart:
				var start kernel.ExecRequest
				if err := json.Unmarshal(payload, &start); err != nil {
					t.Error(err)
				}
				started <- start
				send(t, w, kernel.ExecStdout, []byte("$ "))
			case kernel.ExecResize:
				var size kernel.ExecSize
				if err := json.Unmarshal(payload, &size); err != nil {
					t.Error(err)
				}
				sizes <- size
			case kernel.ExecStdin:
				send(t, w, kernel.ExecStdout, []byte("<"+string(payload)+">"))
				if payload[0] == 4 { // Ctrl-D, which no terminal of this side ate
					ends(t, w, kernel.ExecResult{Code: 9})
					return false
				}
			}
			return true
		})
	}
	srv := httptest.NewServer(a)
	defer srv.Close()
	defer srv.CloseClientConnections()
	term := clitest.OpenTerminal(t)
	code := make(chan int, 1)
	go func() {
		code <- clitest.RunOn(t, cli.Programs{}, term.Slave, term.Slave, term.Slave, "--url", srv.URL, "--token", "t",
			"task", "exec", "-t", "web", "--", "sh", "-i")
	}()
	start := <-started
	if strings.Join(start.Argv, " ") != "sh -i" || !start.TTY || start.Size != (kernel.ExecSize{Columns: 80, Rows: 24}) ||
		strings.Join(start.Env, " ") != "TERM=xterm-test" {
		t.Errorf("started %+v, want the command with the terminal's size and kind", start)
	}
	term.Await("$ ")
	term.Type("l\x03")
	term.Await("<l\x03>") // Ctrl-C is the command's, not ours
	term.Type("\x04")
	if got := <-code; got != 9 {
		t.Errorf("exit %d, want the command's own", got)
	}
	if strings.Contains(term.Seen(), "l\r\n") || strings.Contains(term.Seen(), "^C") {
		t.Errorf("the terminal shows %q, want no echo of its own", term.Seen())
	}
}

func TestInputWithoutATerminalEndsWithTheInput(t *testing.T) {
	clitest.Home(t)
	a := &agent{t: t, tasks: running(web1, "/web")}
	var in bytes.Buffer
	a.exec = func(w http.ResponseWriter, r *http.Request) {
		frames(t, r.Body, func(kind kernel.ExecKind, payload []byte) bool {
			if kind == kernel.ExecStdin {
				in.Write(payload)
			}
			return kind != kernel.ExecStdinEOF
		})
		send(t, w, kernel.ExecStderr, []byte("done\n"))
		ends(t, w, kernel.ExecResult{})
	}
	text := strings.Repeat("line\n", 50000)
	r := clitest.Run(t, a, text, "task", "exec", "web", "--", "sort")
	if r.Code != 0 || r.Err != "done\n" || in.String() != text {
		t.Errorf("%+v with %d bytes of %d, want all of the input", r, in.Len(), len(text))
	}
}

func TestWhatGoesWrongWithACommandIsTold(t *testing.T) {
	clitest.Home(t)
	for what, tc := range map[string]struct {
		exec func(w http.ResponseWriter, r *http.Request)
		code int
		says string
	}{
		"the task has no such program": {func(w http.ResponseWriter, r *http.Request) {
			ends(t, w, kernel.ExecResult{Error: "no such program: frob"})
		}, exit.Failed, "no such program: frob"},
		"the agent refuses": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, `{"message":"the task has ended"}`)
		}, exit.Conflict, "the task has ended"},
		"the connection is lost": {func(w http.ResponseWriter, r *http.Request) {
			send(t, w, kernel.ExecStdout, []byte("partial\n"))
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		}, exit.Unreachable, "the connection to the task was lost"},
		"it ends with a signal's code": {func(w http.ResponseWriter, r *http.Request) {
			ends(t, w, kernel.ExecResult{Code: 137})
		}, 137, ""},
	} {
		a := &agent{t: t, tasks: running(web1, "/web"), exec: tc.exec}
		clitest.Run(t, a, "", "task", "exec", "web", "--", "frob").Says(t, what, tc.code, tc.says)
	}
}

func TestATaskIsFoundByWhatTellsItApart(t *testing.T) {
	clitest.Home(t)
	a := &agent{t: t, tasks: running(web1, "/web") + "," + running("web.instance-2._app.1", "/web") + "," +
		running("db.instance-3._app.1", "/data/db") +
		`,{"id":"old.instance-4._app.1","appId":"/old","state":"TASK_STAGING"}`}
	var asked string
	a.log = func(w http.ResponseWriter, r *http.Request) { asked = r.URL.Path }
	for part, want := range map[string]string{
		web1: web1, "instance-2": "web.instance-2._app.1", "web": web1, "/web/": web1, "data/db": "db.instance-3._app.1", "old": "old.instance-4._app.1",
		"gone.instance-7._app.1": "gone.instance-7._app.1", // it ended: nobody lists it, its log is still there
	} {
		clitest.Run(t, a, "", "task", "log", part).Says(t, part, exit.OK)
		if asked != "/tasks/v1/"+want+"/logs/stdout" {
			t.Errorf("%q: asked %s, want %s", part, asked, want)
		}
	}
	clitest.Run(t, a, "", "task", "log", "_app").Says(t, "several", exit.BadUsage,
		`4 tasks match "_app": give more of the id`)
	clitest.Run(t, a, "", "task", "log", "none").Says(t, "none", exit.NotFound, `no running task matches "none"`,
		"marina task list")
}

func TestFollowingALogEndsWithItsReader(t *testing.T) {
	clitest.Home(t)
	began := make(chan string, 1)
	a := &agent{t: t, tasks: running(web1, "/web"), log: func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first\n")
		w.(http.Flusher).Flush()
		began <- r.URL.RawQuery
		<-r.Context().Done()
	}}
	srv := httptest.NewServer(a)
	defer srv.Close()
	defer srv.CloseClientConnections()
	ctx, interrupt := context.WithCancel(t.Context())
	r, out := io.Pipe()
	var errOut bytes.Buffer
	code := make(chan int, 1)
	go func() {
		args := []string{"--url", srv.URL, "--token", "t", "task", "log", "web", "-f"}
		code <- cli.Run(ctx, args, strings.NewReader(""), out, &errOut, cli.Programs{})
	}()
	if query := <-began; query != "offset=0&follow=true" {
		t.Errorf("asked with %s, want to follow from the beginning", query)
	}
	first := make([]byte, len("first\n"))
	if _, err := io.ReadFull(r, first); err != nil || string(first) != "first\n" {
		t.Errorf("printed %q (%v), want what came while it follows", first, err)
	}
	interrupt()
	if got := <-code; got != 0 || errOut.String() != "" {
		t.Errorf("interrupted: exit %d, error %q; want no complaint", got, &errOut)
	}
}

func TestFollowingTheLastLinesGoesOnWhereTheyEnd(t *testing.T) {
	clitest.Home(t)
	var queries []string
	a := &agent{t: t, tasks: running(web1, "/web"), log: func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		if len(queries) == 1 {
			w.Header().Set("Marina-Offset", "1000")
			io.WriteString(w, "one\ntwo\nthree")
			return
		}
		io.WriteString(w, " and more\n")
	}}
	r := clitest.Run(t, a, "", "task", "log", "web", "-n", "2", "-f")
	if want := "offset=-1048576 offset=1013&follow=true"; strings.Join(queries, " ") != want ||
		r.Out != "two\nthree and more\n" {
		t.Errorf("asked %q and printed %q, want %q and the last two lines with what follows", queries, r.Out, want)
	}
	a.log = func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "no offset") }
	clitest.Run(t, a, "", "task", "log", "web", "-n", "2").Says(t, "an answer without an offset", exit.Failed,
		"not what this version expects")
	a.log = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) }
	clitest.Run(t, a, "", "task", "log", "web", "-n", "2").Says(t, "no log", exit.NotFound)
}
