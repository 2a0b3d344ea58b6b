package secret

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime/process"
)

// vault is a source of secrets.
type vault struct {
	mu  sync.Mutex
	all map[string]map[string]string // by reference and file; guarded by mu
	err error                        // guarded by mu
}

func (v *vault) Secret(_ context.Context, ref string) (kernel.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := kernel.Secret{Files: map[string][]byte{}}
	for name, content := range v.all[ref] {
		out.Files[name] = []byte(content)
	}
	return out, v.err
}

func (v *vault) set(ref string, files map[string]string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all[ref], v.err = files, err
}

func newFiles(t *testing.T) (*Files, *vault, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	procs, err := process.New(filepath.Join(dir, "containers"))
	if err != nil {
		t.Fatal(err)
	}
	v, log := &vault{all: map[string]map[string]string{}}, new(bytes.Buffer)
	return New(Config{Dir: filepath.Join(dir, "run", "files"), Storage: procs, Source: v, Timeout: time.Second,
		Patience: time.Minute,
		Log:      slog.New(slog.NewTextHandler(log, nil))}), v, log
}

func group() Instance {
	return Instance{ID: "g", Owner: uint32(os.Getuid()), Spec: &kernel.Spec{Tasks: []kernel.TaskSpec{{Files: []kernel.File{
		{Path: "/etc/x/conf.json", Content: []byte("{}")},
		{Path: "/etc/x/pki", Secret: "pki"},
	}}}}}
}

// see is what a task finds where a file of it is bound.
func see(t *testing.T, f *Files, file int) map[string]string {
	t.Helper()
	at := f.Binds("g", group().Spec, 0)[file].Source
	out := map[string]string{}
	i, err := os.Stat(at)
	if err != nil {
		return out
	}
	if !i.IsDir() {
		b, err := os.ReadFile(at)
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"": string(b)}
	}
	names, err := os.ReadDir(at)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(at, n.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[n.Name()] = string(b)
	}
	return out
}

func TestFilesAreGivenRefreshedAndTakenAway(t *testing.T) {
	f, v, _ := newFiles(t)
	v.set("pki", map[string]string{"ca.crt": "one", "old.crt": "old"}, nil)
	g := group()
	fetched, err := f.Fetch(t.Context(), g)
	if err == nil {
		err = f.Place(t.Context(), g, fetched)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := see(t, f, 0); got[""] != "{}" {
		t.Errorf("the file with content: got %v", got)
	}
	if got := see(t, f, 1); len(got) != 2 || got["ca.crt"] != "one" || got["old.crt"] != "old" {
		t.Errorf("the secret: got %v", got)
	}
	for i, b := range f.Binds("g", g.Spec, 0) {
		if !b.ReadOnly || !b.Raw || b.Target != g.Spec.Tasks[0].Files[i].Path {
			t.Errorf("bind %d: got %+v", i, b)
		}
	}
	v.set("pki", map[string]string{"ca.crt": "two"}, nil)
	if err := f.Refresh(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if got := see(t, f, 1); len(got) != 1 || got["ca.crt"] != "two" {
		t.Errorf("refreshed: got %v, want the new one alone", got)
	}
	v.set("pki", nil, errors.New("away"))
	if err := f.Refresh(t.Context(), g); err == nil || !strings.Contains(err.Error(), "secret pki") {
		t.Errorf("while nobody has them: got %v, want the secret named", err)
	}
	if got := see(t, f, 1); got["ca.crt"] != "two" {
		t.Errorf("while nobody has them: got %v, want what was there", got)
	}
	for range 2 {
		if err := f.Drop(t.Context(), g); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(f.At("g")); err == nil {
		t.Error("the files are there after the end")
	}
	if n := f.busy.Len(); n != 0 {
		t.Errorf("%d locks are kept, want none", n)
	}
}

func TestNothingIsWrittenWhereNoMemoryIs(t *testing.T) {
	f, v, _ := newFiles(t)
	v.set("pki", map[string]string{"ca.crt": "hush"}, nil)
	if err := os.MkdirAll(f.At("g"), 0o700); err != nil { // the directory is there, on the disk
		t.Fatal(err)
	}
	pki := map[string]kernel.Secret{"pki": {Files: map[string][]byte{"ca.crt": []byte("hush")}}}
	if err := f.write(t.Context(), group(), pki); !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want errdefs.ErrNotFound", err)
	}
	if err := f.Refresh(t.Context(), group()); err != nil {
		t.Errorf("a group that ended meanwhile: %v", err)
	}
	if names, _ := os.ReadDir(f.At("g")); len(names) != 0 {
		t.Errorf("on the disk: %v", names)
	}
}

func TestAStartWaitsForSecretsAndThenSaysWhichIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, v, log := newFiles(t)
		v.set("pki", nil, errors.New("no master"))
		began := time.Now()
		_, err := f.Fetch(t.Context(), group())
		took := time.Since(began)
		if err == nil || !strings.Contains(err.Error(), "secret pki") || took < 45*time.Second || took > time.Minute {
			t.Errorf("got %v after %v, want the secret named within a minute", err, took)
		}
		if !strings.Contains(log.String(), "no master") {
			t.Error("the log does not say why it waits")
		}
		time.AfterFunc(3*time.Second, func() { v.set("pki", map[string]string{"ca.crt": "one"}, nil) })
		if got, err := f.Fetch(t.Context(), group()); err != nil || string(got["pki"].Files["ca.crt"]) != "one" {
			t.Errorf("got %v, %v, want it as soon as it is to be had", got, err)
		}
		v.set("pki", nil, errors.New("no master"))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := f.Fetch(ctx, group()); !errors.Is(err, context.Canceled) {
			t.Errorf("told to stop: got %v, want context.Canceled", err)
		}
	})
}

func TestSecretsAreChecked(t *testing.T) {
	f, v, _ := newFiles(t)
	many := map[string]string{}
	for i := range maxFiles + 1 {
		many["f"+strings.Repeat("x", i)] = ""
	}
	for what, files := range map[string]map[string]string{
		"a name that leads out": {"../x": ""},
		"a hidden name":         {".new-x": ""},
		"too large":             {"a": strings.Repeat("x", maxBytes+1)},
		"too many":              many,
	} {
		v.set("pki", files, nil)
		if _, err := f.fetch(t.Context(), "pki"); !errdefs.IsInvalidArgument(err) && !errdefs.IsOutOfRange(err) {
			t.Errorf("%s: got %v, want it refused", what, err)
		}
	}
	f.cfg.Source = nil
	if _, err := f.fetch(t.Context(), "pki"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("nobody has secrets: got %v", err)
	}
}

func TestFilesOfInstancesThatAreNotHereAreDropped(t *testing.T) {
	f, v, _ := newFiles(t)
	v.set("pki", map[string]string{"ca.crt": "one"}, nil)
	for _, id := range []kernel.InstanceID{"g", "gone"} {
		g := group()
		g.ID = id
		if err := f.Place(t.Context(), g, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.DropUnknown(t.Context(), func(name string) bool { return name == naming.Instance("g") }); err != nil {
		t.Fatal(err)
	}
	if got, err := f.cfg.Storage.Mounted(t.Context(), f.cfg.Dir); err != nil || !slices.Equal(got, []string{f.At("g")}) {
		t.Errorf("mounted: %q, %v, want g's", got, err)
	}
}

func TestInstancesWithoutFilesNeedNothing(t *testing.T) {
	f := New(Config{}) // whatever is asked of it panics
	g := Instance{ID: "g", Spec: &kernel.Spec{Tasks: []kernel.TaskSpec{{}}}}
	err := errors.Join(f.Place(t.Context(), g, nil), f.Drop(t.Context(), g))
	if err != nil || Has(g.Spec) || len(Refs(g.Spec)) != 0 {
		t.Errorf("got %v, want nothing to do", err)
	}
	task := group().Spec.Tasks[0]
	if got := Refs(&kernel.Spec{Tasks: []kernel.TaskSpec{task, task}}); !slices.Equal(got, []string{"pki"}) {
		t.Errorf("references: got %q, want each once", got)
	}
}
