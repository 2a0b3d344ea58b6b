package services

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/store"
)

// broken are rows that are no app: torn, empty, of another app, and of a kind that a later version may have.
var broken = map[string]string{
	"torn": `{"id":"/web","cm`, "empty": `{}`, "null": `null`, "another's": `{"id":"/other","instances":1}`,
	"newer": `{"id":"/web","instances":{"least":1,"most":3},"version":"2026-01-01T00:00:00.000Z"}`,
}

func (w *world) broke(key, text string) {
	w.stored(store.Put(key, []byte(text)), nil)
}

func (w *world) alarm(subject string) *kernel.Alarm {
	for _, a := range w.svc.Alarms() {
		if a.Subject == subject {
			return &a
		}
	}
	return nil
}

func TestAnAppWhoseRowCannotBeReadIsLeftAlone(t *testing.T) {
	for name, text := range broken {
		for _, way := range []string{"replace", "remove"} {
			t.Run(name+" "+way, func(t *testing.T) {
				inWorld(t, func(w *world) {
					w.kernel.Auto(true)
					w.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"x","instances":3}`)
					w.must(201, "POST", "/v2/apps", `{"id":"/other","cmd":"x"}`)
					old := w.placed("/web", "")[0].Version
					w.broke(appRows.Key("/web"), text)
					w.failover()
					if got := len(w.placed("/web", "")); got != 3 {
						t.Errorf("instances after the failover: got %d, want all 3 left alone", got)
						return
					}
					if a := w.alarm("app /web"); a == nil || !strings.Contains(a.Do, "force=true") {
						t.Errorf("alarm: got %+v, want one that says what to do", a)
					}
					w.must(200, "PUT", "/v2/apps/other", `{"instances":2}`)
					for _, ask := range []struct{ method, path, body string }{
						{"POST", "/v2/apps", `{"id":"/web","cmd":"y"}`}, {"PUT", "/v2/apps/web", `{"cmd":"y"}`}, {"PATCH",
							"/v2/apps/web?force=true", `{"cmd":"y"}`},
						{"PUT", "/v2/apps", `[{"id":"/web","cmd":"y"}]`}, {"DELETE", "/v2/apps/web", ""}, {"POST",
							"/v2/apps/web/restart", ""},
						{"POST", "/v2/apps", `{"id":"/web/below","cmd":"y"}`}} {
						if rec := w.call(ask.method, ask.path, ask.body); rec.Code != 409 && !strings.HasPrefix(ask.body,
							`{"id":"/web/`) || rec.Code < 400 {
							t.Errorf("%s %s: got %d %s, want 409", ask.method, ask.path, rec.Code, rec.Body)
						} else if rec.Code == 409 && !strings.Contains(rec.Body.String(), "DELETE /v2/apps/web?force=true") {
							t.Errorf("%s %s: got %s, want what to do", ask.method, ask.path, rec.Body)
						}
					}
					if rec := w.call("GET", "/v2/apps/web", ""); rec.Code != 500 || !strings.Contains(rec.Body.String(),
						"/v2/apps/web?force=true") {
						t.Errorf("GET: got %d %s, want 500 that says what to do", rec.Code, rec.Body)
					}
					if v := w.must(200, "GET", "/v2/apps/web/versions", "")["versions"].([]any); len(v) != 1 {
						t.Errorf("versions: got %v, want one", v)
					}
					w.must(200, "GET", "/v2/apps/web/versions/"+old, "")
					w.failover()
					if got := len(w.placed("/web", "")); got != 3 {
						t.Errorf("instances after another failover: got %d, want 3", got)
					}
					if way == "remove" {
						w.must(200, "DELETE", "/v2/apps/web?force=true", "")
						w.must(404, "GET", "/v2/apps/web", "")
						if got := len(w.placed("/web", "")); got != 0 {
							t.Errorf("instances after the removal: got %d, want none", got)
						}
					} else {
						w.must(201, "PUT", "/v2/apps/web?force=true", `{"cmd":"y","instances":2}`)
						if got := w.placed("/web", w.apps()["/web"].Config()); len(got) != 2 || len(w.placed("/web", "")) != 2 {
							t.Errorf("instances after it was replaced: got %v, want two of the new version", w.placed("/web", ""))
						}
					}
					if a, d := w.svc.Alarms(), w.deployments(); len(a)+len(d) != 0 {
						t.Errorf("in the end: got alarms %v, deployments %v, want none", a, d)
					}
					w.failover()
					if a := w.svc.Alarms(); len(a) != 0 {
						t.Errorf("after a failover: got alarms %v", a)
					}
				})
			})
		}
	}
}

// TestARemovalOfAnAppThatCannotBeReadSurvivesAFailover has the leader change while its instances are stopping.
func TestARemovalOfAnAppThatCannotBeReadSurvivesAFailover(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"x","instances":3}`)
		w.rest()
		w.broke(appRows.Key("/web"), "{")
		w.failover()
		w.must(200, "DELETE", "/v2/apps/web?force=true", "")
		w.failover()
		w.rest()
		if got, d := len(w.placed("/web", "")), w.deployments(); got != 0 || len(d) != 0 {
			t.Errorf("got %d instances, deployments %v, want none", got, d)
		}
	})
}

// rolling leaves /web between two versions: three instances of each, the new ones not running yet, and /old being
// removed.
func (w *world) rolling() (deployment string) {
	w.must(200, "PUT", "/v2/apps", `[{"id":"/web","cmd":"x","instances":3},{"id":"/old","cmd":"x"}]`)
	w.rest()
	w.must(200, "PUT", "/v2/apps/web", `{"cmd":"y"}`)
	if got := len(w.placed("/web", "")); got != 6 {
		w.fail("instances while versions change: got %d, want 6", got)
	}
	return w.deployments()[0].ID
}

func TestADeploymentWhoseRowCannotBeReadStopsNobody(t *testing.T) {
	unknown := `{"id":%q,"version":"2026-01-01T00:00:00.000Z","changes":[{"app":"/web"}],"steps":[{"actions":[{"action":"Migrate","app":"/web"}]}],"step":0}`
	for name, text := range map[string]string{"torn": "{", "empty": "{}", "newer": unknown,
		"without steps": `{"id":%q,"steps":[]}`} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				id := w.rolling()
				if strings.Contains(text, "%q") {
					text = fmt.Sprintf(text, id)
				}
				w.broke(deploymentRows.Key(id), text)
				w.failover()
				w.rest()
				if got := len(w.placed("/web", "")); got != 3 {
					t.Errorf("instances: got %d, want the app's 3", got)
				}
				d := w.deployments()
				if len(d) != 1 || d[0].ID != id || d[0].Reason == "" {
					t.Errorf("deployments: got %+v, want the one that was set aside, with why", d)
				}
				if a := w.alarm("deployment " + id); a == nil || !strings.Contains(a.Do,
					"DELETE /v2/deployments/"+id+"?force=true") {
					t.Errorf("alarm: got %+v, want one that says what to do", a)
				}
				if rec := w.call("DELETE", "/v2/deployments/"+id, ""); rec.Code != 409 {
					t.Errorf("a rollback: got %d %s, want 409", rec.Code, rec.Body)
				}
				w.must(201, "POST", "/v2/apps", `{"id":"/another","cmd":"x"}`)
				if rec := w.call("DELETE", "/v2/deployments/"+id+"?force=true", ""); rec.Code != 202 {
					t.Errorf("a cancellation: got %d %s, want 202", rec.Code, rec.Body)
				}
				w.rest()
				if a, d := w.svc.Alarms(), w.deployments(); len(a)+len(d) != 0 {
					t.Errorf("in the end: got alarms %v, deployments %v, want none", a, d)
				}
				w.must(200, "PUT", "/v2/apps/web", `{"cmd":"z"}`)
				w.failover()
				w.rest()
				if got := len(w.placed("/web", w.apps()["/web"].Config())); got != 3 {
					t.Errorf("instances of a later version: got %d, want 3", got)
				}
			})
		})
	}
}

// TestADeploymentWhoseVersionIsGoneIsSetAside takes away what it leads from, or to.
func TestADeploymentWhoseVersionIsGoneIsSetAside(t *testing.T) {
	for _, torn := range []bool{true, false} {
		for _, side := range []string{"from", "to"} {
			t.Run(fmt.Sprint(side, " torn ", torn), func(t *testing.T) {
				inWorld(t, func(w *world) {
					id := w.rolling()
					c := w.running()[0].Changes[0]
					version := map[string]string{"from": c.From.Version, "to": c.To.Version}[side]
					if torn {
						w.broke(versionRows("/web").Key(version), "{")
					} else {
						w.stored(versionRows("/web").Delete(version), nil)
					}
					w.failover()
					w.rest()
					if got := len(w.placed("/web", "")); got != 3 {
						t.Errorf("instances: got %d, want the app's 3", got)
					}
					if a := w.alarm("deployment " + id); a == nil || !strings.Contains(a.Problem, version) {
						t.Errorf("alarm: got %+v, want one that names the version", a)
					}
					if rec := w.call("PUT", "/v2/apps/web", `{"cmd":"z"}`); rec.Code != 409 || !strings.Contains(rec.Body.String(),
						id) {
						t.Errorf("a change: got %d %s, want 409 that names the deployment", rec.Code, rec.Body)
					}
					w.must(200, "PUT", "/v2/apps/web?force=true", `{"cmd":"z"}`)
					w.rest()
					if got := len(w.placed("/web", w.apps()["/web"].Config())); got != 3 || len(w.placed("/web", "")) != 3 {
						t.Errorf("after a forced change: got %d of the new version", got)
					}
					if a, d := w.svc.Alarms(), w.deployments(); len(a)+len(d) != 0 {
						t.Errorf("in the end: got alarms %v, deployments %v, want none", a, d)
					}
				})
			})
		}
	}
}

// TestAnAppThatAnUnreadableDeploymentRemovesIsLeftAlone: its definition is in no app's row any more, and a rollback
// would need it.
func TestAnAppThatAnUnreadableDeploymentRemovesIsLeftAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(200, "PUT", "/v2/apps", `[{"id":"/web","cmd":"x","instances":3},{"id":"/b","cmd":"x"}]`)
		w.rest()
		w.must(200, "DELETE", "/v2/apps/web", "")
		id := w.deployments()[0].ID
		w.kernel.End(w.placed("/web", "")[0].ID, kernel.Killed, "")
		synctest.Wait()
		w.broke(deploymentRows.Key(id), "{")
		w.failover()
		if got := len(w.placed("/web", "")); got != 2 {
			t.Errorf("instances: got %d, want what is left of them", got)
		}
		if rec := w.call("DELETE", "/v2/deployments/"+id+"?force=true", ""); rec.Code != 202 {
			t.Errorf("a cancellation: got %d %s, want 202", rec.Code, rec.Body)
		}
		w.rest()
		if got := len(w.placed("/web", "")); got != 0 {
			t.Errorf("instances after it was cancelled: got %d, want none", got)
		}
		snap, err := w.store.Snapshot(w.ctx, store.Prefix(versionTable, "/web"))
		if err != nil || len(snap.Items) != 0 {
			t.Errorf("versions of what is gone: got %v %v, want none", snap, err)
		}
	})
}

// TestAPanicAboutOneAppLeavesItAlone plants a bug that strikes whenever one app is decided about, or when the kernel
// tells news of the instance that has it.
func TestAPanicAboutOneAppLeavesItAlone(t *testing.T) {
	t.Run("deciding", func(t *testing.T) { panicAboutOneApp(t, 0) })
	t.Run("news", func(t *testing.T) { panicAboutOneApp(t, 1) })
}

func panicAboutOneApp(t *testing.T, ends int) {
	inWorld(t, func(w *world) {
		w.kernel.Auto(true)
		w.must(200, "PUT", "/v2/apps", `[{"id":"/bad","cmd":"x","instances":3},{"id":"/good","cmd":"x","instances":3}]`)
		w.svc.mu.Lock()
		w.svc.state.Instances("/bad")[1].Record = nil
		w.svc.mu.Unlock()
		w.kernel.End(w.placed("/bad", "")[ends].ID, kernel.Failed, "exit 1")
		w.after(time.Hour)
		if got := len(w.placed("/bad", "")); got != 2 {
			t.Errorf("instances an hour later: got %d, want 2: it is left as it is", got)
		}
		a := w.alarm("app /bad")
		if a == nil || !strings.Contains(a.Problem, "nil pointer") || a.Do == "" {
			t.Errorf("alarm: got %+v, want one of app /bad", a)
		}
		w.must(200, "PUT", "/v2/apps/good", `{"instances":1}`)
		if got := len(w.placed("/good", "")); got != 1 {
			t.Errorf("instances of the other app: got %d, want 1", got)
		}
		w.failover()
		w.after(time.Minute)
		if got := len(w.placed("/bad", "")); got != 3 || len(w.svc.Alarms()) != 0 {
			t.Errorf("with the next leader: got %d instances, alarms %v, want 3, none", got, w.svc.Alarms())
		}
	})
}

func TestAPanicAboutOneDeploymentSetsThatAside(t *testing.T) {
	inWorld(t, func(w *world) {
		bad := w.must(201, "POST", "/v2/apps", `{"id":"/bad","cmd":"x"}`)["deployments"].([]any)[0].(map[string]any)["id"]
		w.svc.mu.Lock()
		w.svc.state.Deployments[0].Step = -1
		w.svc.mu.Unlock()
		w.must(201, "POST", "/v2/apps", `{"id":"/good","cmd":"x"}`)
		w.rest()
		if a := w.alarm(fmt.Sprint("deployment ", bad)); a == nil || !strings.Contains(a.Problem, "out of range") {
			t.Errorf("alarms: got %v, want one of %s", w.svc.Alarms(), bad)
		}
		if d := w.deployments(); len(d) != 1 || d[0].ID != bad || w.app("/good")["tasksRunning"] != 1.0 {
			t.Errorf("deployments: got %+v, want %s alone", d, bad)
		}
		w.failover()
		w.rest()
		if got := w.app("/bad")["tasksRunning"]; got != 1.0 || len(w.svc.Alarms()) != 0 {
			t.Errorf("with the next leader: got %v running, alarms %v, want 1, none", got, w.svc.Alarms())
		}
	})
}
