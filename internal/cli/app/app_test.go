package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
)

// service is Marathon's API with one app whose picture is drawn anew at each look.
type service struct {
	mu    sync.Mutex
	looks int                      // guarded by mu
	app   func(look int) string    // what GET /apps/x answers
	sent  []string                 // METHOD path?query body, of what changes something; guarded by mu
	other map[string]func() string // more paths
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, _ := io.ReadAll(r.Body)
	path := strings.TrimPrefix(r.URL.Path, "/service/marathon/v2")
	if r.Method != http.MethodGet {
		s.sent = append(s.sent, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method,
			strings.TrimSuffix(path+"?"+r.URL.RawQuery, "?"), b)))
		io.WriteString(w, `{"deploymentId":"d1"}`)
		return
	}
	if more, ok := s.other[path]; ok {
		io.WriteString(w, more())
		return
	}
	if path != "/apps/x" || s.app == nil {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"message":"App '%s' does not exist"}`, strings.TrimPrefix(path, "/apps"))
		return
	}
	s.looks++
	io.WriteString(w, `{"app":`+s.app(s.looks)+`}`)
}

func TestWaitBelievesAnAppThatStaysAsItShouldBe(t *testing.T) {
	clitest.Home(t)
	s := &service{app: func(look int) string {
		running := []int{0, 1, 2, 2, 1, 2}[min(look, 6)-1] // one dies after all ran
		return fmt.Sprintf(`{"id":"/x","instances":2,"tasksRunning":%d}`, running)
	}}
	r := clitest.Run(t, s, "", "app", "wait", "x")
	r.Says(t, "wait", exit.OK)
	var counts []string
	for line := range strings.Lines(r.Err) {
		_, count, _ := strings.Cut(line, "] ")
		counts = append(counts, strings.SplitN(count, " ", 2)[0])
	}
	if got := strings.Join(counts, ""); got != "01212" || s.looks < 10 {
		t.Errorf("showed %q after %d looks, want every change, and that it was looked at for a while at the end", got,
			s.looks)
	}
}

func TestWaitSaysWhatToLookAtWhenItGivesUp(t *testing.T) {
	clitest.Home(t)
	for what, app := range map[string]string{
		"too few run":      `{"id":"/x","instances":2,"tasksRunning":1}`,
		"some are sick":    `{"id":"/x","instances":2,"tasksRunning":2,"tasksHealthy":1,"healthChecks":[{}]}`,
		"it is being made": `{"id":"/x","instances":2,"tasksRunning":2,"deployments":[{"id":"d"}]}`,
	} {
		s := &service{app: func(int) string { return app }}
		clitest.Run(t, s, "", "app", "wait", "x", "--timeout", "300ms").
			Says(t, what, exit.Timeout, "x is not as it should be yet", "marina app show x")
	}
	clitest.Run(t, &service{}, "", "app", "wait", "x").Says(t, "there is none", exit.NotFound, "does not exist")
}

func TestUpdateSetsFieldsAndKeepsTheRestOfMaps(t *testing.T) {
	clitest.Home(t)
	for sets, want := range map[string]string{
		"instances=5":                 `{"instances":5}`,
		"cmd=true cpus=0.5":           `{"cmd":true,"cpus":0.5}`,
		"cmd=sleep":                   `{"cmd":"sleep"}`,
		"container=":                  `{"container":""}`,
		"constraints=[]":              `{"constraints":[]}`,
		"env.A=9 env.C=x=y":           `{"env":{"A":"9","B":"2","C":"x=y"}}`,
		"labels.L=1":                  `{"labels":{"L":"1"}}`,
		"env.A=9 instances=1 env.B=8": `{"env":{"A":"9","B":"8"},"instances":1}`,
	} {
		s := &service{app: func(int) string { return `{"id":"/x","env":{"A":"1","B":"2"},"labels":null}` }}
		clitest.Run(t, s, "", append([]string{"app", "update", "x"}, strings.Fields(sets)...)...).Says(t, sets, exit.OK)
		clitest.Same(t, sets, strings.Join(s.sent, "\n"), "PATCH /apps/x "+want)
		if asked := strings.Contains(sets, "."); (s.looks == 1) != asked && !strings.Contains(sets, "0.5") {
			t.Errorf("%s: looked at the app %d times, want once if a map changes and never else", sets, s.looks)
		}
	}
	s := &service{app: func(int) string { return `{}` }}
	clitest.Run(t, s, "", "app", "update", "x", "=5").Says(t, "no name", exit.BadUsage, `"=5" is not NAME=VALUE`)
	clitest.Run(t, &service{}, "", "app", "update", "x", "env.A=1").Says(t, "no app", exit.NotFound)
	if len(s.sent) != 0 {
		t.Errorf("sent %v, want nothing", s.sent)
	}
}

func TestDefinitionsAreSentAsTheyAre(t *testing.T) {
	clitest.Home(t)
	text := "{\n  \"id\": \"/deep/er\",   \"unknownToUs\": [1, 2]\n}\n"
	file := filepath.Join(t.TempDir(), "app.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"add " + file:                 "POST /apps ",
		"add " + file + " --force":    "POST /apps?force=true ",
		"update " + file:              "PUT /apps/deep/er?partialUpdate=false ",
		"update " + file + " --force": "PUT /apps/deep/er?partialUpdate=false&force=true ",
	} {
		s := &service{}
		clitest.Run(t, s, "", append([]string{"app"}, strings.Fields(args)...)...).Says(t, args, exit.OK)
		clitest.Same(t, args, strings.Join(s.sent, "\n"), want+strings.TrimSpace(text))
	}
}

func TestShowLeavesOutWhatItCannotHave(t *testing.T) {
	clitest.Home(t)
	s := &service{app: func(int) string { return `{"id":"/x","instances":1,"cmd":"sleep\u001b[2J","mem":32,"cpus":0.1}` }}
	r := clitest.Run(t, s, "", "app", "show", "x")
	r.Says(t, "show", exit.OK)
	clitest.Same(t, "what is shown", r.Out,
		"id         /x\nruns       sleep\uFFFD[2J\ninstances  1\nrunning    0\ncpus       0.1\nmem        32 MiB\n")
	s.other = map[string]func() string{"/queue": func() string {
		return `{"queue":[{"app":{"id":"/other"},"count":9,"refusal":"no"},{"app":{"id":"/x"},"count":1,"refusal":""},{"app":{"id":"/x"},"count":2,"refusal":"no cpus"}]}`
	}}
	if r := clitest.Run(t, s, "", "app", "show", "x"); !strings.HasSuffix(r.Out, "waiting  2 instances: no cpus\n") {
		t.Errorf("shown %q, want what of this app waits", r.Out)
	}
}

func TestListOfNothingSaysWhatToDo(t *testing.T) {
	clitest.Home(t)
	if r := clitest.Run(t, clitest.Answers(200, `{"apps":[]}`), "", "app", "list"); r.Code != 0 ||
		!strings.Contains(r.Out, "marina app add") {
		t.Errorf("got %+v, want how to add one", r)
	}
	r := clitest.Run(t, clitest.Answers(200, `{"apps":[]}`), "", "app", "list", "--json")
	var answer struct{ Apps []any }
	if err := json.Unmarshal([]byte(r.Out), &answer); err != nil || answer.Apps == nil {
		t.Errorf("with --json: %q (%v), want the API's answer", r.Out, err)
	}
	if r := clitest.Run(t, clitest.Answers(200, `[]`), "", "deployment", "list"); r.Code != 0 ||
		r.Out != "Nothing is being deployed.\n" {
		t.Errorf("deployments: %+v", r)
	}
}
