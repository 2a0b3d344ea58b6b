package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// BootID is the kernel's name for the time since it was started.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// KernelRelease is Linux' version as it says it itself, "6.18.0-rc1"; empty if it does not.
func KernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// ReleaseAtLeast compares a release such as "6.18.0-rc1"; one that is not of that form is taken for new.
func ReleaseAtLeast(release string, major, minor int) bool {
	a, rest, _ := strings.Cut(release, ".")
	b, _, _ := strings.Cut(rest, ".")
	b = strings.TrimRight(b, "+-abcdefghijklmnopqrstuvwxyz")
	x, errA := strconv.Atoi(a)
	y, errB := strconv.Atoi(b)
	return errA != nil || errB != nil || x > major || x == major && y >= minor
}

const cgroupRoot = "/sys/fs/cgroup"

// CgroupVersion is "v2" where the unified hierarchy has controllers to give, else "v1".
func CgroupVersion() string {
	if len(unified(cgroupRoot)) > 0 {
		return "v2"
	}
	return "v1"
}

// unified lists the controllers of the unified hierarchy.
func unified(root string) []string {
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// missingController names the first controller that limits tasks and is not there, for either version of cgroups.
func missingController(root string) (name, version string) {
	want, have := []string{"cpu", "memory", "pids", "freezer", "devices"}, func(name string) bool {
		_, err := os.Stat(filepath.Join(root, name))
		return err == nil
	}
	version = "v1"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		version, want = "v2", want[:3] // freezing and devices are no controllers there
		all := unified(root)
		have = func(name string) bool { return slices.Contains(all, name) }
	}
	for _, name := range want {
		if !have(name) {
			return name, version
		}
	}
	return "", version
}

// Memory returns the machine's memory in bytes.
func Memory() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	kb, ok := kilobytes(string(b), "MemTotal")
	if !ok {
		return 0, fmt.Errorf("/proc/meminfo does not say MemTotal")
	}
	return kb << 10, nil
}

// kilobytes is the value of a line "Name:   12 kB".
func kilobytes(file, name string) (int64, bool) {
	for line := range strings.Lines(file) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// FreeDisk returns the bytes, and the share of the inodes, that are free for others than root where path is.
func FreeDisk(path string) (bytes int64, inodes float64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, 0, fmt.Errorf("disk of %s: %w", path, err)
	}
	inodes = 1
	if s.Files > 0 {
		inodes = float64(s.Ffree) / float64(s.Files)
	}
	return int64(s.Bavail) * s.Bsize, inodes, nil
}
