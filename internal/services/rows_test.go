package services

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/store"
)

// stored writes rows as an earlier leader would have.
func (w *world) stored(op store.Op, err error) {
	if err == nil {
		_, err = w.store.Commit(w.ctx, store.Txn{Ops: []store.Op{op}})
	}
	if err != nil {
		w.fail("%s: %v", op.Key, err)
	}
}

// storedApp writes an app and its version.
func (w *world) storedApp(id, version string, instances int) *marathon.App {
	a, err := marathon.Read(must(marathon.Parse(fmt.Appendf(nil,
		`{"id":%q,"cmd":"x","cpus":0.1,"mem":1,"instances":%d}`, id, instances))).(map[string]any), nil, false)
	if err != nil {
		w.fail("app %s: %v", id, err)
	}
	a.Role, a.Version, a.VersionInfo = "slave_public", version, &marathon.VersionInfo{LastScalingAt: version,
		LastConfigChangeAt: version}
	w.stored(appRows.Put(id, *a))
	w.stored(versionRows(id).Put(version, *a))
	return a
}

// TestDeploymentsThatAdvanceAtOnceNeedNotFitOneTransaction has fourteen deployments whose rows are more than 8 MiB
// together come to their next step in one decision, as after a failover.
func TestDeploymentsThatAdvanceAtOnceNeedNotFitOneTransaction(t *testing.T) {
	const v = "2026-01-01T00:00:00.000Z"
	inStoredWorld(t, func(w *world) {
		for n := range 14 {
			id := fmt.Sprintf("/app-%d", n)
			w.storedApp(id, v, 0)
			row := deploymentRow{ID: fmt.Sprint("d", n), Version: v, Changes: []changeRow{{App: id, From: v, To: v}},
				Steps: []marathon.Step{{Actions: []marathon.Action{{Action: marathon.ScaleApplication, App: id}}},
					{Actions: []marathon.Action{{Action: marathon.ScaleApplication, App: id}}}}}
			for k := range 10_000 {
				row.Changes[0].Victims = append(row.Changes[0].Victims, kernel.InstanceID(fmt.Sprintf("app-%d.instance-%050d", n, k)))
			}
			w.stored(deploymentRows.Put(row.ID, row))
		}
	}, func(w *world) {
		if got := w.deployments(); len(got) != 0 {
			t.Errorf("deployments: got %d, want all done", len(got))
		}
		w.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"x"}`)
	})
}

// inStoredWorld runs a test with a leader that begins from rows.
func inStoredWorld(t *testing.T, rows, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t.Fatalf)
		w.kernel.AddAgent("a1", 1000)
		rows(w)
		w.lead()
		defer w.end()
		f(w)
	})
}

// TestADeploymentThatCannotBeWrittenIsSetAsideAlone has a deployment whose row holds no more: its next step needs one
// digit more.
func TestADeploymentThatCannotBeWrittenIsSetAsideAlone(t *testing.T) {
	const v = "2026-01-01T00:00:00.000Z"
	inStoredWorld(t, func(w *world) {
		w.storedApp("/full", v, 0)
		row := deploymentRow{ID: "full", Version: v, Changes: []changeRow{{App: "/full", From: v, To: v,
			Victims: []kernel.InstanceID{""}}}, Step: 9}
		for range 11 {
			row.Steps = append(row.Steps, marathon.Step{Actions: []marathon.Action{{Action: marathon.ScaleApplication,
				App: "/full"}}})
		}
		short := store.MaxValueBytes - len(must(deploymentRows.Put("full", row)).Value)
		row.Changes[0].Victims[0] = kernel.InstanceID(strings.Repeat("x", short))
		w.stored(deploymentRows.Put("full", row))
		w.storedApp("/other", v, 0)
		w.stored(deploymentRows.Put("other", deploymentRow{ID: "other", Version: v, Changes: []changeRow{{App: "/other",
			From: v, To: v}},
			Steps: []marathon.Step{{Actions: []marathon.Action{{Action: marathon.ScaleApplication, App: "/other"}}}}}))
	}, func(w *world) {
		got := w.deployments()
		if len(got) != 1 || got[0].ID != "full" || !strings.Contains(got[0].Reason, "set aside") {
			t.Fatalf("deployments: got %+v, want full alone, set aside", got)
		}
		if a := w.svc.Alarms(); len(a) != 1 || a[0].Subject != "deployment full" || !strings.Contains(a[0].Do,
			"/v2/deployments/full") || a[0].Since.IsZero() {
			t.Errorf("alarms: got %+v, want one of deployment full that says what to do", a)
		}
		w.must(409, "PUT", "/v2/apps/full", `{"instances":1}`)
		w.call("DELETE", "/v2/deployments/full?force=true", "")
		if a, d := w.svc.Alarms(), w.deployments(); len(a)+len(d) != 0 {
			t.Errorf("after it was cancelled: got alarms %v, deployments %v, want none", a, d)
		}
		w.must(200, "PUT", "/v2/apps/full", `{"instances":1}`)
	})
}

// slowStore is a store whose reads of one row wait until they are let go.
type slowStore struct {
	store.Store
	key string
	let chan struct{}
}

func (s *slowStore) Get(ctx context.Context, key string) (store.Item, error) {
	if key == s.key {
		<-s.let
	}
	return s.Store.Get(ctx, key)
}

// TestAReadOfAnEarlierVersionStopsNobody has the store be slow to answer for the version that a change goes back to.
func TestAReadOfAnEarlierVersionStopsNobody(t *testing.T) {
	for _, ask := range []struct{ path, body string }{{"/v2/apps/web", `{"version":%q}`}, {"/v2/apps",
		`[{"id":"/web","version":%q}]`}} {
		inWorld(t, func(w *world) {
			w.kernel.Auto(true)
			version := w.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"x"}`)["version"].(string)
			w.must(200, "PUT", "/v2/apps/web", `{"cmd":"y"}`)
			slow := &slowStore{w.store, versionRows("/web").Key(version), make(chan struct{})}
			w.end()
			w.front = slow
			w.lead()
			w.kernel.Complete(true)
			back := httptest.NewRecorder()
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.api.ServeHTTP(back, httptest.NewRequest("PUT", ask.path, strings.NewReader(fmt.Sprintf(ask.body, version))))
			}()
			synctest.Wait()
			other := make(chan int, 1)
			go func() {
				rec := httptest.NewRecorder()
				w.api.ServeHTTP(rec, httptest.NewRequest("POST", "/v2/apps", strings.NewReader(`{"id":"/other","cmd":"x"}`)))
				other <- rec.Code
			}()
			synctest.Wait()
			if len(other) == 0 {
				t.Errorf("PUT %s: while the store reads, no other change is answered", ask.path)
			}
			close(slow.let)
			<-done
			if back.Code != 200 || *w.apps()["/web"].CMD != "x" {
				t.Errorf("PUT %s: got %d %s, and cmd %s, want 200 and x", ask.path, back.Code, back.Body, *w.apps()["/web"].CMD)
			}
			if got := <-other; got != 201 {
				t.Errorf("the other change: got %d, want 201", got)
			}
		})
	}
}

// TestARemovalOfMoreVersionsThanFitATransactionEnds ends a deployment that removes 400 apps of 25 versions each.
func TestARemovalOfMoreVersionsThanFitATransactionEnds(t *testing.T) {
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	inStoredWorld(t, func(w *world) {
		row := deploymentRow{ID: "d", Version: marathon.Timestamp(first.AddDate(0, 0, 1)), Steps: []marathon.Step{{}}}
		for n := range 400 {
			id := fmt.Sprintf("/app-%03d", n)
			txn := store.Txn{}
			for k := range 25 {
				v := marathon.Timestamp(first.Add(time.Duration(k) * time.Second))
				a := marathon.App{ID: id, Version: v, VersionInfo: &marathon.VersionInfo{LastScalingAt: v, LastConfigChangeAt: v}}
				txn.Ops = append(txn.Ops, must(versionRows(id).Put(v, a)))
			}
			if _, err := w.store.Commit(w.ctx, txn); err != nil {
				t.Fatal(err)
			}
			row.Changes = append(row.Changes, changeRow{App: id, From: marathon.Timestamp(first)})
			row.Steps[0].Actions = append(row.Steps[0].Actions, marathon.Action{Action: marathon.StopApplication, App: id})
		}
		w.stored(deploymentRows.Put("d", row))
	}, func(w *world) {
		if d, a := w.deployments(), w.svc.Alarms(); len(d)+len(a) != 0 {
			t.Errorf("got deployments %v, alarms %v, want none", d, a)
		}
		snap, err := w.store.Snapshot(w.ctx, store.Prefix(versionTable))
		if err != nil || len(snap.Items) != 0 {
			t.Errorf("versions left: got %d %v, want none", len(snap.Items), err)
		}
	})
}
