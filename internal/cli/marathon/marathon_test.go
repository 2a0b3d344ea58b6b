package marathon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/output"
)

// orchestra is Marathon's API with one deployment, d1, of the app /web. Each look at the deployments is counted; script
// says what follows.
type orchestra struct {
	mu      sync.Mutex
	looks   int           // guarded by mu
	running func(int) int // how many instances run at a look; below 0 the deployment is listed no more
	events  chan string   // what the event stream says; closed ends it
	refuse  bool          // the event stream is not served
}

func (o *orchestra) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case API + "/events":
		if o.refuse {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.(http.Flusher).Flush()
		for {
			select {
			case e, ok := <-o.events:
				if !ok {
					return
				}
				io.WriteString(w, e)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	case API + "/deployments":
		o.mu.Lock()
		o.looks++
		n := o.running(o.looks)
		o.mu.Unlock()
		if n < 0 {
			io.WriteString(w, `[{"id":"other"}]`)
			return
		}
		io.WriteString(w, `[{"id":"d1","reason":"no room","currentActions":[{"action":"ScaleApplication","app":"/web"},{"action":"StartApplication","app":"/gone"}]}]`)
	case API + "/apps/web":
		o.mu.Lock()
		n := o.running(o.looks)
		o.mu.Unlock()
		fmt.Fprintf(w, `{"app":{"id":"/web","instances":4,"tasksRunning":%d,"tasksHealthy":%d,"healthChecks":[{}]}}`, n, n-1)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// at is an Env and a client in front of an API, and what is printed.
func at(t *testing.T, h http.Handler) (e *command.Env, cl *client.Client, out, errOut *bytes.Buffer) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	t.Setenv("HOME", t.TempDir())
	out, errOut = &bytes.Buffer{}, &bytes.Buffer{}
	e = &command.Env{Printer: output.Printer{Out: out, Err: errOut, In: strings.NewReader("")},
		Options: client.Options{URL: srv.URL, Token: "t"}}
	cl, err := e.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e, cl, out, errOut
}

func said(kind, id, more string) string {
	return fmt.Sprintf("event: %s\ndata: {\"id\":%q%s}\n\n", kind, id, more)
}

const patience = 20 * time.Second

func TestFollowTellsSuccessFromFailureByTheEvents(t *testing.T) {
	for what, tc := range map[string]struct {
		events []string
		code   int
		says   string
	}{
		"success": {[]string{said("deployment_success", "other", ""), "data: torn\n\n",
			said("deployment_success", "d1", "")}, exit.OK, ""},
		"failure": {[]string{said("deployment_failed", "d1", `,"reason":"its instances die"`)}, exit.Failed,
			"ended without success: its instances die"},
		"cancelled": {[]string{said("deployment_failed", "other", ""), said("deployment_failed", "d1", "")},
			exit.Failed, "cancelled"},
		"of another, first": {[]string{said("deployment_failed", "other", ""), said("deployment_success", "d1", "")},
			exit.OK, ""},
	} {
		o := &orchestra{running: func(int) int { return 2 }, events: make(chan string, 10)}
		for _, e := range tc.events {
			o.events <- e
		}
		e, cl, _, errOut := at(t, o)
		err := Follow(t.Context(), e, cl, "d1", patience)
		if exit.Code(err) != tc.code || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want code %d and %q", what, err, tc.code, tc.says)
		}
		if want := "scale /web [##########..........] 2 of 4 running, 1 healthy, waits: no room\n"; errOut.String() != want {
			t.Errorf("%s: showed %q, want %q", what, errOut, want)
		}
	}
}

func TestFollowShowsWhatChanges(t *testing.T) {
	o := &orchestra{events: make(chan string, 1)}
	o.running = func(look int) int { return min(look, 3) }
	e, cl, _, errOut := at(t, o)
	var tail sync.WaitGroup
	tail.Go(func() {
		for {
			o.mu.Lock()
			looks := o.looks
			o.mu.Unlock()
			if looks >= 4 {
				o.events <- said("deployment_success", "d1", "")
				return
			}
			select {
			case <-t.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	if err := Follow(t.Context(), e, cl, "d1", patience); err != nil {
		t.Fatal(err)
	}
	tail.Wait()
	var counts []string
	for line := range strings.Lines(errOut.String()) {
		_, count, _ := strings.Cut(line, "] ")
		counts = append(counts, strings.SplitN(count, " ", 2)[0])
	}
	if got := strings.Join(counts, " "); got != "1 2 3" {
		t.Errorf("showed %q, want each number of running instances once", errOut)
	}
}

func TestADeploymentThatEndedBeforeAnybodyLookedIsASuccess(t *testing.T) {
	o := &orchestra{running: func(int) int { return -1 }, events: make(chan string)}
	e, cl, _, errOut := at(t, o)
	if err := Follow(t.Context(), e, cl, "d1", patience); err != nil || errOut.String() != "" {
		t.Errorf("got %v and %q, want success and silence", err, errOut)
	}
}

func TestFollowGivesUpAfterItsTimeAndSaysSo(t *testing.T) {
	o := &orchestra{running: func(int) int { return 1 }, events: make(chan string)}
	e, cl, _, _ := at(t, o)
	if err := Follow(t.Context(), e, cl, "d1", 50*time.Millisecond); exit.Code(err) != exit.Timeout ||
		!strings.Contains(err.Error(), "d1 still runs") {
		t.Errorf("got %v, want that it still runs", err)
	}
	o.refuse = true
	if err := Follow(t.Context(), e, cl, "d1", patience); exit.Code(err) != exit.Unreachable {
		t.Errorf("without an event stream: %v, want that nobody answers", err)
	}
}

func TestFinishTellsWhatWasDoneAndHowToFollowIt(t *testing.T) {
	ended := &orchestra{running: func(int) int { return -1 }, events: make(chan string)}
	for what, tc := range map[string]struct {
		answer string
		set    func(*command.Env, *Change)
		out    string
	}{
		"a change": {`{"deploymentId":"d1"}`, func(*command.Env, *Change) {},
			"scaled /x, deployment d1 (follow it: marina deployment follow d1)\n"},
		"a new app": {`{"id":"/x","deployments":[{"id":"d1"}]}`, func(*command.Env, *Change) {},
			"scaled /x, deployment d1 (follow it: marina deployment follow d1)\n"},
		"quiet": {`{"deploymentId":"d1"}`, func(e *command.Env, _ *Change) { e.Quiet = true }, ""},
		"JSON": {`{"deploymentId":"d1"}`, func(e *command.Env, _ *Change) { e.JSON = true },
			"{\n  \"deploymentId\": \"d1\"\n}\n"},
		"followed": {`{"deploymentId":"d1"}`, func(_ *command.Env, ch *Change) { ch.wait = true }, "scaled /x\n"},
		"followed, JSON": {`{"deploymentId":"d1"}`, func(e *command.Env, ch *Change) { e.JSON, ch.wait = true, true },
			"{\n  \"deploymentId\": \"d1\"\n}\n"},
	} {
		e, cl, out, _ := at(t, ended)
		ch := Change{timeout: patience}
		tc.set(e, &ch)
		if err := ch.Finish(t.Context(), e, cl, []byte(tc.answer), "scaled /x"); err != nil || out.String() != tc.out {
			t.Errorf("%s: %q (%v), want %q", what, out, err, tc.out)
		}
	}
	e, cl, _, _ := at(t, ended)
	if err := new(Change).Finish(t.Context(), e, cl, []byte("<html>"), "scaled"); err == nil ||
		!strings.Contains(err.Error(), "not what this version expects") {
		t.Errorf("an answer that is none: %v", err)
	}
}

func TestForceIsSaidInTheQuery(t *testing.T) {
	var ch Change
	c := ch.Flags(&cobra.Command{})
	if ch.Query() != "" || ch.Forced() {
		t.Errorf("without --force: %q %v", ch.Query(), ch.Forced())
	}
	if err := c.ParseFlags([]string{"--force", "--wait", "--timeout", "1s"}); err != nil {
		t.Fatal(err)
	}
	if ch.Query() != "?force=true" || !ch.Forced() || !ch.wait || ch.timeout != time.Second {
		t.Errorf("with flags: %+v %q", ch, ch.Query())
	}
}

func TestAppsInWords(t *testing.T) {
	for text, want := range map[string][3]string{
		`{"cmd":"sleep 1","instances":2,"tasksRunning":2}`:                            {"sleep 1", "", "true"},
		`{"container":{"docker":{"image":"nginx:1"}},"instances":2,"tasksRunning":1}`: {"nginx:1", "", "false"},
		`{"container":{},"cmd":"` + strings.Repeat("x", 50) + `"}`: {strings.Repeat("x",
			39) + "…", "", "true"},
		`{"healthChecks":[{}],"instances":3,"tasksRunning":3,"tasksHealthy":2}`:                    {"", "2/3", "false"},
		`{"healthChecks":[{}],"instances":3,"tasksRunning":3,"tasksHealthy":3}`:                    {"", "3/3", "true"},
		`{"instances":1,"tasksRunning":1,"deployments":[{"id":"d"}]}`:                              {"", "", "false"},
		`{"healthChecks":[{}],"instances":0,"tasksRunning":0,"tasksHealthy":0,"deployments":null}`: {"", "0/0", "true"},
	} {
		var a App
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		if got := [3]string{a.Runs(), a.Health(), fmt.Sprint(a.Settled())}; got != want {
			t.Errorf("%s: runs %q, healthy %q, settled %s; want %q", text, got[0], got[1], got[2], want)
		}
	}
}

func TestPathsOfAppsKeepTheirSlashes(t *testing.T) {
	for id, want := range map[string]string{"/a/b": "/apps/a/b", "a": "/apps/a", "/a/": "/apps/a",
		"/a b/ü?": "/apps/a%20b/%C3%BC%3F"} {
		if got := AppPath(id); got != API+want {
			t.Errorf("%q: %q, want %q", id, got, API+want)
		}
	}
}

func TestTasksInATable(t *testing.T) {
	var tasks []Task
	err := json.Unmarshal([]byte(`[
		{"id":"a","state":"TASK_RUNNING","host":"m1","ports":[1,2],"ipAddresses":[{"ipAddress":"10.0.0.1"}],"healthCheckResults":[{"alive":true},{"alive":false,"lastFailureCause":"timeout"}]},
		{"id":"b","state":"TASK_STAGING","healthCheckResults":[{"alive":true}]},
		{"id":"c","state":"TASK_KILLING","stagedAt":"`+time.Now().Add(-2*time.Hour-time.Second).Format(time.RFC3339)+`"}]`), &tasks)
	if err != nil {
		t.Fatal(err)
	}
	e, _, out, _ := at(t, http.NotFoundHandler())
	PrintTasks(e, tasks)
	want := `TASK  STATE    HEALTHY     MACHINE  ADDRESS   PORTS  AGE
a     RUNNING  no timeout  m1       10.0.0.1  1,2    -
b     STAGING  yes         -        -         -      -
c     KILLING  -           -        -         -      2h
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestCompletionProposesAppsOnceAndNothingWhereNobodyAnswers(t *testing.T) {
	answer := `{"apps":[{"id":"/a"},{"id":"/b"}]}`
	e, _, _, _ := at(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) }))
	c := &cobra.Command{}
	c.SetContext(t.Context())
	if got, _ := CompleteApps(e)(c, nil, ""); strings.Join(got, " ") != "/a /b" {
		t.Errorf("proposed %q, want both apps", got)
	}
	if got, _ := CompleteApps(e)(c, []string{"/a"}, ""); got != nil {
		t.Errorf("proposed %q for a second argument, want nothing", got)
	}
	answer = "{"
	if got, directive := CompleteApps(e)(c, nil, ""); got != nil || directive != cobra.ShellCompDirectiveNoFileComp {
		t.Errorf("proposed %q, %v of a torn answer, want nothing", got, directive)
	}
	e.CA = "/does/not/exist"
	if got, _ := CompleteApps(e)(c, nil, ""); got != nil {
		t.Errorf("proposed %q without a client, want nothing", got)
	}
}
