package containerd

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
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/durable"
)

const (
	journal      = 64 // MiB, of a volume large enough to have that by default or more
	largeVolume  = 4 << 30
	loopTries    = 16  // for a loop device that nobody else took first
	maxToolWords = 400 // bytes of what a tool said that are told
	volumeFlags  = unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOATIME
)

// MountVolume mounts the ext4 in image at the directory at; see runtime.Storage. The file is sparse: it takes the disk
// that is used, and gives back what is deleted. Its loop device ends with its last mount.
func (r *Runtime) MountVolume(ctx context.Context, image, at string, size int64) error {
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
	args := []string{"-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"}
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
			return fmt.Errorf("its filesystem is damaged and cannot be repaired by itself; e2fsck says: %s: %w", said, errors.Join(err, errdefs.ErrDataLoss))
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

// loopOf finds the loop device of an image, if it has one.
func loopOf(image string) (*os.File, error) {
	i, err := os.Stat(image)
	if err != nil {
		return nil, err
	}
	want, ok := i.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("%s: %w", image, errdefs.ErrInternal)
	}
	all, err := filepath.Glob("/sys/block/loop*/loop/backing_file") // only of those in use
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		f, err := os.OpenFile("/dev/"+strings.Split(p, "/")[3], os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if info, err := unix.IoctlLoopGetStatus64(int(f.Fd())); err == nil && info.Inode == want.Ino && info.Device == want.Dev {
			return f, nil
		}
		f.Close()
	}
	return nil, nil
}

// newLoop makes a loop device of an image. It ends when nobody has it open or mounted any more.
func newLoop(image string) (*os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		f, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		conf := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}}
		copy(conf.Info.File_name[:len(conf.Info.File_name)-1], image) // for people: losetup shows it
		err = unix.IoctlLoopConfigure(int(f.Fd()), &conf)
		if errors.Is(err, unix.EINVAL) { // a filesystem that cannot do without the cache
			conf.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
			err = unix.IoctlLoopConfigure(int(f.Fd()), &conf)
		}
		if err == nil {
			return f, nil
		}
		f.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("others take every one first: %w", errdefs.ErrUnavailable)
}

// MountMemory mounts a tmpfs, see runtime.Storage.
func (r *Runtime) MountMemory(_ context.Context, at string, size int64, owner uint32) error {
	if mounted, err := mountedAt(at); err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	options := fmt.Sprintf("mode=0700,uid=%d,gid=%d,size=%d", owner, owner, size)
	const flags = unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
	err := unix.Mount("marina", at, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) { // before Linux 6.4
		err = unix.Mount("marina", at, "tmpfs", flags, options)
	}
	if err != nil {
		return fmt.Errorf("tmpfs at %s: %w", at, err)
	}
	return nil
}

// Unmount unmounts, see runtime.Storage. What a program of the machine still has open goes when that lets go of it.
func (r *Runtime) Unmount(_ context.Context, at string) error {
	if err := unmount(at); err != nil {
		return err
	}
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func unmount(at string) error {
	for {
		mounted, err := mountedAt(at)
		if err != nil || !mounted {
			return err
		}
		err = unix.Unmount(at, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(at, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
}

// mountedAt reports whether something is mounted at a path: its links resolved, since that is what the kernel tells.
func mountedAt(at string) (bool, error) {
	real, err := filepath.EvalSymlinks(at)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(real))
	return len(found) > 0, err
}

// Mounted lists what is mounted below a directory, by the name that was given for it.
func (r *Runtime) Mounted(_ context.Context, below string) ([]string, error) {
	real, err := filepath.EvalSymlinks(below)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(real))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range found {
		if rest, ok := strings.CutPrefix(m.Mountpoint, real+"/"); ok {
			out = append(out, filepath.Join(below, rest))
		}
	}
	return out, nil
}
