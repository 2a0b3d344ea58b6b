package stories

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

func TestAServiceLivesThroughItsVerbs(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/verbs"
	removeAfter(t, c, id)
	app := h.ProbeApp(id, 2)

	h.Must(t, "app", "add", app.File(t), "--wait")
	if err := c.Settled(id); err != nil {
		t.Fatalf("after add --wait: %v", err)
	}
	if err := h.Witness(); err != nil {
		t.Fatal(err)
	}
	if again := h.Run("app", "add", app.File(t)); again.Code != 4 || !strings.Contains(again.Err, "An app with id [/verbs] already exists.") {
		t.Errorf("adding it again: got %+v, want exit code 4 and Marathon's words", again)
	}
	var list struct{ Apps []testbed.App }
	decode(t, h.Must(t, "app", "list", "--json"), &list)
	if !slices.ContainsFunc(list.Apps, func(a testbed.App) bool { return a.ID == id && a.TasksHealthy == 2 }) {
		t.Errorf("app list --json: got %+v, want %s with 2 healthy tasks", list, id)
	}
	if text := h.Must(t, "app", "list"); !strings.Contains(text, id) {
		t.Errorf("app list: got %q, want %s in it", text, id)
	}

	two := running(t, h, id)
	h.Must(t, "app", "scale", id, "4", "--wait")
	if got := running(t, h, id); len(got) != 4 || !slices.Contains(got, two[0]) || !slices.Contains(got, two[1]) {
		t.Errorf("after scale 4: %v run, want 4 with those that ran before, %v", got, two)
	}
	h.Must(t, "app", "update", id, "env.VERSION=2", "--wait")
	for _, p := range alive(t, h, id) {
		if p.Version != "2" {
			t.Errorf("after the update task %s still is of version %q", p.Task, p.Version)
		}
	}
	before := running(t, h, id)
	h.Must(t, "app", "restart", id, "--wait")
	after := running(t, h, id)
	for _, p := range after {
		if slices.ContainsFunc(before, func(b testbed.Process) bool { return b.Task == p.Task }) {
			t.Errorf("restart left task %s alone", p.Task)
		}
	}
	if len(after) != 4 {
		t.Errorf("after restart: %d processes, want 4", len(after))
	}
	h.Must(t, "app", "scale", id, "1", "--wait")
	if got := running(t, h, id); len(got) != 1 {
		t.Errorf("after scale 1: %d processes, want 1", len(got))
	}
	h.Must(t, "app", "remove", id, "--wait")
	if got := running(t, h, id); len(got) != 0 {
		t.Errorf("after remove: %d processes, want none", len(got))
	}
	if gone := h.Run("app", "show", id); gone.Code != 3 {
		t.Errorf("showing what was removed: got %+v, want exit code 3", gone)
	}
	h.Must(t, "app", "add", app.File(t), "--wait") // so that the last removal has something to do
}

func TestADeploymentRolledBackBringsBackWhatWas(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/rolled"
	removeAfter(t, c, id)
	c.Deploy(t, h.ProbeApp(id, 2).With(testbed.Definition{"env": testbed.Definition{"VERSION": "good"}}))
	was := running(t, h, id)

	var begun struct{ DeploymentID string }
	c.Ask(t, "PATCH", testbed.Marathon+"/apps"+id, testbed.Definition{"env": testbed.Definition{"VERSION": "bad", "EXIT_AT_ONCE": "1"}}, 200, &begun)
	testbed.Until(t, 20*time.Second, "the bad version to fail", func() error {
		a := c.App(t, id)
		if a.LastFailure == nil {
			return fmt.Errorf("no failure yet: %+v", a)
		}
		return nil
	})
	if locked, err := c.Do("PATCH", testbed.Marathon+"/apps"+id, testbed.Definition{"instances": 3}); err != nil || locked.Status != 409 ||
		!strings.Contains(string(locked.Body), begun.DeploymentID) {
		t.Errorf("a change during a deployment: got %v, %v, want 409 that names %s", locked, err, begun.DeploymentID)
	}
	h.Must(t, "deployment", "rollback", begun.DeploymentID, "--wait")
	c.Settle(t, id, 30*time.Second)
	if a := c.App(t, id); a.Env["VERSION"] != "good" {
		t.Errorf("after the rollback VERSION is %q, want good", a.Env["VERSION"])
	}
	if got := running(t, h, id); !slices.Equal(got, was) {
		t.Errorf("the rollback touched healthy tasks: had %v, has %v", was, got)
	}
}

func TestTheAPIAnswersOnBothPortsWithBothFormsOfTokens(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	token := strings.TrimPrefix(c.Auth, "token=")
	for _, base := range []string{"https://" + h.HTTPS, "http://" + h.HTTP} {
		for _, auth := range []string{"token=" + token, "Bearer " + token} {
			other := *c
			other.Base, other.Auth = base, auth
			for _, path := range []string{"/service/marathon/v2/apps", "/marathon/v2/apps", "/v2/apps", "/v2//apps", "/v2/info", "/system/health/v1"} {
				other.Ask(t, "GET", path, nil, 200, nil)
			}
		}
	}
}

// closed are routes that must not answer without a token, whether they exist or not.
var closed = []string{"/v2/apps", "/v2/info", "/v2/events", "/service/marathon/v2/apps", "/service/marathon/ping", "/marathon/v2/tasks",
	"/service/anything/", "/system/health/v1", "/system/health/v1/nodes", "/machines/v1", "/tasks/v1", "/quota/v1", "/images/v1", "/net/v1/vips",
	"/acs/api/v1/tokens", "/acs/api/v1/users", "/metadata", "/nothing/here", "/v2/../v2/apps", "//v2/apps", "/%76%32/apps"}

func TestNothingButLivenessAnswersWithoutAToken(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	for _, base := range []string{"https://" + h.HTTPS, "http://" + h.HTTP} {
		for _, auth := range []string{"", "token=", "Bearer x.y.z", "Basic cm9vdDpyb290"} {
			other := *c
			other.Base, other.Auth = base, auth
			for _, path := range closed {
				for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
					if a, err := other.Do(method, path, nil); err != nil || a.Status != http.StatusUnauthorized && a.Status != http.StatusBadRequest {
						t.Errorf("%s %s%s with authorization %q: got %v, %v, want 401", method, base, path, auth, a, err)
					}
				}
			}
			if a, err := other.Do("GET", "/system/health/v1/live", nil); err != nil || a.Status != 200 {
				t.Errorf("liveness with authorization %q: got %v, %v, want 200", auth, a, err)
			}
		}
	}
}

func decode(t *testing.T, text string, out any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), out); err != nil {
		t.Fatalf("%v: %.500s", err, text)
	}
}

// running are an app's processes on the machine.
func running(t *testing.T, h *testbed.Datacenter, app string) []testbed.Process {
	t.Helper()
	got, err := h.Processes(testbed.Prefix(app))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// alive are the lives of an app's processes that are on the machine.
func alive(t *testing.T, h *testbed.Datacenter, app string) []testbed.Life {
	t.Helper()
	lives, err := h.Lives(app)
	if err != nil {
		t.Fatal(err)
	}
	procs := running(t, h, app)
	return slices.DeleteFunc(lives, func(l testbed.Life) bool {
		return !slices.ContainsFunc(procs, func(p testbed.Process) bool { return p.Task == l.Task })
	})
}
