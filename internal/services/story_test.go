package services

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/scheduler"
)

// nudge lets one thing happen that is due in the kernel: an instance that was asked to stop ends, else one that does
// not run yet runs. It says whether there was one.
func (w *world) nudge() bool {
	var next *kernel.Instance
	for _, i := range w.kernel.Instances() {
		if i.Goal == kernel.GoalStop {
			w.kernel.End(i.ID, kernel.Killed, "")
			synctest.Wait()
			return true
		}
		if next == nil && i.State() < kernel.Running {
			next = &i
		}
	}
	if next != nil {
		w.kernel.Run(next.ID)
		synctest.Wait()
	}
	return next != nil
}

func (w *world) rest() {
	for range 1000 {
		if !w.nudge() {
			return
		}
	}
	w.fail("it never comes to rest")
}

// TestFailoverAtEveryStepOfADeployment has the leader change before the k-th thing that happens, for every k, of a
// deployment that changes one app, adds one and removes one. It must end as without, never leave its bounds, and keep
// what was ready.
func TestFailoverAtEveryStepOfADeployment(t *testing.T) {
	for k := 0; ; k++ {
		reached := false
		inWorld(t, func(w *world) {
			w.must(200, "PUT", "/v2/apps",
				`[{"id":"/web","cmd":"x","instances":3,"upgradeStrategy":{"minimumHealthCapacity":0.6,"maximumOverCapacity":0.3}},{"id":"/old","cmd":"x"}]`)
			w.rest()
			w.must(200, "DELETE", "/v2/apps/old", "")
			w.must(200, "PUT", "/v2/apps",
				`[{"id":"/web","cmd":"y"},{"id":"/new","cmd":"z","instances":2,"dependencies":["/web"]}]`)
			ready := map[kernel.InstanceID]bool{}
			for n := 0; ; n++ {
				if n == k {
					reached = true
					w.failover()
				}
				healthy, web := 0, w.placed("/web", "")
				for _, i := range web {
					if i.Healthy() {
						healthy++
					}
				}
				if len(web) > 4 || healthy < 2 {
					t.Fatalf("failover before %d, at %d: %d instances, %d healthy, want at most 4 and at least 2", k, n, len(web),
						healthy)
				}
				for _, i := range w.placed("/web", w.apps()["/web"].Config()) {
					ready[i.ID] = ready[i.ID] || i.State() == kernel.Running
				}
				if !w.nudge() {
					break
				}
			}
			if d := w.deployments(); len(d) != 0 {
				t.Fatalf("failover before %d: deployments: got %v, want none", k, d)
			}
			if a, b, c := len(w.placed("/web", w.apps()["/web"].Config())), len(w.placed("/new", "")), len(w.placed("/old",
				"")); a != 3 || b != 2 || c != 0 {
				t.Fatalf("failover before %d: got %d %d %d instances, want 3 2 0", k, a, b, c)
			}
			for id := range ready {
				found := false
				for _, i := range w.kernel.Instances() {
					found = found || i.ID == id
				}
				if !found {
					t.Errorf("failover before %d: %s was ready and is gone", k, id)
				}
			}
		})
		if !reached || t.Failed() {
			if k < 8 {
				t.Fatalf("only %d things happened, the deployment is too short to prove anything", k)
			}
			return
		}
	}
}

// TestConcurrentUpdatesOfOneApp sends 200 conflicting updates at once: one wins, all others are told by whom they are
// locked out. Then 200 that force: all win, one after the other, and what is shown in the end is the last.
func TestConcurrentUpdatesOfOneApp(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"x"}`)
		w.rest()
		send := func(query string) []*httptest.ResponseRecorder {
			out := make([]*httptest.ResponseRecorder, 200)
			var wg sync.WaitGroup
			for i := range out {
				out[i] = httptest.NewRecorder()
				wg.Go(func() {
					w.api.ServeHTTP(out[i], httptest.NewRequest("PUT", "/v2/apps/web"+query,
						strings.NewReader(fmt.Sprintf(`{"cmd":"y%d"}`, i))))
				})
			}
			wg.Wait()
			synctest.Wait()
			return out
		}
		winner, losers := "", map[string]int{}
		for _, rec := range send("") {
			var body struct {
				DeploymentID string
				Deployments  []marathon.DeploymentRef
			}
			_ = json.Unmarshal(rec.Body.Bytes(), &body)
			switch {
			case rec.Code == 200 && winner == "":
				winner = body.DeploymentID
			case rec.Code == 409 && len(body.Deployments) == 1:
				losers[body.Deployments[0].ID]++
			default:
				t.Errorf("got %d %s", rec.Code, rec.Body)
			}
		}
		if losers[winner] != 199 {
			t.Errorf("losers: got %v, want 199 of %s", losers, winner)
		}
		last, which, seen := "", 0, map[string]bool{}
		for i, rec := range send("?force=true") {
			var body marathon.DeploymentResult
			_ = json.Unmarshal(rec.Body.Bytes(), &body)
			if rec.Code != 200 || seen[body.Version] {
				t.Errorf("forced: got %d %s, want 200 and a version of its own", rec.Code, rec.Body)
			}
			seen[body.Version] = true
			if body.Version > last {
				last, which = body.Version, i
			}
		}
		a := w.app("/web")
		if a["version"] != last || a["cmd"] != fmt.Sprintf("y%d", which) {
			t.Errorf("in the end: got %v %v, want y%d %s", a["cmd"], a["version"], which, last)
		}
		w.rest()
		if got := w.placed("/web", last); len(got) != 1 || len(w.kernel.Instances()) != 1 {
			t.Errorf("instances: got %v, want one of the last version", w.kernel.Instances())
		}
		if v := w.must(200, "GET", "/v2/apps/web/versions", "")["versions"].([]any); len(v) != 25 {
			t.Errorf("versions kept: got %d, want 25", len(v))
		}
	})
}

func TestLostReplyEndsTheTermAndNothingIsTold(t *testing.T) {
	for _, applied := range []bool{true, false} {
		inWorld(t, func(w *world) {
			w.kernel.Auto(true)
			w.store.LoseReply(applied)
			if rec := w.call("POST", "/v2/apps", `{"id":"/web","cmd":"x"}`); rec.Code != 503 {
				t.Errorf("applied %v: got %d %s, want 503", applied, rec.Code, rec.Body)
			}
			if rec := w.call("GET", "/v2/apps", ""); rec.Code != 503 {
				t.Errorf("applied %v: the old leader still answers: %d", applied, rec.Code)
			}
			w.failover()
			want := map[bool]int{true: 200, false: 404}[applied]
			if rec := w.call("GET", "/v2/apps/web", ""); rec.Code != want {
				t.Errorf("applied %v: after that: got %d, want %d", applied, rec.Code, want)
			}
			if got := len(w.placed("/web", "")); (got == 1) != applied {
				t.Errorf("applied %v: instances: got %d", applied, got)
			}
		})
	}
}

func TestDeposedLeaderWritesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.store.Expire("marina")
		if rec := w.call("POST", "/v2/apps", `{"id":"/web","cmd":"x"}`); rec.Code != 503 {
			t.Errorf("got %d %s, want 503", rec.Code, rec.Body)
		}
		snap, err := w.store.Snapshot(w.ctx, appRows.Prefix())
		if err != nil || len(snap.Items) != 0 {
			t.Errorf("rows: got %v %v, want none", snap, err)
		}
	})
}

func TestRefusedSpecBacksOffAndIsTold(t *testing.T) {
	for _, kind := range []error{errdefs.ErrInvalidArgument, errdefs.ErrResourceExhausted, errdefs.ErrAlreadyExists} {
		t.Run(kind.Error(), func(t *testing.T) { refusedSpec(t, kind) })
	}
}

func refusedSpec(t *testing.T, kind error) {
	inWorld(t, func(w *world) {
		w.kernel.Auto(true)
		w.kernel.RefuseSpecs(fmt.Errorf("image nonsense: %w", kind))
		w.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"x"}`)
		if d := w.deployments(); len(d) != 1 || !strings.Contains(d[0].Reason, "image nonsense") {
			t.Fatalf("deployments: got %+v, want one that says why", d)
		}
		w.after(10 * time.Second)
		if n := w.ids.Load(); n > 10 {
			t.Errorf("ids used in ten seconds: got %d, that is a storm", n)
		}
		w.kernel.RefuseSpecs(nil)
		w.after(10 * time.Second)
		if d := w.deployments(); len(d) != 0 {
			t.Errorf("deployments: got %+v, want none", d)
		}
	})
}

func TestAPlacementThatThereIsNotIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		rec := w.call("POST", "/v2/apps", `{"id":"/a","cmd":"x","labels":{"MARINA_PLACEMENT":"tight"}}`)
		if rec.Code != 422 || !strings.Contains(rec.Body.String(), "got tight, expected spread or binpack") {
			t.Errorf("got %d %s, want 422 that says what there is", rec.Code, rec.Body)
		}
	})
}

func TestPublishedPortBelongsToOneApp(t *testing.T) {
	inWorld(t, func(w *world) {
		const fields = `"cmd":"x","labels":{"HAPROXY_GROUP":"external"},"portDefinitions":[{"port":10050}]`
		w.must(201, "POST", "/v2/apps", `{"id":"/a",`+fields+`}`)
		if rec := w.call("POST", "/v2/apps", `{"id":"/b",`+fields+`}`); rec.Code != 422 ||
			!strings.Contains(rec.Body.String(), "app /a") {
			t.Errorf("got %d %s, want 422 naming /a", rec.Code, rec.Body)
		}
	})
}

func TestPanicInOneRequestHarmsNoOther(t *testing.T) {
	inWorld(t, func(w *world) {
		err := w.svc.do(w.ctx, func(*tx) error { panic("planted") })
		if !errors.Is(err, scheduler.ErrPanic) {
			t.Errorf("got %v, want ErrPanic", err)
		}
		w.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"x"}`)
	})
}

// TestCrashLoopIsNoStorm counts the launches of an app that ends as soon as it runs, within an hour.
func TestCrashLoopIsNoStorm(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(201, "POST", "/v2/apps", `{"id":"/bad","cmd":"false"}`)
		w.must(201, "POST", "/v2/apps", `{"id":"/good","cmd":"x"}`)
		launches := 0
		for range 3600 {
			for _, i := range w.placed("/bad", "") {
				launches++
				w.kernel.End(i.ID, kernel.Failed, "exit 1")
			}
			for _, i := range w.placed("/good", "") {
				w.kernel.Run(i.ID)
			}
			w.after(time.Second)
		}
		if launches < 20 || launches > 60 {
			t.Errorf("launches in an hour: got %d, want about 40: pauses grow from 1 s by 1.15 to 300 s", launches)
		}
		if got := w.app("/good")["tasksRunning"]; got != 1.0 {
			t.Errorf("the other app's tasks: got %v, want 1", got)
		}
		if f := w.app("/bad")["lastTaskFailure"].(map[string]any); f["state"] != "TASK_FAILED" || f["message"] != "exit 1" {
			t.Errorf("lastTaskFailure: got %v", f)
		}
	})
}

// TestLostMachineIsReplacedAndItsReturnTrimmed follows the default strategy: a replacement at once, the old one
// forgotten.
func TestLostMachineIsReplacedAndItsReturnTrimmed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.kernel.Auto(true)
		w.kernel.AddAgent("a2", 1000)
		w.kernel.Brake(true)
		w.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"x","instances":4}`)
		w.kernel.Lose("a1")
		w.after(time.Second)
		if got := w.app("/web")["tasksRunning"]; got != 4.0 {
			t.Fatalf("running beside the lost ones: got %v, want 4", got)
		}
		if got := len(w.placed("/web", "")); got != 6 {
			t.Fatalf("placed while forgetting is refused: got %d, want 6", got)
		}
		w.kernel.Return("a1")
		w.after(time.Second)
		if got := len(w.placed("/web", "")); got != 4 {
			t.Fatalf("placed after the return: got %d, want 4", got)
		}
		w.kernel.Brake(false)
		w.kernel.Lose("a1")
		w.after(time.Minute)
		if got := w.placed("/web", ""); len(got) != 4 || got[0].Agent == "a1" {
			t.Fatalf("placed after the lost ones were forgotten: got %v, want 4 elsewhere", got)
		}
	})
}

func TestADependencyIsKeptOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(201, "POST", "/v2/apps", `{"id":"/g/a","cmd":"x","dependencies":["b","/g/b","/h","../h","b"]}`)
		if got, want := w.apps()["/g/a"].Dependencies, []string{"/g/b", "/h"}; !slices.Equal(got, want) {
			t.Errorf("dependencies: got %q, want %q", got, want)
		}
	})
}
