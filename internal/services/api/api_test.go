package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// TestAPI replays requests and compares answers: a request is a line METHOD PATH and a body, its answer follows ----.
// Lines that begin with ! change the world: ! auto on|off, ! wait D, ! fail I, ! run I, ! sick I, ! room N (I: the
// place of an instance in the list of those placed).
func TestAPI(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("pairs: got %v, %v", files, err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			inWorld(t, func(w *world) { got = w.pairs(t, string(want)) })
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
		})
	}
}

func (w *world) pairs(t *testing.T, text string) string {
	w.kernel.Auto(true)
	var out bytes.Buffer
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		ask, _, _ := strings.Cut(block, "\n----")
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		fmt.Fprintf(&out, "%s\n", ask)
		if strings.HasPrefix(ask, "#") {
			continue
		}
		if strings.HasPrefix(ask, "!") {
			for line := range strings.SplitSeq(ask, "\n") {
				w.control(t, strings.Fields(line)[1:])
			}
			continue
		}
		line, body, _ := strings.Cut(ask, "\n")
		method, path, _ := strings.Cut(line, " ")
		rec := w.call(method, path, body)
		fmt.Fprintf(&out, "----\n%d\n", rec.Code)
		for _, name := range []string{"Location", "Marathon-Deployment-Id"} {
			if v := rec.Header().Get(name); v != "" {
				fmt.Fprintf(&out, "%s: %s\n", name, v)
			}
		}
		if rec.Body.Len() > 0 {
			fmt.Fprintf(&out, "%s\n", rec.Body)
		}
	}
	return out.String()
}

func (w *world) control(t *testing.T, f []string) {
	defer synctest.Wait()
	id := func() kernel.InstanceID {
		var i int
		fmt.Sscan(f[1], &i)
		return w.kernel.Instances()[i].ID
	}
	switch f[0] {
	case "auto":
		w.kernel.Auto(f[1] == "on")
	case "wait":
		w.after(must(time.ParseDuration(f[1])))
	case "fail":
		w.kernel.End(id(), kernel.Failed, "exit 1")
	case "run":
		w.kernel.Run(id())
	case "sick":
		w.kernel.Sicken(id())
	case "room":
		var n int
		fmt.Sscan(f[1], &n)
		w.kernel.AddAgent("a1", n)
	default:
		t.Fatalf("unknown control %v", f)
	}
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, path := range []string{"/v2/apps", "/v2/apps/none", "/nothing", "/ping"} {
			h := w.call("GET", path, "").Header()
			for name, want := range map[string]string{"Cache-Control": "no-cache, no-store, must-revalidate",
				"Pragma": "no-cache", "Expires": "0",
				"X-Frame-Options": "DENY", "X-Marathon-Leader": "http://127.0.0.1:8080"} {
				if got := h.Get(name); got != want {
					t.Errorf("%s: header %s: got %q, want %q", path, name, got, want)
				}
			}
		}
	})
}

func TestBadInputIsRefusedAndLosesNothing(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
	wide := strings.Repeat("[", 1_000_000)
	long := strings.Repeat("a", 10_000)
	app := func(fields string) string { return `{"id":"/bad","cmd":"x",` + fields + `}` }
	for name, c := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"malformed":       {`{"id":`, 400, "unexpected end"},
		"empty":           {``, 400, "unexpected end"},
		"deep":            {deep, 400, "levels of nesting"},
		"very deep":       {wide, 400, "levels of nesting"},
		"too large":       {`{"id":"` + strings.Repeat("a", marathon.MaxBody) + `"}`, 413, "larger than"},
		"trailing":        {`{"id":"/a","cmd":"x"} {}`, 400, "follows"},
		"twice":           {`{"id":"/a","id":"/b","cmd":"x"}`, 400, "twice"},
		"not UTF-8":       {"{\"id\":\"/a\",\"cmd\":\"\xff\"}", 400, "UTF-8"},
		"a list":          {`[]`, 422, "error.expected.jsobject"},
		"no id":           {`{"cmd":"x"}`, 422, "error.path.missing"},
		"null id":         {`{"id":null,"cmd":"x"}`, 422, "error.path.missing"},
		"id a number":     {`{"id":5,"cmd":"x"}`, 422, "error.expected.jsstring"},
		"parent id":       {`{"id":"/../../etc/passwd","cmd":"x"}`, 422, "above the root"},
		"unicode id":      {`{"id":"/wéb","cmd":"x"}`, 422, "must fully match regular expression"},
		"long id":         {`{"id":"/` + long + `","cmd":"x"}`, 422, "at most 128 characters"},
		"upper case":      {`{"id":"/Web","cmd":"x"}`, 422, "must fully match regular expression"},
		"null byte id":    {`{"id":"/a\u0000b","cmd":"x"}`, 422, "must fully match"},
		"reserved":        {`{"id":"/a/restart","cmd":"x"}`, 422, "reserved keywords"},
		"root":            {`{"id":"/","cmd":"x"}`, 422, "must not be root"},
		"cpus text":       {app(`"cpus":"1"`), 422, "error.expected.jsnumber"},
		"cpus negative":   {app(`"cpus":-1`), 422, "error.min"},
		"cpus zero":       {app(`"cpus":0`), 422, "error.min"},
		"cpus 1e308":      {app(`"cpus":1e308`), 422, "error.max"},
		"cpus 1e999":      {app(`"cpus":1e999999`), 422, "error.max"},
		"cpus NaN":        {app(`"cpus":NaN`), 400, "invalid character"},
		"mem overflow":    {app(`"mem":9223372036854775807`), 422, "error.max"},
		"instances half":  {app(`"instances":1.5`), 422, "error.expected.int"},
		"instances huge":  {app(`"instances":99999999999999999999`), 422, "error.max"},
		"instances minus": {app(`"instances":-1`), 422, "error.min"},
		"port":            {app(`"portDefinitions":[{"port":70000}]`), 422, "/portDefinitions(0)/port"},
		"protocol":        {app(`"healthChecks":[{"protocol":"SMTP"}]`), 422, "error.unknown.enum.literal"},
		"nothing to run":  {`{"id":"/bad"}`, 422, "AppDefinition must either contain"},
		"cmd and args":    {app(`"args":["y"]`), 422, "AppDefinition must either contain"},
		"constraint":      {app(`"constraints":[["hostname","NEAR"]]`), 422, "operator must be one of"},
		"VIP of others": {app(`"portDefinitions":[{"labels":{"VIP_0":"127.0.0.1:8080"}}]`), 422,
			"/portDefinitions(0)/labels(VIP_0)"},
		"VIP elsewhere": {app(`"networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{"labels":{"VIP_0":"/ours:80"}},{"labels":{"VIP_1":"203.0.113.9:80"}}]}`), 422, "/container/portMappings(1)/labels(VIP_1)"},
		"label newline": {app(`"portDefinitions":[{"labels":{"VIP_0":"/a\nb:80"}}]`), 422,
			"/portDefinitions(0)/labels(VIP_0)"},
		"strategy": {app(`"upgradeStrategy":{"minimumHealthCapacity":2,"maximumOverCapacity":0}`), 422, "error.max"},
		"strategy half": {app(`"upgradeStrategy":{"minimumHealthCapacity":1}`), 422,
			"/upgradeStrategy/maximumOverCapacity"},
		"volume escape":    {app(`"container":{"type":"MESOS","volumes":[{"containerPath":"/x","hostPath":"/a/../../etc","mode":"RO"}]}`), 422, "/container/volumes(0)/hostPath"},
		"env name":         {app(`"env":{"A=B":"c"}`), 422, "/env"},
		"env secret":       {app(`"env":{"A":{"secret":"s"}}`), 422, "secrets in the environment"},
		"large app":        {app(`"labels":{"a":"` + strings.Repeat("x", marathon.MaxAppBytes) + `"}`), 422, "at most"},
		"many constraints": {app(`"constraints":[` + strings.Repeat("[],", 500_000) + `[]]`), 422, "error.maxLength"},
		"many ports":       {app(`"portDefinitions":[` + strings.Repeat("{},", 1000) + `{}]`), 422, "more than 64 ports"},
		"own dependency":   {app(`"dependencies":["/bad"]`), 422, "cyclic"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.kernel.Auto(true)
				w.must(201, "POST", "/v2/apps", `{"id":"/good","cmd":"x"}`)
				rec := w.call("POST", "/v2/apps", c.body)
				if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.says) {
					t.Errorf("got %d %.300s, want %d with %q", rec.Code, rec.Body, c.status, c.says)
				}
				var m struct{ Message string }
				if err := json.Unmarshal(rec.Body.Bytes(), &m); err != nil || m.Message == "" {
					t.Errorf("body: got %.300s, %v, want a message", rec.Body, err)
				}
				if got := w.app("/good")["tasksRunning"]; got != 1.0 {
					t.Errorf("the other app's tasks: got %v, want 1", got)
				}
			})
		})
	}
}

func TestGPUsAreAskedForOfTheKernel(t *testing.T) {
	inWorld(t, func(w *world) {
		if rec := w.call("POST", "/v2/apps", `{"id":"/a","cmd":"x","gpus":2}`); rec.Code != 201 {
			t.Fatalf("got %d %s, want 201", rec.Code, rec.Body)
		}
		if rec := w.call("POST", "/v2/apps",
			`{"id":"/b","gpus":2,"container":{"type":"DOCKER","docker":{"image":"x:1"}}}`); rec.Code != 422 ||
			!strings.Contains(rec.Body.String(), "/gpus") {
			t.Errorf("with Docker: got %d %s, want 422 for /gpus", rec.Code, rec.Body)
		}
	})
	spec, err := marathon.Spec(&marathon.App{ID: "/a", CMD: new("x"), GPUs: 2, Version: "2026-01-01T00:00:00.000Z"})
	if err != nil || spec.Guarantee().GPUs != 2 {
		t.Errorf("guarantee: got %v, %v, want 2 GPUs", spec.Guarantee(), err)
	}
}

func TestFieldsThatAreNotBuiltAreNamed(t *testing.T) {
	inWorld(t, func(w *world) {
		for field, path := range map[string]string{
			`"fetch":[{"uri":"http://x"}]`:                                                                        "/fetch",
			`"uris":["http://x"]`:                                                                                 "/uris",
			`"residency":{"taskLostBehavior":"WAIT_FOREVER"}`:                                                     "/residency",
			`"secrets":{"a":{"source":"b"}}`:                                                                      "/secrets",
			`"readinessChecks":[{"name":"a"}]`:                                                                    "/readinessChecks",
			`"check":{"exec":{"command":{"shell":"true"}}}`:                                                       "/check",
			`"executor":"/opt/e"`:                                                                                 "/executor",
			`"executorResources":{"cpus":1}`:                                                                      "/executorResources",
			`"ipAddress":{"networkName":"n"}`:                                                                     "/ipAddress",
			`"networks":[{"mode":"container","name":"dcos"}]`:                                                     "/networks(0)/mode",
			`"container":{"docker":{"image":"i","privileged":true}}`:                                              "/container/docker/privileged",
			`"container":{"docker":{"image":"i","parameters":[{"key":"a","value":"b"}]}}`:                         "/container/docker/parameters",
			`"container":{"docker":{"image":"i","pullConfig":{"secret":"s"}}}`:                                    "/container/docker/pullConfig",
			`"container":{"docker":{"image":"i"},"linuxInfo":{"seccomp":{}}}`:                                     "/container/linuxInfo",
			`"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}`:  "/container/volumes(0)/persistent",
			`"container":{"type":"MESOS","volumes":[{"containerPath":"/d","mode":"RW","external":{"name":"x"}}]}`: "/container/volumes(0)/external",
			`"container":{"type":"MESOS","volumes":[{"containerPath":"/d","secret":"x"}]}`:                        "/container/volumes(0)/secret",
			`"healthChecks":[{"protocol":"MESOS_TCP","ipProtocol":"IPv6"}]`:                                       "/healthChecks(0)/ipProtocol",
		} {
			rec := w.call("POST", "/v2/apps", `{"id":"/a","cmd":"x",`+field+`}`)
			var e struct{ Details []marathon.Detail }
			_ = json.Unmarshal(rec.Body.Bytes(), &e)
			if rec.Code != 422 || len(e.Details) == 0 || e.Details[0].Path != path ||
				!strings.Contains(e.Details[0].Errors[0], "not supported") {
				t.Errorf("%s: got %d %s, want 422 for %s", field, rec.Code, rec.Body, path)
			}
		}
		for _, c := range []struct{ method, path, says string }{
			{"PUT", "/v2/groups/a", "groups"}, {"POST", "/v2/groups", "groups"}, {"DELETE", "/v2/groups/a", "groups"},
			{"POST", "/v2/pods", "Pods"}, {"PUT", "/v2/pods/a", "Pods"},
		} {
			if rec := w.call(c.method, c.path, `{}`); rec.Code != 422 || !strings.Contains(rec.Body.String(), c.says) {
				t.Errorf("%s %s: got %d %s, want 422 about %s", c.method, c.path, rec.Code, rec.Body, c.says)
			}
		}
	})
}

func TestPathsAreReadAsSent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.kernel.Auto(true)
		w.must(201, "POST", "/v2/apps", `{"id":"prod/web","cmd":"x"}`)
		for path, want := range map[string]int{"/v2/apps/prod/web": 200, "/v2/apps//prod/web": 200,
			"//v2//apps///prod/web/": 200,
			"/v2/apps/prod":          404, "/v2/apps/prod/web/tasks": 200, "/v2/apps/prod/*": 200, "/v2/apps/prod%2Fweb": 400,
			"/v2/apps/prod/../prod/web": 400,
			"/v2":                       404, "/v2/nothing": 404, "/v3/apps": 404} {
			if rec := w.call("GET", path, ""); rec.Code != want {
				t.Errorf("GET %s: got %d %s, want %d", path, rec.Code, rec.Body, want)
			}
		}
	})
}

func TestNothingIsAnsweredWithoutLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t.Fatalf)
		w.lead()
		w.end()
		for path, want := range map[string]int{"/v2/apps": http.StatusServiceUnavailable,
			"/v2/deployments": http.StatusServiceUnavailable, "/ping": 200} {
			if rec := w.call("GET", path, ""); rec.Code != want {
				t.Errorf("GET %s: got %d, want %d", path, rec.Code, want)
			}
		}
	})
}
