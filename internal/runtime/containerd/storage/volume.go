package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/durable"
)

const (
	journal      = 64 // MiB, of a volume large enough to have that by default or more
	largeVolume  = 4 << 30
	maxToolWords = 400 // bytes of what a tool said that are told
	volumeFlags  = unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOATIME
)

// MountVolume mounts the ext4 in image at the directory at; see runtime.Storage. The file is sparse: it takes the disk
// that is used, and gives back what is deleted. Its loop device ends with its last mount.
func (Mounts) MountVolume(ctx context.Context, image, at string, size int64) error {
	if mounted, err := mountedAt(at); err != nil {
		return err
	} else if mounted {
		have, err := volumeSize(image)
		if err != nil || have >= size {
			return err
		}
		if err := unmount(at); err != nil { // growing one in use takes CAP_SYS_RESOURCE, which we may not have
			return err
		}
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	if err := makeVolume(ctx, image, size); err != nil {
		return err
	}
	device, err := loopOf(image)
	if err != nil {
		return err
	}
	if device == nil { // else something still has it mounted, and only through the same device it may be mounted again
		if err := mendVolume(ctx, image, size); err != nil {
			return err
		}
		if device, err = newLoop(image); err != nil {
			return fmt.Errorf("loop device: %w", err)
		}
	}
	defer device.Close()
	if err := unix.Mount(device.Name(), at, "ext4", volumeFlags, "discard"); err != nil {
		return fmt.Errorf("its filesystem cannot be mounted: %w: %w", err, errdefs.ErrDataLoss)
	}
	return nil
}

// makeVolume makes the image if there is none. It gets its name when it is whole.
func makeVolume(ctx context.Context, image string, size int64) error {
	if _, err := os.Lstat(image); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = os.Remove(image + ".new") // of an agent before durable
	f, err := durable.Create(image, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size &^ 4095); err != nil {
		return err
	}
	args := []string{"-q", "-F", "-b", "4096", "-m", "0",
		"-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"}
	if size >= largeVolume {
		args = append(args, "-J", "size="+strconv.Itoa(journal))
	}
	if said, err := tool(ctx, "mkfs.ext4", append(args, f.Name())...); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, said)
	}
	return f.Commit()
}

// mendVolume repairs an image that was not left in order, and grows one that is smaller than size.
func mendVolume(ctx context.Context, image string, size int64) error {
	check := []string{"-p", image}
	have, err := volumeSize(image)
	grow := err == nil && have < size&^4095
	if grow {
		check = []string{"-f", "-p", image} // resize2fs insists
	}
	if said, err := tool(ctx, "e2fsck", check...); err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() > 2 { // 1 and 2: it was mended
			return fmt.Errorf("its filesystem is damaged and cannot be repaired by itself; e2fsck says: %s: %w",
				said, errors.Join(err, errdefs.ErrDataLoss))
		}
	}
	if !grow {
		return nil
	}
	i, err := os.Stat(image)
	if err != nil {
		return err
	}
	if i.Size() < size&^4095 {
		if err := os.Truncate(image, size&^4095); err != nil {
			return err
		}
	}
	if said, err := tool(ctx, "resize2fs", image); err != nil {
		return fmt.Errorf("resize2fs: %w: %s", err, said)
	}
	return nil
}

// volumeSize reads from its superblock how large an image's filesystem is.
func volumeSize(image string) (int64, error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [1024]byte
	if _, err := f.ReadAt(b[:], 1024); err != nil {
		return 0, err
	}
	number := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	if binary.LittleEndian.Uint16(b[0x38:]) != 0xef53 || number(0x18) > 6 {
		return 0, fmt.Errorf("%s has no ext4 in it: %w", filepath.Base(image), errdefs.ErrDataLoss)
	}
	blocks := uint64(number(4))
	if number(0x60)&0x80 != 0 { // of 64 bits
		blocks |= uint64(number(0x150)) << 32
	}
	return int64(blocks << (10 + number(0x18))), nil
}

// tool runs one of the machine's programs for filesystems and returns the end of what it said, in one line.
func tool(ctx context.Context, name string, args ...string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} { // not in everybody's PATH
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		return "the machine has no such program; install e2fsprogs", err
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	said := strings.Join(strings.Fields(string(out)), " ")
	return said[max(0, len(said)-maxToolWords):], err
}
