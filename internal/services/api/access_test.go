package api

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
)

// onlyIn lets everybody do everything to apps below a group, and nothing else.
type onlyIn string

func (o onlyIn) Authorize(p access.Principal, a access.Action, r access.Resource) error {
	if r.Family == access.Services && strings.HasPrefix(r.Path+"/", string(o)+"/") {
		return nil
	}
	return access.Denied(p, a, r)
}

// Who may do something to one group sees and changes that group only, whatever path, list or body names the other.
func TestNothingIsToldOrDoneWithoutTheRight(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, id := range []string{"/mine/web", "/theirs/db"} {
			w.must(201, "POST", "/v2/apps", `{"id":"`+id+`","cmd":"x","instances":1}`)
		}
		w.after(0)
		mine, theirs := w.placed("/mine/web"), w.placed("/theirs/db")
		if len(mine) != 1 || len(theirs) != 1 {
			t.Fatalf("%d and %d instances, want one each", len(mine), len(theirs))
		}
		task := string(theirs[0].ID) + "._app.1"
		w.api = New(w.services, onlyIn("/mine"))
		for _, q := range []struct {
			method, path, body string
			status             int
		}{
			{"GET", "/v2/apps", "", 200},
			{"GET", "/v2/groups", "", 200},
			{"GET", "/v2/groups/theirs", "", 404},
			{"GET", "/v2/groups/theirs/apps", "", 200},
			{"GET", "/v2/groups//versions", "", 200},
			{"GET", "/v2/tasks", "", 200},
			{"GET", "/v2/queue", "", 200},
			{"GET", "/v2/deployments", "", 200},
			{"GET", "/v2/apps//*/tasks", "", 200},
			{"GET", "/v2/apps/theirs/*", "", 200},
			{"GET", "/v2/apps/theirs/db", "", 403},
			{"GET", "/v2/apps/theirs/db/tasks", "", 200},
			{"GET", "/v2/apps/theirs/db/versions", "", 403},
			{"GET", "/v2/apps/theirs/db/versions/2026-01-01T00:00:00.000Z", "", 403},
			{"PUT", "/v2/apps/theirs/db", `{"instances":3}`, 403},
			{"PATCH", "/v2/apps/theirs/db", `{"instances":3}`, 403},
			{"PUT", "/v2/apps/theirs/new", `{"cmd":"x"}`, 403},
			{"POST", "/v2/apps", `{"id":"/theirs/new","cmd":"x"}`, 403},
			{"PUT", "/v2/apps", `[{"id":"/mine/web","instances":2},{"id":"/theirs/db","instances":2}]`, 403},
			{"DELETE", "/v2/apps/theirs/db", "", 403},
			{"DELETE", "/v2/apps/theirs/db?force=true", "", 403},
			{"POST", "/v2/apps/theirs/db/restart", "", 403},
			{"DELETE", "/v2/apps/theirs/db/tasks", "", 403},
			{"DELETE", "/v2/apps/theirs/*/tasks", "", 403},
			{"DELETE", "/v2/apps/theirs/db/tasks/" + task, "", 403},
			{"DELETE", "/v2/apps/mine/web/tasks/" + task, "", 403},
			{"POST", "/v2/tasks/delete", `{"ids":["` + task + `"]}`, 403},
			{"DELETE", "/v2/queue/theirs/db/delay", "", 403},
			{"GET", "/v2/events", "", 403},
			{"GET", "/metrics", "", 403},
		} {
			r := w.ask(q.method, q.path, q.body)
			if r.Code != q.status || q.status == 200 && strings.Contains(r.Body.String(), "/theirs") {
				t.Errorf("%s %s: %d %s, want %d without a word of /theirs", q.method, q.path, r.Code, r.Body, q.status)
			}
			if q.status == 403 && !strings.Contains(r.Body.String(), "dcos:service:marathon:marathon:services:/") {
				t.Errorf("%s %s: %s, want it to name the right", q.method, q.path, r.Body)
			}
		}
		if now := w.placed("/theirs/db"); len(now) != 1 || now[0].ID != theirs[0].ID {
			t.Errorf("instances of /theirs/db are %v, want the one as it was", now)
		}
		w.must(200, "PUT", "/v2/apps/mine/web?force=true", `{"instances":2}`)
		if list := w.must(200, "GET", "/v2/apps", ""); len(list["apps"].([]any)) != 1 {
			t.Errorf("apps are %v, want the one of /mine", list)
		}
	})
}

func TestADeploymentIsItsAppsMatter(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(201, "POST", "/v2/apps", `{"id":"/theirs/db","cmd":"x","instances":1500}`)
		d := w.deployments()
		if len(d) != 1 {
			t.Fatalf("%d deployments, want 1", len(d))
		}
		w.api = New(w.services, onlyIn("/mine"))
		for _, force := range []string{"", "?force=true"} {
			if r := w.ask("DELETE", "/v2/deployments/"+d[0].ID+force, ""); r.Code != 403 {
				t.Errorf("DELETE%s: %d %s, want 403", force, r.Code, r.Body)
			}
		}
		if r := w.ask("DELETE", "/v2/deployments/none", ""); r.Code != 404 {
			t.Errorf("one that is not there: %d, want 404", r.Code)
		}
	})
}

func TestADenialIsForbiddenInMarathonsForm(t *testing.T) {
	w := httptest.NewRecorder()
	errorAnswer(access.Denied(access.Principal{UID: "ann"}, access.Update, access.Services.Of("/x"))).write(w)
	if w.Code != 403 || !strings.Contains(w.Body.String(), `"message":"user ann may not update`) || strings.Contains(w.Body.String(), errdefs.ErrPermissionDenied.Error()) {
		t.Errorf("answer is %d %s, want a 403 in plain words", w.Code, w.Body)
	}
}
