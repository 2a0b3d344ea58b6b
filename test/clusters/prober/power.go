package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// tries are the acts that root of a machine can do and root of a node must not. None of it does harm if it is allowed:
// settings are written with the value they have. The files of the node's own groups are at /node.
var tries = []struct {
	what string
	do   func(dir string) error
}{
	{"opening a disk", func(dir string) error { return device(filepath.Join(dir, "disk"), syscall.S_IFBLK, 254<<8) }},
	{"opening the memory", func(dir string) error { return device(filepath.Join(dir, "mem"), syscall.S_IFCHR, 1<<8|1) }},
	{"mount of ext4", func(dir string) error { return syscall.Mount("/dev/vda", dir, "ext4", syscall.MS_RDONLY, "") }},
	{"mount of devtmpfs", func(dir string) error { return mount(dir, "devtmpfs") }},
	{"mount of debugfs", func(dir string) error { return mount(dir, "debugfs") }},
	{"mount of tracefs", func(dir string) error { return mount(dir, "tracefs") }},
	{"mount of securityfs", func(dir string) error { return mount(dir, "securityfs") }},
	{"write of vm.overcommit_memory", func(string) error { return rewrite("/proc/sys/vm/overcommit_memory") }},
	{"write of kernel.panic", func(string) error { return rewrite("/proc/sys/kernel/panic") }},
	{"write of fs.file-max", func(string) error { return rewrite("/proc/sys/fs/file-max") }},
	{"read of the kernel's log", func(string) error {
		_, err := syscall.Klogctl(3, make([]byte, 4096))
		return err
	}},
	{"read of kcore", func(string) error { return open("/proc/kcore", os.O_RDONLY) }},
	{"write of sysrq-trigger", func(string) error { return open("/proc/sysrq-trigger", os.O_WRONLY) }},
	{"setting the clock", func(string) error {
		var now syscall.Timeval
		if err := syscall.Gettimeofday(&now); err != nil {
			return err
		}
		return syscall.Settimeofday(&now)
	}},
	{"raising the node's memory limit", func(string) error { return raise("/node/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1") }},
	{"allowing all devices", func(string) error { return raise("/node/sys/fs/cgroup/devices/devices.allow", "a") }},
}

func mount(dir, kind string) error { return syscall.Mount("none", dir, kind, syscall.MS_RDONLY, "") }

func open(name string, how int) error {
	f, err := os.OpenFile(name, how, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func rewrite(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0)
}

func raise(name, value string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

func power([]string) error {
	for _, try := range tries {
		dir, err := os.MkdirTemp("/", "power") // its image has no /tmp
		if err != nil {
			return err
		}
		if err := try.do(dir); err != nil {
			fmt.Println(try.what, "refused:", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println(try.what, "allowed")
			syscall.Unmount(dir, syscall.MNT_DETACH)
		}
		os.RemoveAll(dir)
	}
	return nil
}

// device makes a device file and opens it: having the file alone is worth nothing.
func device(path string, kind uint32, number int) error {
	if err := syscall.Mknod(path, kind|0o600, number); err != nil {
		return err
	}
	return open(path, os.O_RDONLY)
}
