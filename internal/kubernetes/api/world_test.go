package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kernel/kerneltest"
	"github.com/marinaos/marina/internal/kubernetes"
	"github.com/marinaos/marina/internal/store/memory"
)

// patience bounds every wait of a test.
const patience = 60 * time.Second

// world is clusters on the kernel's twin, seen through the API. Their stewards say nothing: what a steward tells is
// tested in the room.
type world struct {
	t        *testing.T
	kernel   *kerneltest.Kernel
	memory   *memory.Store
	clusters *kubernetes.Clusters
	quotas   []kernel.QuotaView
	usage    func(agent kernel.AgentID, task kernel.TaskID) (kubernetes.Cost, error)
	stop     func()
}

func newWorld(t *testing.T) *world {
	root, err := identity.NewRootKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, kernel: kerneltest.New(time.Now), memory: memory.New()}
	w.kernel.AddAgent("a1", 50)
	w.kernel.Bundle("a1", map[string]string{"kubernetes/v1.37": "v1.37.2"})
	w.kernel.Auto(true)
	ctx, cancel := context.WithCancel(context.Background())
	l, err := w.memory.Campaign(ctx, "master", "test")
	if err != nil {
		t.Fatal(err)
	}
	w.clusters = kubernetes.New(kubernetes.Config{Store: w.memory, Kernel: w.kernel, Fence: l.Fence(), Root: root,
		Pool: netip.MustParsePrefix("10.128.0.0/16"), VIPs: netip.MustParsePrefix("198.18.0.0/16"), Images: t.TempDir(),
		Dial:   func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody listens") },
		Quotas: func() []kernel.QuotaView { return w.quotas }, Tell: 200 * time.Millisecond,
		Usage: func(_ context.Context, agent kernel.AgentID, task kernel.TaskID) (kubernetes.Cost, error) {
			return w.usage(agent, task)
		}})
	done := make(chan error, 1)
	go func() { done <- w.clusters.Run(ctx) }()
	w.stop = func() {
		cancel()
		<-done
		_ = l.Resign(context.Background())
		w.stop = func() {}
	}
	t.Cleanup(func() { w.stop() })
	if err := w.clusters.Delete(ctx, "none"); !errdefs.IsNotFound(err) { // or rows are not loaded
		t.Fatalf("clusters ended: %v", err)
	}
	return w
}

func (w *world) create(d kubernetes.Definition) {
	w.t.Helper()
	if err := w.clusters.Create(w.t.Context(), d); err != nil {
		w.t.Fatal(err)
	}
}

// api is what whoever z lets may ask.
func (w *world) api(z access.Authorizer) *API {
	return New(w.clusters, z, slog.New(slog.DiscardHandler))
}

func (w *world) call(method, path, body string) *httptest.ResponseRecorder {
	return w.callAs(nil, method, path, body)
}

func (w *world) callAs(z access.Authorizer, method, path, body string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w.api(z).ServeHTTP(rec, httptest.NewRequest(method, "/kubernetes/v1"+path, strings.NewReader(body)))
	return rec
}

// until waits for a cluster to look as it should, or, with a nil ok, to be gone.
func (w *world) until(name, what string, ok func(kubernetes.View) bool) {
	w.t.Helper()
	for deadline := time.After(patience); ; {
		v, changed, err := w.clusters.Get(name)
		if err == nil && ok != nil && ok(v) || err != nil && ok == nil {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			w.t.Fatalf("cluster %s: not %s within %v: %v %+v", name, what, patience, err, v)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// refuse is a body that cannot be read.
type refuse struct{}

// Read fails.
func (refuse) Read([]byte) (int, error) { return 0, http.ErrBodyReadAfterClose }
