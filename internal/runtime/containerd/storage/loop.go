package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const loopTries = 16 // for a loop device that nobody else took first

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
		info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
		if err == nil && info.Inode == want.Ino && info.Device == want.Dev {
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
		conf := unix.LoopConfig{Fd: uint32(file.Fd())}
		conf.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
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
