package services

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kernel/kerneltest"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/services/core"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

// HandlerOf is the API of services; api_link_test.go sets it, since this package's own tests cannot import what
// imports it.
var HandlerOf func(*Services) http.Handler

// world is a datacenter for one test: a store, a kernel and the services of whoever leads. It lives in a synctest
// bubble.
type world struct {
	fail   func(format string, args ...any)
	ctx    context.Context
	kernel *kerneltest.Kernel
	store  *memory.Store
	front  store.Store // what services see of it, if it is not the store itself
	svc    *Services
	api    http.Handler
	cancel context.CancelFunc
	done   chan error
	ids    atomic.Int64
	terms  int
	policy core.Policy
	full   error // what Admit says
	most   int   // apps; zero: the default
}

// inWorld runs a test in a bubble with one agent that has plenty of room.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t.Fatalf)
		w.kernel.AddAgent("a1", 1000)
		w.lead()
		defer w.end()
		f(w)
	})
}

func newWorld(fail func(string, ...any)) *world {
	return &world{fail: fail, ctx: context.Background(), kernel: kerneltest.New(time.Now), store: memory.New(),
		policy: core.DefaultPolicy}
}

// lead begins a leadership.
func (w *world) lead() {
	ctx, cancel := context.WithCancel(w.ctx)
	w.cancel, w.done = cancel, make(chan error, 1)
	w.terms++
	l, err := w.store.Campaign(ctx, "marina", fmt.Sprint("m", w.terms))
	if err != nil {
		w.fail("campaign: %v", err)
	}
	front := w.front
	if front == nil {
		front = w.store
	}
	w.svc = New(Config{Store: front, Kernel: w.kernel, Fence: l.Fence(), NewID: w.newID, Leader: "127.0.0.1:8080",
		Policy: w.policy, Admit: func() error { return w.full }, MaxApps: w.most})
	w.api = HandlerOf(w.svc)
	svc := w.svc
	go func() { w.done <- svc.Run(l.Context()); _ = l.Resign(context.Background()) }()
	synctest.Wait()
}

func (w *world) newID() string {
	return fmt.Sprintf("00000000-0000-0000-0000-%012d", w.ids.Add(1))
}

// end ends the leadership and waits for it.
func (w *world) end() {
	w.cancel()
	<-w.done
	synctest.Wait()
}

// failover has another leader take over. The kernel's queue is lost and agents have to report.
func (w *world) failover() {
	w.kernel.Failover()
	w.end()
	w.lead()
	w.kernel.Complete(true)
	synctest.Wait()
}

// call asks the API and lets everything come to rest.
func (w *world) call(method, path, body string) *httptest.ResponseRecorder {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, httptest.NewRequest(method, path, r))
	synctest.Wait()
	return rec
}

// must asks and expects a status.
func (w *world) must(status int, method, path, body string) map[string]any {
	rec := w.call(method, path, body)
	if rec.Code != status {
		w.fail("%s %s: got %d %s, want %d", method, path, rec.Code, rec.Body, status)
	}
	var out map[string]any
	_ = json.Unmarshal(rec.Body.Bytes(), &out)
	return out
}

// app is an app as the API shows it.
func (w *world) app(id string) map[string]any {
	return w.must(200, "GET", "/v2/apps"+id, "")["app"].(map[string]any)
}

func (w *world) deployments() []marathon.DeploymentInfo {
	var out []marathon.DeploymentInfo
	if err := json.Unmarshal(w.call("GET", "/v2/deployments", "").Body.Bytes(), &out); err != nil {
		w.fail("deployments: %v", err)
	}
	return out
}

// apps, running and away look into the state of who leads, under its lock.
func (w *world) apps() map[string]*marathon.App {
	w.svc.mu.RLock()
	defer w.svc.mu.RUnlock()
	return maps.Clone(w.svc.state.Apps)
}

func (w *world) running() []*core.Deployment {
	w.svc.mu.RLock()
	defer w.svc.mu.RUnlock()
	return slices.Clone(w.svc.state.Deployments)
}

func (w *world) away() int {
	w.svc.mu.RLock()
	defer w.svc.mu.RUnlock()
	return w.svc.state.Away()
}

// placed lists an app's placed instances, of one config version if it is given.
func (w *world) placed(app, version string) (out []kernel.Instance) {
	for _, i := range w.kernel.Instances() {
		if i.Owner == app && (version == "" || i.Version == version) {
			out = append(out, i)
		}
	}
	return out
}

// after lets time pass and everything come to rest.
func (w *world) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var _ store.Store = (*memory.Store)(nil)

func TestAppRunsAndIsKeptRunning(t *testing.T) {
	inWorld(t, func(w *world) {
		w.kernel.Auto(true)
		w.must(201, "POST", "/v2/apps", `{"id":"/hello","cmd":"sleep 1000","instances":3}`)
		if got := w.app("/hello")["tasksRunning"]; got != 3.0 {
			t.Fatalf("tasksRunning: got %v, want 3", got)
		}
		if d := w.deployments(); len(d) != 0 {
			t.Fatalf("deployments: got %v, want none", d)
		}
		w.kernel.End(w.placed("/hello", "")[0].ID, kernel.Failed, "exit 1")
		synctest.Wait()
		if got := len(w.placed("/hello", "")); got != 2 {
			t.Fatalf("instances within the pause: got %d, want 2", got)
		}
		w.after(time.Second)
		if got := len(w.placed("/hello", "")); got != 3 {
			t.Fatalf("instances after the pause: got %d, want 3", got)
		}
		w.must(200, "DELETE", "/v2/apps/hello", "")
		if got := len(w.kernel.Instances()); got != 0 {
			t.Fatalf("instances after removal: got %d, want 0", got)
		}
		w.must(404, "GET", "/v2/apps/hello", "")
	})
}

// must is for what always succeeds in a test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
