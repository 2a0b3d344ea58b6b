package containerd

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/machine"
)

// processes lists those whose command line, words ended by zero bytes, is so.
func processes(is func(commandLine []byte) bool) ([]int, error) {
	pids, err := machine.PIDs()
	if err != nil {
		return nil, err
	}
	var out []int
	for _, pid := range pids {
		if line, err := machine.CommandLine(pid); err == nil && is(line) {
			out = append(out, pid)
		}
	}
	return out, nil
}

// deaf reports whether a process neither handles nor ignores a signal.
func deaf(pid int, sig unix.Signal) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		key, val, _ := strings.Cut(line, ":")
		if key != "SigCgt" && key != "SigIgn" {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(val), 16, 64)
		if err != nil || set&(1<<(sig-1)) != 0 {
			return false
		}
	}
	return true
}

// inNetNS runs f on a thread in a network namespace.
func inNetNS(netns string, f func() error) error {
	done := make(chan error, 1)
	go func() { // its thread is not unlocked: it ends with the goroutine and takes the namespace with it
		goruntime.LockOSThread()
		done <- func() error {
			ns, err := os.Open(netns)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("network namespace %s: %w", netns, err)
	}
	return nil
}

// prepareNet does in a network namespace what a container in a user namespace of its own has no right to, since its
// network namespace is the machine's: every user may listen on any port (inside, low ports protect nothing) and ping,
// and a sysfs that shows the namespace's interfaces is mounted in a directory below at. undo unmounts it: once the
// container is made it holds its own.
func prepareNet(netns, at string) (sysfs string, undo func() error, err error) {
	dir, err := os.MkdirTemp(at, "sys")
	if err != nil {
		return "", nil, err
	}
	err = inNetNS(netns, func() error {
		for name, value := range map[string]string{"ip_unprivileged_port_start": "0", "ping_group_range": "0 2147483647"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		return unix.Mount("sysfs", dir, "sysfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	})
	if err != nil {
		return "", nil, errors.Join(err, os.Remove(dir))
	}
	return dir, func() error { return errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)) }, nil
}
