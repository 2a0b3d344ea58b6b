package containerd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
)

// A container that does not end yet keeps the device: a second one for the same file would tear the filesystem.
func TestVolumeHasOneDeviceWhoeverHoldsIt(t *testing.T) {
	p := newPlace(t)
	dir := t.TempDir()
	image, at := filepath.Join(dir, "v.img"), filepath.Join(dir, "v")
	mount := func() uint64 {
		if err := p.MountVolume(t.Context(), image, at, 64<<20); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(at, &st); err != nil {
			t.Fatal(err)
		}
		return st.Dev
	}
	first := mount()
	c := p.container("stubborn")
	c.Binds = append(c.Binds, runtime.Bind{Source: at, Target: "/data"})
	p.run(c)
	if err := p.Unmount(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if !attached(t, image) {
		t.Fatal("held by a container: it has no device any more")
	}
	if got := mount(); got != first {
		t.Errorf("got device %d, want the first, %d", got, first)
	}
	if err := p.Unmount(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the device is free", func() bool { return !attached(t, image) })
}

// attached reports whether a file has a loop device.
func attached(t *testing.T, image string) bool {
	t.Helper()
	all, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(of string) bool {
		file, err := os.ReadFile(of) // it may be gone
		return err == nil && strings.TrimSpace(string(file)) == image
	})
}
