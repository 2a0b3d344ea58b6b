package containerd

import (
	"context"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
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
			with.ID, with.Shell, with.Labels, with.Env, with.Stdout, with.Stderr = c.ID, c.Shell, c.Labels, c.Env, c.Stdout, c.Stderr
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
		} else if !strings.Contains(err.Error(), ref) || (!errdefs.IsInvalidArgument(err) && !strings.Contains(err.Error(), "marina image load")) {
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

func TestLayoutArchiveIsImported(t *testing.T) {
	p := newPlace(t)
	dir := t.TempDir()
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: probeImage(t)})
	at, err := layout.Write(dir, index)
	if err != nil {
		t.Fatal(err)
	}
	if err := at.ReplaceImage(probeImage(t), func(v1.Descriptor) bool { return true }, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name": "example.com/layout:1"})); err != nil {
		t.Fatal(err)
	}
	tar := exec.Command("tar", "-C", dir, "-cf", filepath.Join(dir, "image.tar"), "oci-layout", "index.json", "blobs")
	if out, err := tar.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := os.Open(filepath.Join(dir, "image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	refs, err := p.Import(t.Context(), f)
	if err != nil || len(refs) != 1 || refs[0] != "example.com/layout:1" {
		t.Fatalf("got %v, %v, want example.com/layout:1", refs, err)
	}
	imgs, err := p.Images(t.Context())
	if err != nil || len(imgs) != 2 {
		t.Errorf("images: got %v, %v, want two", imgs, err)
	}
	if _, err := p.Import(t.Context(), strings.NewReader("not an archive")); err == nil {
		t.Error("garbage: imported, want an error")
	}
}

func TestSomebodyElsesContainerdIsUsedAndLeft(t *testing.T) {
	theirs := newPlace(t)
	ours := &place{t: t, cfg: Config{Instance: theirs.cfg.Instance + "x", State: filepath.Join(t.TempDir(), "state"), Bin: theirs.cfg.Bin, Socket: theirs.cfg.socket()}}
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
