package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
)

// probeRef is the image with testdata/probe in it.
const probeRef = "example.com/probe:1"

// patience is how long a test waits for something that is to happen at once.
const patience = 20 * time.Second

// needReal returns the directory of the bundle's programs, or skips: real containers take root and the programs. With
// MARINA_REQUIRE_REAL, as `make test` sets it, missing parts are a failure.
func needReal(t testing.TB) string {
	t.Helper()
	bin, err := filepath.Abs("../../../bundle/runtime/bin")
	if err != nil {
		t.Fatal(err)
	}
	why := ""
	if os.Geteuid() != 0 {
		why = "real containers take root"
	} else if _, err := os.Stat(filepath.Join(bin, "marina-log")); err != nil {
		why = "bundle/runtime is not built: make -C bundle/runtime"
	}
	if why != "" && os.Getenv("MARINA_REQUIRE_REAL") != "" {
		t.Fatal(why)
	}
	if why != "" {
		t.Skip(why)
	}
	return bin
}

// place is a datacenter's on this machine, with a runtime that can be started again.
type place struct {
	*Runtime
	t      testing.TB
	cfg    Config
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// newPlace starts a runtime with the probe's image in it. At the end of the test everything is removed, and the test
// fails if something is left.
func newPlace(t testing.TB) *place {
	t.Helper()
	bin := needReal(t)
	p := &place{t: t, cfg: Config{Instance: "t" + strings.ToLower(rand.Text()[:8]), State: filepath.Join(t.TempDir(), "state"), Bin: bin}}
	p.up()
	t.Cleanup(func() {
		p.down()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.RemoveAll(ctx); err != nil {
			t.Errorf("RemoveAll: %v", err)
		}
		p.Close()
		for _, left := range p.traces() {
			t.Errorf("left behind: %s", left)
		}
	})
	p.load(probeArchive(t))
	return p
}

// load makes the images of an archive present and unpacked.
func (p *place) load(archive []byte) {
	p.t.Helper()
	imgs, err := p.client.Import(p.t.Context(), bytes.NewReader(archive))
	if err != nil {
		p.t.Fatalf("image archive: %v", err)
	}
	for _, i := range imgs {
		if err := p.Pull(p.t.Context(), i.Name, false); err != nil { // unpacks one that is present
			p.t.Fatal(err)
		}
	}
}

// up makes a runtime, as a starting agent does, and runs it.
func (p *place) up() {
	p.t.Helper()
	log := slog.New(slog.NewTextHandler(p.t.Output(), nil))
	r, err := New(p.t.Context(), p.cfg, log)
	if err != nil {
		p.t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.Runtime, p.cfg, p.cancel = r, r.cfg, cancel
	p.done.Go(func() {
		if err := r.Run(ctx); err != nil {
			p.t.Errorf("Run: %v", err)
		}
	})
	wait, stop := context.WithTimeout(p.t.Context(), patience)
	defer stop()
	if err := r.Ready(wait); err != nil {
		b, _ := os.ReadFile(p.cfg.logFile())
		p.t.Fatalf("Ready: %v\n%s", err, b)
	}
}

// down ends the runtime as a dying agent does: containerd and containers go on.
func (p *place) down() {
	p.cancel()
	p.done.Wait()
}

// traces lists what a runtime left on the machine.
func (p *place) traces() []string {
	var out []string
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range procs {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(p.cfg.Instance)) {
			out = append(out, f+": "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, m := range mounts {
		if strings.HasPrefix(m.Mountpoint, p.cfg.Run) || strings.HasPrefix(m.Mountpoint, p.cfg.State) {
			out = append(out, "mount "+m.Mountpoint)
		}
	}
	for _, dir := range p.cgroups.Dirs("") {
		if _, err := os.Stat(dir); err == nil {
			out = append(out, "cgroup "+dir)
		}
	}
	for _, dir := range []string{p.cfg.Run, p.cfg.State} {
		if _, err := os.Stat(dir); err == nil {
			out = append(out, dir)
		}
	}
	return out
}

// container is one that runs the probe with these arguments, in a network namespace of its own.
func (p *place) container(args ...string) runtime.Container {
	p.t.Helper()
	dir := p.t.TempDir()
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil { // as an agent makes it
		p.t.Fatal(err)
	}
	return runtime.Container{
		ID: "app.instance-" + rand.Text() + "._app.1", Labels: map[string]string{"task": "app"}, Cgroup: "group" + rand.Text() + "/task",
		Image: probeRef, Argv: args, Hostname: "probe", NetNS: newNetNS(p.t), Dir: runtime.SandboxTarget,
		Binds:  []runtime.Bind{{Source: dir, Target: runtime.SandboxTarget}},
		Stdout: filepath.Join(dir, "stdout"), Stderr: filepath.Join(dir, "stderr"),
		MilliCPU: 100, MemLimit: 64 << 20,
	}
}

// run creates and starts a container.
func (p *place) run(c runtime.Container) runtime.Process {
	p.t.Helper()
	if err := p.Create(p.t.Context(), c); err != nil {
		b, _ := os.ReadFile(p.cfg.logFile())
		p.t.Fatalf("Create: %v\n%s", err, b)
	}
	proc, err := p.Start(p.t.Context(), c.ID)
	if err != nil {
		p.t.Fatalf("Start: %v", err)
	}
	return proc
}

// exit waits for the end of a container.
func (p *place) exit(exits <-chan runtime.Exit, id string) runtime.Exit {
	p.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case e, ok := <-exits:
			if !ok {
				p.t.Fatal("exits ended")
			}
			if e.ID == id {
				return e
			}
		case <-limit:
			p.t.Fatalf("no exit of %s within %v", id, patience)
		}
	}
}

// output removes an ended container and returns what it wrote: its logger is done then.
func (p *place) output(c runtime.Container) (stdout, stderr string) {
	p.t.Helper()
	if err := p.Remove(p.t.Context(), c.ID); err != nil {
		p.t.Error(err)
	}
	return contents(p.t, c.Stdout), contents(p.t, c.Stderr)
}

// eventually waits until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func contents(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// newNetNS makes a network namespace and returns its path; it ends with the test.
func newNetNS(t testing.TB) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(at, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		goruntime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", at, "", unix.MS_BIND, "")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount network namespace: %v", err)
		}
	})
	return at
}

var probe = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "probe"), "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "probe"))
})

// probeImage is the smallest image with the probe, a user, and directories that bring an owner and a place to write.
func probeImage(t testing.TB) v1.Image {
	t.Helper()
	bin, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, h := range []tar.Header{
		{Name: "etc/", Mode: 0o755, Typeflag: tar.TypeDir}, {Name: "tmp/", Mode: 0o1777, Typeflag: tar.TypeDir},
		{Name: "home/", Mode: 0o755, Typeflag: tar.TypeDir, Uid: 1000, Gid: 1000},
		{Name: "etc/passwd", Mode: 0o644, Size: int64(len(passwd))}, {Name: "probe", Mode: 0o755, Size: int64(len(bin))},
	} {
		err := w.WriteHeader(&h)
		if err == nil && h.Name == "probe" {
			_, err = w.Write(bin)
		} else if err == nil && h.Size > 0 {
			_, err = io.WriteString(w, passwd)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err1 := mutate.AppendLayers(empty.Image, l)
	img, err2 := mutate.Config(img, v1.Config{Entrypoint: []string{"/probe"}, Cmd: []string{"report"}, Env: []string{"FROM=image"}, WorkingDir: "/home"})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file.OS, file.Architecture = "linux", goruntime.GOARCH
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

const passwd = "root:x:0:0::/:/probe\nalice:x:1000:1000::/home:/probe\n"

// probeArchive is the image as `docker save` writes it.
func probeArchive(t testing.TB) []byte {
	t.Helper()
	tag, err := name.NewTag(probeRef)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tarball.Write(tag, probeImage(t), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// lockedBuffer is a buffer that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
