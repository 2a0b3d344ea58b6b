package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
)

const coveredMounts = 8 // mounts that may lie over each other

// Mounts is a runtime.Storage of real mounts. What is mounted is the only state there is, and the machine has it.
type Mounts struct{}

var _ runtime.Storage = Mounts{}

// MountMemory mounts a tmpfs, see runtime.Storage.
func (Mounts) MountMemory(_ context.Context, at string, size int64, owner uint32) error {
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
func (Mounts) Unmount(_ context.Context, at string) error {
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
func (Mounts) Mounted(_ context.Context, below string) ([]string, error) {
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

// RemoveAll unmounts what is mounted below a directory, deepest first, and removes it. A mount that stays is an error,
// and then nothing is removed: what lies behind a mount is not ours.
func RemoveAll(path string) error {
	for range coveredMounts {
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			return os.RemoveAll(path)
		}
		for i := len(mounts) - 1; i >= 0; i-- {
			if err := unix.Unmount(mounts[i].Mountpoint, unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
				return fmt.Errorf("unmount %s: %w", mounts[i].Mountpoint, err)
			}
		}
	}
	return fmt.Errorf("%s has mounts that come back: %w", path, errdefs.ErrFailedPrecondition)
}
