package api

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kernel/kerneltest"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/services"
	"github.com/marinaos/marina/internal/store/memory"
)

var update = flag.Bool("update", false, "write what happens into testdata")

// world is services with a store and a kernel in memory, seen through the API. It lives in a synctest bubble.
type world struct {
	fail   func(format string, args ...any)
	kernel *kerneltest.Kernel
	store  *memory.Store
	api    http.Handler

	services *services.Services
	cancel   context.CancelFunc
	done     chan error
	ids      atomic.Int64
}

// inWorld runs a test in a bubble with one agent that has plenty of room.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t.Fatalf)
		w.lead()
		defer w.end()
		f(w)
	})
}

func newWorld(fail func(string, ...any)) *world {
	w := &world{fail: fail, kernel: kerneltest.New(time.Now), store: memory.New(), done: make(chan error, 1)}
	w.kernel.AddAgent("a1", 1000)
	return w
}

func (w *world) lead() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	l, err := w.store.Campaign(ctx, "marina", "m1")
	if err != nil {
		w.fail("campaign: %v", err)
	}
	s := services.New(services.Config{Store: w.store, Kernel: w.kernel, Fence: l.Fence(), Leader: "127.0.0.1:8080",
		NewID: func() string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", w.ids.Add(1)) }})
	w.api, w.services = New(s, nil), s
	go func() { w.done <- s.Run(l.Context()) }()
	synctest.Wait()
}

func (w *world) end() {
	w.cancel()
	<-w.done
	synctest.Wait()
}

// call asks the API and lets everything come to rest.
func (w *world) call(method, path, body string) *httptest.ResponseRecorder {
	rec := w.ask(method, path, body)
	synctest.Wait()
	return rec
}

func (w *world) ask(method, path, body string) *httptest.ResponseRecorder {
	var r io.Reader
	if body != "" {
		r = bytes.NewReader([]byte(body))
	}
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, httptest.NewRequest(method, path, r))
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

func (w *world) deployments() (out []marathon.DeploymentInfo) {
	if err := json.Unmarshal(w.call("GET", "/v2/deployments", "").Body.Bytes(), &out); err != nil {
		w.fail("deployments: %v", err)
	}
	return out
}

// placed lists an app's placed instances.
func (w *world) placed(app string) (out []kernel.Instance) {
	for _, i := range w.kernel.Instances() {
		if i.Owner == app {
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

func TestEveryAnswerOfAWorldIsJSON(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, path := range []string{"/v2/apps", "/v2/groups", "/v2/deployments", "/v2/queue", "/v2/tasks", "/v2/info",
			"/metrics", "/v2/apps/none", "/x"} {
			rec := w.call("GET", path, "")
			if !strings.HasPrefix(rec.Header().Get("Content-Type"), "application/json") || !json.Valid(rec.Body.Bytes()) {
				t.Errorf("GET %s: got %s %s", path, rec.Header().Get("Content-Type"), rec.Body)
			}
		}
	})
}

// must is for what always succeeds in a test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
