package spec

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

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

// Sysfs mounts a sysfs that shows a network namespace's interfaces, read-only, in a directory below at. A container in
// a user namespace of its own has no right to, since its network namespace is the machine's. For the same reason every
// user of the namespace may then listen on any port (inside, low ports protect nothing) and ping. undo unmounts it:
// once the container is made it holds its own.
func Sysfs(netns, at string) (sysfs string, undo func() error, err error) {
	dir, err := os.MkdirTemp(at, "sys")
	if err != nil {
		return "", nil, err
	}
	err = inNetNS(netns, func() error {
		allowed := map[string]string{"ip_unprivileged_port_start": "0", "ping_group_range": "0 2147483647"}
		for name, value := range allowed {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
		return unix.Mount("sysfs", dir, "sysfs", flags, "")
	})
	if err != nil {
		return "", nil, errors.Join(err, os.Remove(dir))
	}
	undo = func() error { return errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)) }
	return dir, undo, nil
}
