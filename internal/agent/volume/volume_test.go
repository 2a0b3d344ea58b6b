package volume

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
	"github.com/marinaos/marina/internal/runtime/process"
)

// disk is the storage of a test: that of plain directories, with faults, and a watch that calls for one place never
// meet.
type disk struct {
	runtime.Storage
	t    *testing.T
	busy atomic.Int32
	fail func(call string) error // nil: nothing fails
}

func (d *disk) call(name string, f func() error) error {
	if d.busy.Add(1) > 1 {
		d.t.Errorf("%s while another call for the claim is at work", name)
	}
	defer d.busy.Add(-1)
	if d.fail != nil {
		if err := d.fail(name); err != nil {
			return err
		}
	}
	return f()
}

func (d *disk) MountVolume(ctx context.Context, image, at string, size int64) error {
	return d.call("mount", func() error { return d.Storage.MountVolume(ctx, image, at, size) })
}

func (d *disk) Unmount(ctx context.Context, at string) error {
	return d.call("unmount", func() error { return d.Storage.Unmount(ctx, at) })
}

// machine is the reservations of a test's machine.
type machine struct {
	*Volumes
	disk *disk
	top  string // where reservations are
	log  *bytes.Buffer

	mu       sync.Mutex
	inUse    map[string]bool // guarded by mu
	released []string        // guarded by mu
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	procs, err := process.New(filepath.Join(dir, "containers"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	if err := root.Mkdir(Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m := &machine{disk: &disk{Storage: procs, t: t}, top: filepath.Join(dir, Dir),
		inUse: map[string]bool{}, log: new(bytes.Buffer)}
	m.Volumes = New(Config{Root: root, Storage: m.disk, Log: slog.New(slog.NewTextHandler(m.log, nil)),
		InUse: func(claim string) bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.inUse[claim]
		},
		Released: func(claim string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.released = append(m.released, claim)
		}})
	return m
}

func (m *machine) use(claim string, is bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inUse[claim] = is
}

func (m *machine) answers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.released)
}

func (m *machine) mounted(t *testing.T) []string {
	t.Helper()
	all, err := m.disk.Mounted(t.Context(), m.top)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const claim = "marathon/db"

var data = []kernel.ReservedVolume{{Name: "data", Bytes: kernel.MiB}, {Name: "log", Bytes: kernel.MiB}}

func TestContentStaysBetweenMounts(t *testing.T) {
	m := newMachine(t)
	for round := range 3 {
		at, err := m.Mount(t.Context(), claim, data)
		if err != nil || len(at) != 2 || at["data"] != filepath.Join(m.top, claim, "data") {
			t.Fatalf("round %d: got %v, %v", round, at, err)
		}
		file := filepath.Join(at["data"], "kept")
		if round == 0 {
			err = os.WriteFile(file, []byte("kept"), 0o600)
		} else {
			_, err = os.Stat(file)
		}
		if err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if round == 1 { // an agent that comes back mounts what is mounted
			continue
		}
		for range 2 {
			if err := m.Unmount(t.Context(), claim); err != nil {
				t.Error(err)
			}
		}
		if left := m.mounted(t); len(left) != 0 {
			t.Errorf("round %d: still mounted: %q", round, left)
		}
	}
}

func TestAVolumeThatCannotBeMountedIsNamed(t *testing.T) {
	m := newMachine(t)
	broken := errors.New("no such luck")
	m.disk.fail = func(call string) error { return broken }
	_, err := m.Mount(t.Context(), claim, data)
	e, ok := errors.AsType[*MountError](err)
	if !ok || e.Volume != "data" || !errors.Is(err, broken) || !strings.Contains(err.Error(), "volume data of claim db") {
		t.Errorf("got %v, want the volume and the claim named", err)
	}
}

func TestNamesThatAreNoNamesAreRefused(t *testing.T) {
	m := newMachine(t)
	for _, c := range []string{"", "db", "marathon/", "/db", "../db", "marathon/..", "marathon/a/b", "marathon/.x"} {
		if _, err := m.Mount(t.Context(), c, data); !errdefs.IsInvalidArgument(err) {
			t.Errorf("claim %q: got %v, want errdefs.ErrInvalidArgument", c, err)
		}
		if err := m.Unmount(t.Context(), c); err != nil {
			t.Errorf("claim %q: unmounting what cannot be mounted: %v", c, err)
		}
	}
	for _, v := range []string{"", "..", "a/b"} {
		if _, err := m.Mount(t.Context(), claim, []kernel.ReservedVolume{{Name: v}}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("volume %q: got %v, want errdefs.ErrInvalidArgument", v, err)
		}
	}
	if at, err := m.Mount(t.Context(), "", nil); at != nil || err != nil {
		t.Errorf("no volumes: got %v, %v, want nothing", at, err)
	}
}

func TestImagesThatWereBeingMadeAreSwept(t *testing.T) {
	m := newMachine(t)
	left := filepath.Join(m.top, claim, ".new-cut")
	if err := errors.Join(os.MkdirAll(filepath.Dir(left), 0o700), os.WriteFile(left, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Mount(t.Context(), claim, data); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want what a crash left gone", err)
	}
}

// A reservation is deleted once nobody uses it, and told; one that never was here is told, too; each is told once for
// each time it is asked.
func TestReleasedReservationsAreDeletedOnceNobodyUsesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		for _, c := range []string{claim, "marathon/other"} {
			if _, err := m.Mount(t.Context(), c, data); err != nil {
				t.Fatal(err)
			}
		}
		m.use(claim, true)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		m.Release([]string{claim, "marathon/never", "no name"})
		synctest.Wait()
		if got := m.answers(); !slices.Equal(got, []string{"marathon/never", "no name"}) {
			t.Errorf("while it is used: told %q", got)
		}
		if got := m.mounted(t); len(got) != 4 {
			t.Errorf("while it is used: mounted %q, want all four", got)
		}
		m.use(claim, false)
		m.Look()
		synctest.Wait()
		if got := m.answers(); len(got) != 3 || got[2] != claim {
			t.Errorf("then: told %q", got)
		}
		if _, err := os.Stat(filepath.Join(m.top, claim)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("then: got %v, want it gone", err)
		}
		if _, err := os.Stat(filepath.Join(m.top, "marathon/other", "data")); err != nil {
			t.Errorf("another of the framework: %v", err)
		}
		m.Release([]string{claim}) // the master did not hear
		synctest.Wait()
		if got := m.answers(); len(got) != 4 {
			t.Errorf("asked again: told %q", got)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestADeletionThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		if _, err := m.Mount(t.Context(), claim, data); err != nil {
			t.Fatal(err)
		}
		times := 0
		m.disk.fail = func(call string) error {
			if times++; times <= 6 { // two volumes, three attempts
				return errors.New("target is busy")
			}
			return nil
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		began := time.Now()
		go func() { done <- m.Run(ctx) }()
		m.Release([]string{claim})
		for len(m.answers()) == 0 {
			time.Sleep(releaseRetry / 10) // in the bubble's time
			synctest.Wait()
		}
		if took := time.Since(began); took < 3*releaseRetry || took > 4*releaseRetry {
			t.Errorf("done after %v, want the fourth attempt, a second apart", took)
		}
		if n := strings.Count(m.log.String(), "target is busy"); n != 6 {
			t.Errorf("%d errors in the log, want both of each attempt", n)
		}
		stop()
		<-done
	})
}

func TestCallsForOneReservationNeverMeet(t *testing.T) {
	m := newMachine(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if _, err := m.Mount(t.Context(), claim, data[:1]); err != nil {
					t.Error(err)
				}
				if err := m.Unmount(t.Context(), claim); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := m.busy.Len(); n != 0 {
		t.Errorf("%d locks are kept, want none", n)
	}
}

func TestWhatNobodyUsesIsUnmounted(t *testing.T) {
	m := newMachine(t)
	for _, c := range []string{claim, "marathon/used"} {
		if _, err := m.Mount(t.Context(), c, data[:1]); err != nil {
			t.Fatal(err)
		}
	}
	m.use("marathon/used", true)
	if err := m.UnmountUnknown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := m.mounted(t), []string{filepath.Join(m.top, "marathon/used", "data")}; !slices.Equal(got, want) {
		t.Errorf("mounted: %q, want %q", got, want)
	}
	if _, err := os.Stat(filepath.Join(m.top, claim, "data.img")); err != nil {
		t.Errorf("its content: %v, want it kept", err)
	}
}
