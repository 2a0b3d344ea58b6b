package runtimetest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/runtime"
)

func updates(t *testing.T, s *suite) {
	s.make("grows", `exec sleep 600`, func(c *runtime.Container) { c.MemLimit = 64 << 20 })
	s.start("grows")
	for range 2 {
		limits := runtime.Limits{MilliCPU: 200, CPULimit: 400, MemLimit: 96 << 20}
		if err := s.rt.Update(s.ctx(), "grows", limits); err != nil {
			t.Fatal(err)
		}
	}
	if f, _ := s.find("grows"); !f.Running {
		t.Errorf("got %+v, want it running", f)
	}
	if err := s.rt.Update(s.ctx(), "nobody", runtime.Limits{MilliCPU: 200}); !errdefs.IsNotFound(err) {
		t.Errorf("update of what is not there: got %v, want not found", err)
	}
}

// mountedBelow lists the mounts in the test's directory, as the runtime says.
func (s *suite) mountedBelow() []string {
	s.t.Helper()
	got, err := s.rt.Mounted(s.ctx(), s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

func (s *suite) unmount(at string) {
	s.t.Helper()
	for range 2 {
		if err := s.rt.Unmount(s.ctx(), at); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("%s after it was unmounted: got %v, want nothing there", at, err)
	}
}

func volumes(t *testing.T, s *suite) {
	image, at := filepath.Join(s.dir, "v.img"), filepath.Join(s.dir, "v")
	var sizes []uint64
	for i, size := range []int64{32 << 20, 96 << 20, 16 << 20} { // made, grown, and not made smaller
		for range 2 {
			if err := s.rt.MountVolume(s.ctx(), image, at, size); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { _ = s.rt.Unmount(s.ctx(), at) }) // if the test did not get to it
		if b, err := os.ReadFile(filepath.Join(at, "kept")); i > 0 && (err != nil || string(b) != "kept") {
			t.Errorf("mounted again: got %q, %v, want what was written before", b, err)
		}
		if err := os.WriteFile(filepath.Join(at, "kept"), []byte("kept"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := s.mountedBelow(); !slices.Equal(got, []string{at}) {
			t.Errorf("got %q mounted, want %s only", got, at)
		}
		var st syscall.Statfs_t
		if err := syscall.Statfs(at, &st); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, st.Blocks*uint64(st.Bsize))
		s.rt = s.o.Open(t) // the next knows what this one mounted
		if got := s.mountedBelow(); !slices.Equal(got, []string{at}) {
			t.Errorf("by another runtime: got %q mounted, want %s only", got, at)
		}
		s.unmount(at)
		if got := s.mountedBelow(); len(got) != 0 {
			t.Errorf("after unmounting: got %q, want nothing", got)
		}
	}
	if s.o.Sizes && (sizes[0] < 20<<20 || sizes[0] > 32<<20 || sizes[1] < 80<<20 || sizes[1] > 96<<20 || sizes[2] != sizes[1]) {
		t.Errorf("got sizes %d, want nearly 32 MiB, then nearly 96 MiB twice", sizes)
	}
}

func damaged(t *testing.T, s *suite) {
	image, at := filepath.Join(s.dir, "v.img"), filepath.Join(s.dir, "v")
	if err := os.WriteFile(image, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.rt.MountVolume(s.ctx(), image, at, 32<<20); !errdefs.IsDataLoss(err) {
		t.Errorf("got %v, want data loss", err)
	} else {
		t.Log(err)
	}
	if got := s.mountedBelow(); len(got) != 0 {
		t.Errorf("got %q mounted, want nothing", got)
	}
}

func memory(t *testing.T, s *suite) {
	at := filepath.Join(s.dir, "m")
	for range 2 {
		if err := s.rt.MountMemory(s.ctx(), at, 1<<20, s.rt.IDs().First); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.rt.Unmount(s.ctx(), at) })
		if err := os.WriteFile(filepath.Join(at, "secret"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i, err := os.Stat(at)
	if err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("got mode %v, %v, want it entered by its owner only", i.Mode(), err)
	}
	if st, ok := i.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && st.Uid != s.rt.IDs().First {
		t.Errorf("got owner %d, want %d", st.Uid, s.rt.IDs().First)
	}
	s.unmount(at)
	if err := s.rt.MountMemory(s.ctx(), at, 1<<20, 0); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(at); err != nil || len(left) != 0 {
		t.Errorf("mounted anew: got %v, %v, want it empty", left, err)
	}
	s.unmount(at)
}
