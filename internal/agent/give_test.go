package agent_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// claimSpec is a spec of one task with a reservation of one volume.
func claimSpec(shell string) kernel.Spec {
	s := specOf(shell)
	s.Reservation = &kernel.Reservation{Name: "a.one", Volumes: []kernel.ReservedVolume{{Name: "data", Bytes: 16 * kernel.MiB}}}
	s.Tasks[0].Volumes = []kernel.Volume{{ContainerPath: "/data", Reserved: "data"}}
	return s
}

// made is what the only container was made from.
func (w *world) made() runtime.Container {
	w.t.Helper()
	all := w.containers()
	if len(all) != 1 {
		w.t.Fatalf("got %d containers, want one", len(all))
	}
	c, err := w.procs.Container(all[0].ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// source is what is bound to a place in the only container.
func (w *world) source(target string) string {
	w.t.Helper()
	for _, b := range w.made().Binds {
		if b.Target == target {
			return b.Source
		}
	}
	w.t.Fatalf("nothing is bound to %s", target)
	return ""
}

func (m *master) answers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.released)
}

func (w *world) mounted() []string {
	w.t.Helper()
	all, err := w.procs.Mounted(context.Background(), w.cfg.State)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func TestVolumesOutliveInstancesUntilTheirReservationIsReleased(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.launch(claimSpec("sleep 600"), kernel.Assignment{ID: "g1"})
	w.master.reaches("g1.t0", kernel.Running)
	if err := os.WriteFile(filepath.Join(w.source("/data"), "kept"), []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.master.send(kernel.Down{Release: []string{"marathon/a.one", "marathon/never", "../x"}})
	eventually(t, "claims that are not here are told as released", func() bool { return len(w.master.answers()) == 2 })
	if got := w.master.answers(); slices.Contains(got, "marathon/a.one") {
		t.Errorf("a claim in use was released: %q", got)
	}

	w.kill() // with a reservation to be released: the next agent hears it from the next session
	w.start()
	w.master.connected(1)
	if got := readFile(t, filepath.Join(w.source("/data"), "kept")); got != "kept" {
		t.Errorf("after a restart of the agent: got %q", got)
	}
	w.master.end("g1")
	w.master.reaches("g1.t0", kernel.Killed)
	if got := w.mounted(); len(got) != 0 {
		t.Errorf("after the end: got %q mounted, want nothing", got)
	}
	w.master.launch(claimSpec("sleep 601"), kernel.Assignment{ID: "g2"})
	w.master.reaches("g2.t0", kernel.Running)
	if got := readFile(t, filepath.Join(w.source("/data"), "kept")); got != "kept" {
		t.Errorf("a later group with the claim: got %q, want what the first wrote", got)
	}
	w.master.end("g2")
	w.master.reaches("g2.t0", kernel.Killed)

	w.master.mu.Lock()
	w.master.release = []string{"marathon/a.one"}
	n := w.master.sessions
	w.master.mu.Unlock()
	for i := range 2 { // an answer that was lost is given again
		w.master.drop()
		w.master.connected(n + i)
		eventually(t, "the claim is released", func() bool { return len(w.master.answers()) == 3+i })
	}
	if left, err := os.ReadDir(filepath.Join(w.cfg.State, "volumes")); err != nil || len(left) != 0 {
		t.Errorf("after the release: got %v, %v, want nothing", left, err)
	}
}

func TestDamagedVolumeFailsOnlyItsInstance(t *testing.T) {
	w := newWorld(t)
	w.start()
	dir := filepath.Join(w.cfg.State, "volumes", "marathon", "a.one")
	w.master.connected(0)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data.img"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.master.launch(claimSpec("sleep 600"), kernel.Assignment{ID: "g1"})
	s := w.master.reaches("g1.t0", kernel.Failed)
	if s.Reason != kernel.ReasonRuntime || !strings.Contains(s.Message, "volume data of claim a.one") {
		t.Errorf("got %s: %s, want the runtime to blame and the volume named", s.Reason, s.Message)
	}
	w.master.launch(specOf("sleep 600"), kernel.Assignment{ID: "g2"})
	w.master.reaches("g2.t0", kernel.Running)
}

// vault is agent.Secrets in memory.
type vault struct {
	mu  sync.Mutex
	all map[string]kernel.Secret // guarded by mu
}

func (v *vault) Secret(_ context.Context, ref string) (kernel.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, ok := v.all[ref]
	if !ok {
		return s, fmt.Errorf("no secret %s: %w", ref, errdefs.ErrNotFound)
	}
	return s, nil
}

func (v *vault) set(ref string, files map[string][]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all[ref] = kernel.Secret{Files: files}
}

func TestFilesAreInPlaceKeptUpToDateAndGoneAtTheEnd(t *testing.T) {
	w := newWorld(t)
	v := &vault{all: map[string]kernel.Secret{}}
	w.secrets, w.cfg.SecretsEvery = v, 10*time.Millisecond
	v.set("pki", map[string][]byte{"ca.crt": []byte("one"), "old.crt": []byte("hush-hush")})
	w.start()
	s := specOf("sleep 600")
	s.Tasks[0].Files = []kernel.File{{Path: "/etc/kubernetes/node.json", Content: []byte("{}")}, {Path: "/etc/kubernetes/pki", Secret: "pki"}}
	w.master.launch(s, kernel.Assignment{ID: "g1"})
	w.master.reaches("g1.t0", kernel.Running)
	pki := w.source("/etc/kubernetes/pki")
	if got := readFile(t, w.source("/etc/kubernetes/node.json")); got != "{}" {
		t.Errorf("node.json: got %q", got)
	}
	if got := readFile(t, pki+"/ca.crt") + readFile(t, pki+"/old.crt"); got != "onehush-hush" {
		t.Errorf("pki: got %q", got)
	}
	for _, b := range w.made().Binds {
		if strings.HasPrefix(b.Target, "/etc/kubernetes/") && (!b.Raw || !b.ReadOnly) {
			t.Errorf("got %+v, want it read-only with the machine's ids", b)
		}
	}
	if err := filepath.WalkDir(w.cfg.State, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasPrefix(p, pki) {
			if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), "hush-hush") {
				t.Errorf("a secret is on disk, in %s", p)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.kill()
	w.start()
	v.set("pki", map[string][]byte{"ca.crt": []byte("two")})
	eventually(t, "the secret is replaced", func() bool {
		_, err := os.Stat(pki + "/old.crt")
		return err != nil && readFile(t, pki+"/ca.crt") == "two"
	})
	w.master.end("g1")
	w.master.reaches("g1.t0", kernel.Killed)
	if _, err := os.Stat(pki); err == nil {
		t.Error("the files are there after the end")
	}
	if got := w.log.String(); strings.Contains(got, "hush-hush") {
		t.Error("a secret is in the log")
	}
}

func TestStartWaitsForSecretsAndThenSaysWhichIsMissing(t *testing.T) {
	w := newWorld(t)
	v := &vault{all: map[string]kernel.Secret{}}
	w.secrets, w.cfg.SecretsPatience = v, 300*time.Millisecond
	w.start()
	s := specOf("sleep 600")
	s.Tasks[0].Files = []kernel.File{{Path: "/pki", Secret: "late"}}
	w.master.launch(s, kernel.Assignment{ID: "g1"})
	got := w.master.reaches("g1.t0", kernel.Failed)
	if !strings.Contains(got.Message, "secret late") {
		t.Errorf("got %q, want it to name the secret", got.Message)
	}
}

func TestBundlesAreBoundToldAndMissed(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	versions := map[string]string{}
	w.cfg.BundleInterval = 10 * time.Millisecond
	w.cfg.Bundles = func(name string) (string, bool) {
		mu.Lock()
		defer mu.Unlock()
		_, ok := versions[name]
		return "/bundles/" + name, ok
	}
	w.cfg.BundleVersions = func() map[string]string {
		mu.Lock()
		defer mu.Unlock()
		out := map[string]string{}
		for k, v := range versions {
			out[k] = v
		}
		return out
	}
	w.start()
	s := specOf("sleep 600")
	s.Tasks[0].Bundles = []string{"kubernetes/v1.37"}
	w.master.launch(s, kernel.Assignment{ID: "g1"})
	got := w.master.reaches("g1.t0", kernel.Failed)
	if got.Reason != kernel.ReasonRuntime || !strings.Contains(got.Message, "bundle kubernetes/v1.37") {
		t.Errorf("got %s: %s, want the bundle named", got.Reason, got.Message)
	}
	mu.Lock()
	versions["kubernetes/v1.37"] = "v1.37.2"
	mu.Unlock()
	eventually(t, "the agent registers anew", func() bool {
		w.master.mu.Lock()
		defer w.master.mu.Unlock()
		return w.master.last != nil && w.master.last.Agent.Bundles["kubernetes/v1.37"] == "v1.37.2"
	})
	w.master.launch(s, kernel.Assignment{ID: "g2"})
	w.master.reaches("g2.t0", kernel.Running)
	if got := w.source("/opt/marina/kubernetes/v1.37"); got != "/bundles/kubernetes/v1.37" {
		t.Errorf("bound from %s", got)
	}
}

func TestSizesChangeWhileTasksRunAndOutliveTheAgent(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := specOf("sleep 600")
	s.Network.Mode, s.Tasks[0].Class = kernel.NetworkBridge, kernel.ClassNode
	g := kernel.Assignment{ID: "g1"}
	w.master.launch(s, g)
	w.master.reaches("g1.t0", kernel.Running)
	size := func() string { return readFile(t, filepath.Join(w.source(kernel.NodeTarget), "size.json")) }
	if got := size(); got != `{"milliCPU":100,"mem":33554432}` {
		t.Errorf("size: got %s", got)
	}
	to := []kernel.Size{{Guarantee: kernel.Resources{MilliCPU: 500, Mem: 64 * kernel.MiB}, Limit: kernel.Resources{MilliCPU: 2000, Mem: 128 * kernel.MiB}}}
	w.master.mu.Lock()
	g = w.master.groups["g1"]
	g.Sizes = to
	w.master.groups["g1"] = g
	w.master.mu.Unlock()
	w.master.send(kernel.Down{Assignments: []kernel.Assignment{g}})
	sized := func() bool {
		c := w.made()
		return c.MilliCPU == 500 && c.CPULimit == 2000 && c.MemLimit == 128*kernel.MiB
	}
	eventually(t, "the container has its size", sized)
	eventually(t, "the node knows", func() bool { return size() == `{"milliCPU":500,"mem":134217728}` })
	if got := readFile(t, w.source("/proc/meminfo")); !strings.HasPrefix(got, "MemTotal:         131072 kB\n") {
		t.Errorf("meminfo begins %.40q", got)
	}
	w.kill()
	if err := w.procs.Update(t.Context(), w.containers()[0].ID, runtime.Limits{}); err != nil { // as if the agent had died before
		t.Fatal(err)
	}
	w.start()
	eventually(t, "the next agent sees to it", sized)
}
