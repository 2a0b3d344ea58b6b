package containerd

import (
	"context"
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/marinaos/marina/internal/runtime"
	"github.com/marinaos/marina/internal/runtime/runtimetest"
)

func newRegistry() *httptest.Server {
	return httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
}

// TestRuntimeContract runs the conformance suite on tasks without an image: it asks for a shell.
func TestRuntimeContract(t *testing.T) {
	p := newPlace(t)
	empty := newRegistry() // knows no image, and answers
	empty.Start()
	t.Cleanup(empty.Close)
	runtimetest.Run(t, runtimetest.Options{
		Missing: empty.Listener.Addr().String() + "/none:1",
		OOM:     true, Sizes: true,
		Open: func(t *testing.T) runtime.Runtime {
			p.down()
			p.Close()
			p.up()
			return p.Runtime
		},
		Container: func(t *testing.T, c runtime.Container) runtime.Container {
			with := p.container()
			with.ID, with.Shell, with.Labels, with.Env = c.ID, c.Shell, c.Labels, c.Env
			with.Stdout, with.Stderr = c.Stdout, c.Stderr
			with.Image, with.Argv, with.Cgroup = "", nil, "group/"+c.ID
			return with
		},
	})
}

func TestImageComesFromTheStoreThenFromItsRegistry(t *testing.T) {
	p := newPlace(t)
	store, public := newRegistry(), newRegistry()
	store.StartTLS()
	public.Start()
	t.Cleanup(store.Close)
	t.Cleanup(public.Close)
	push := func(to *httptest.Server, repo string) {
		ref, err := name.NewTag(to.Listener.Addr().String() + "/" + repo)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, probeImage(t), remote.WithTransport(to.Client().Transport)); err != nil {
			t.Fatal(err)
		}
	}
	push(store, "team/stored:1")
	push(public, "team/public:1")
	registryName := public.Listener.Addr().String()

	p.down()
	p.Close()
	p.cfg.Store = &Store{URL: store.URL, Client: store.Client()}
	p.up()
	exits := p.Exits(t.Context())
	for _, ref := range []string{"example.invalid/team/stored:1", registryName + "/team/public:1"} {
		if err := p.Pull(t.Context(), ref, false); err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		c := p.container("exit", "6")
		c.Image = ref
		p.run(c)
		if e := p.exit(exits, c.ID); e.Code != 6 {
			t.Errorf("%s: got %+v, want code 6", ref, e)
		}
	}
	for ref, is := range map[string]func(error) bool{
		registryName + "/team/missing:1": errdefs.IsNotFound,
		"127.0.0.1:1/team/missing:1":     errdefs.IsUnavailable,
		"team/UPPER:1":                   errdefs.IsInvalidArgument,
	} {
		err := p.Pull(t.Context(), ref, false)
		if !is(err) {
			t.Errorf("%s: got %v", ref, err)
		} else if todo := strings.Contains(err.Error(), "marina image load") || errdefs.IsInvalidArgument(err); !todo ||
			!strings.Contains(err.Error(), ref) {
			t.Errorf("%s: %q names not the image and what to do", ref, err)
		}
	}

	store.Close()
	public.Close()
	for _, ref := range []string{"example.invalid/team/stored:1", registryName + "/team/public:1"} {
		if err := p.Pull(t.Context(), ref, false); err != nil {
			t.Errorf("%s, present: %v", ref, err)
		}
		if err := p.Pull(t.Context(), ref, true); !errdefs.IsUnavailable(err) {
			t.Errorf("%s, afresh: got %v, want unavailable", ref, err)
		}
	}
}

func TestSomebodyElsesContainerdIsUsedAndLeft(t *testing.T) {
	theirs := newPlace(t)
	ours := &place{t: t, cfg: Config{Instance: theirs.cfg.Instance + "x", State: filepath.Join(t.TempDir(), "state"),
		Bin: theirs.cfg.Bin, Socket: theirs.cfg.socket()}}
	ours.up()
	defer ours.Close()
	exits := ours.Exits(t.Context())
	c := ours.container()
	c.Image, c.Argv, c.Shell = "", nil, "exit 8"
	ours.run(c)
	if e := ours.exit(exits, c.ID); e.Code != 8 {
		t.Errorf("got %+v, want code 8", e)
	}
	if all, err := theirs.Containers(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("the other datacenter sees %v, %v, want nothing", all, err)
	}
	ours.down()
	if err := ours.RemoveAll(context.Background()); err != nil {
		t.Errorf("RemoveAll: %v", err)
	}
	for _, left := range ours.traces() {
		if !strings.Contains(left, "containerd.toml") {
			t.Errorf("left behind: %s", left)
		}
	}
	theirs.daemonPID()
}
