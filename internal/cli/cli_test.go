package cli_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/cli"
	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
)

// marina runs a command line against an API, in a home of its own.
func marina(t *testing.T, h http.Handler, args ...string) (code int, out, errOut string) {
	t.Helper()
	clitest.Home(t)
	r := clitest.Run(t, h, "", args...)
	return r.Code, r.Out, r.Err
}

func TestErrorsBecomeOneSentenceAnExitCodeAndAHint(t *testing.T) {
	for what, tc := range map[string]struct {
		h    http.Handler
		args []string
		code int
		says []string
	}{
		"missing app":     {clitest.Answers(404, `{"message":"App '/x' does not exist"}`), []string{"app", "show", "/x"}, exit.NotFound, []string{"App '/x' does not exist"}},
		"locked app":      {clitest.Answers(409, `{"message":"App is locked","deployments":[{"id":"d1"}]}`), []string{"app", "scale", "/x", "2"}, exit.Conflict, []string{"locked", "marina deployment follow d1"}},
		"invalid app":     {clitest.Answers(422, `{"message":"Object is not valid","details":[{"path":"/cpus","errors":["error.min"]}]}`), []string{"app", "scale", "/x", "2"}, exit.Failed, []string{"/cpus: error.min"}},
		"no token":        {clitest.Answers(401, `{"message":"no token"}`), []string{"app", "list"}, exit.Denied, []string{"marina login"}},
		"no leader":       {clitest.Answers(503, `{"message":"no leader"}`), []string{"app", "list"}, exit.Unreachable, []string{"no leader"}},
		"bad number":      {clitest.Answers(200, `{}`), []string{"app", "scale", "/x", "many"}, exit.BadUsage, []string{`"many"`}},
		"missing args":    {clitest.Answers(200, `{}`), []string{"app", "scale", "/x"}, exit.BadUsage, []string{"expected", "scale ID COUNT"}},
		"unknown verb":    {clitest.Answers(200, `{}`), []string{"app", "frobnicate"}, exit.BadUsage, []string{"frobnicate"}},
		"unknown flag":    {clitest.Answers(200, `{}`), []string{"app", "list", "--frob"}, exit.BadUsage, []string{"--frob"}},
		"terminal tricks": {clitest.Answers(404, `{"message":"\u001b[2Jgone"}`), []string{"app", "show", "/x"}, exit.NotFound, []string{"gone"}},
		"not a file":      {clitest.Answers(200, `{}`), []string{"app", "add", "/does/not/exist.json"}, exit.BadUsage, []string{"no such file"}},
	} {
		t.Run(what, func(t *testing.T) {
			code, out, errOut := marina(t, tc.h, tc.args...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			for _, s := range tc.says {
				if !strings.Contains(errOut, s) {
					t.Errorf("error %q does not say %q", errOut, s)
				}
			}
			if out != "" || strings.Contains(errOut, "\x1b") {
				t.Errorf("output %q, error %q: want nothing on stdout and no escapes", out, errOut)
			}
		})
	}
}

func TestJSONPrintsTheAPIsOwnAnswer(t *testing.T) {
	body := `{"apps":[{"id":"/x","instances":2,"unknownToUs":true}]}`
	code, out, _ := marina(t, clitest.Answers(200, body), "app", "list", "--json")
	var got, want any
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 {
		t.Fatalf("exit %d, output %q: %v", code, out, err)
	}
	json.Unmarshal([]byte(body), &want)
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("got %s, want %s", a, b)
	}
}

func TestTablesFitATerminal(t *testing.T) {
	body := `{"apps":[{"id":"/prod/web","instances":12,"tasksRunning":11,"cpus":0.25,"mem":512,"cmd":"` + strings.Repeat("x", 500) + `"}]}`
	_, out, _ := marina(t, clitest.Answers(200, body), "app", "list")
	for _, line := range strings.Split(out, "\n") {
		if n := len([]rune(line)); n > 110 {
			t.Errorf("line of %d characters: %s", n, line)
		}
	}
	if !strings.Contains(out, "11/12") {
		t.Errorf("table %q does not say 11/12", out)
	}
}

func TestPartialUpdateKeepsWhatItDoesNotName(t *testing.T) {
	var sent map[string]any
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			io.WriteString(w, `{"app":{"id":"/x","env":{"A":"1","B":"2"}}}`)
			return
		}
		json.NewDecoder(r.Body).Decode(&sent)
		io.WriteString(w, `{"deploymentId":"d"}`)
	})
	if code, _, e := marina(t, h, "app", "update", "/x", "env.B=3", "instances=4"); code != 0 {
		t.Fatal(e)
	}
	b, _ := json.Marshal(sent)
	if got, want := string(b), `{"env":{"A":"1","B":"3"},"instances":4}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}

func TestWithoutADatacenterItSaysHowToGetOne(t *testing.T) {
	clitest.Home(t)
	clitest.RunWith(t, cli.Programs{}, "", "app", "list", "--state", t.TempDir()).Says(t, "no datacenter", exit.Unreachable, "marina up")
}

func TestEveryVerbSaysWhatItIs(t *testing.T) {
	for _, c := range commands() {
		if c.Short == "" {
			t.Errorf("%s has no short description", c.CommandPath())
		}
	}
}

func TestLastLinesOfALogAreItsLastLines(t *testing.T) {
	log := "one\ntwo\nthree\nfour\n"
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tasks") {
			io.WriteString(w, `{"tasks":[{"id":"x.instance-1","appId":"/x","state":"TASK_RUNNING"}]}`)
			return
		}
		w.Header().Set("Marina-Offset", "0")
		io.WriteString(w, log)
	})
	for n, want := range map[string]string{"1": "four\n", "2": "three\nfour\n", "9": log} {
		if code, out, e := marina(t, h, "task", "log", "x", "--lines", n); code != 0 || out != want {
			t.Errorf("last %s lines: exit %d, got %q %s, want %q", n, code, out, e, want)
		}
	}
}
