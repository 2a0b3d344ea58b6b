package storage

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// needRoot skips without the right to mount. With MARINA_REQUIRE_REAL, as `make test` sets it, that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("MARINA_REQUIRE_REAL") != "" {
		t.Fatal("mounting takes root")
	}
	t.Skip("mounting takes root")
}

// copyFile copies a file as it is now, as a power cut would leave it.
func copyFile(t *testing.T, to, from string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}

func TestVolumeOfACrashIsMendedAndOfADamageRefused(t *testing.T) {
	needRoot(t)
	p := Mounts{}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "v.img"), filepath.Join(dir, "v")
	if err := p.MountVolume(t.Context(), image, at, 64<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Unmount(t.Context(), at) })
	f, err := os.Create(filepath.Join(at, "durable"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("durable"); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil { // in the journal, and not yet everywhere else
		t.Fatal(err)
	}
	f.Close()
	crashed := filepath.Join(dir, "crashed.img")
	copyFile(t, crashed, image)
	if err := p.Unmount(t.Context(), at); err != nil {
		t.Fatal(err)
	}

	for _, size := range []int64{64 << 20, 128 << 20} { // also when it grows at once
		image := crashed
		if size > 64<<20 {
			image = filepath.Join(dir, "crashed-too.img")
			copyFile(t, image, crashed)
		}
		at := strings.TrimSuffix(image, ".img")
		copyFile(t, image+".copy", image)
		if err := p.MountVolume(t.Context(), image, at, size); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(at, "durable")); string(got) != "durable" {
			t.Errorf("after a crash: got %q, %v", got, err)
		}
		if err := p.Unmount(t.Context(), at); err != nil {
			t.Error(err)
		}
		if err := os.Rename(image+".copy", crashed); err != nil {
			t.Fatal(err)
		}
	}

	junk, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := junk.WriteAt([]byte(strings.Repeat("junk", 256<<10)), 1024); err != nil {
		t.Fatal(err)
	}
	junk.Close()
	err = p.MountVolume(t.Context(), image, at, 64<<20)
	if !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "e2fsck says") {
		t.Errorf("damaged: got %v, want data loss and what e2fsck says", err)
	}
	if dev, err := loopOf(image); dev != nil || err != nil {
		t.Errorf("got a loop device %v, %v, want none", dev, err)
	}
}

func TestOnlyWhatIsExt4IsTakenForAVolume(t *testing.T) {
	file := filepath.Join(t.TempDir(), "v.img")
	for what, content := range map[string]string{
		"empty": "", "short": strings.Repeat("x", 1500), "other": strings.Repeat("x", 4096),
		"zeros": string(make([]byte, 4096)),
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if size, err := volumeSize(file); err == nil {
			t.Errorf("%s: got a filesystem of %d bytes", what, size)
		}
	}
	if _, err := volumeSize(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no file: got a filesystem")
	}
}

func TestWhatIsNotMountedIsNoErrorToUnmount(t *testing.T) {
	dir := t.TempDir()
	for _, at := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "none", "below")} {
		if err := (Mounts{}).Unmount(t.Context(), at); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
	if got, err := (Mounts{}).Mounted(t.Context(), filepath.Join(dir, "none")); len(got) > 0 || err != nil {
		t.Errorf("below nothing: got %v, %v", got, err)
	}
}

func TestMemoryIsItsOwnersOfItsSizeAndGoneWithWhatIsBelow(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	top, below := filepath.Join(dir, "top"), filepath.Join(dir, "top", "below")
	for range 2 { // it can be repeated
		for _, at := range []string{top, below} {
			if err := (Mounts{}).MountMemory(t.Context(), at, 1<<20, 1234); err != nil {
				t.Fatal(err)
			}
		}
	}
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Statfs(top, &fs), unix.Stat(top, &st)); err != nil {
		t.Fatal(err)
	}
	if size := int64(fs.Blocks) * fs.Bsize; size != 1<<20 || st.Uid != 1234 || st.Mode&0o777 != 0o700 {
		t.Errorf("got %d bytes, owner %d, mode %o", size, st.Uid, st.Mode&0o777)
	}
	if got, err := (Mounts{}).Mounted(t.Context(), dir); err != nil || len(got) != 2 {
		t.Errorf("mounted: got %v, %v, want both", got, err)
	}
	if err := RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed: got %v", err)
	}
}
