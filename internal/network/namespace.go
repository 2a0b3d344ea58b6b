package network

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
)

const nsfsMagic = 0x6e736673 // NSFS_MAGIC of linux/magic.h

// isNamespace reports whether a namespace is mounted at path. After a boot only an empty file is left there.
func isNamespace(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == nsfsMagic
}

// namespacesExist reports whether all namespaces of an attachment are there.
func namespacesExist(path string, a kernel.Attachment) bool {
	return isNamespace(path) && (a.IDs == nil || isNamespace(kernel.UserNamespace(path)))
}

// makeNamespace creates a network namespace, mounted at path, with its loopback up. With ids it belongs to a user
// namespace of its own, mounted beside it, whose root may use nftables, links and settings as it likes.
func makeNamespace(path string, ids *kernel.IDRange) error {
	if err := mountPoint(path); err != nil {
		return err
	}
	fill := func() error { return inNamespace(newNetwork, func() error { return prepareNamespace(path) }) }
	if ids != nil {
		if err := mountPoint(kernel.UserNamespace(path)); err != nil {
			return err
		}
		fill = func() error { return makeOwned(path, *ids) }
	}
	if err := fill(); err != nil {
		return errors.Join(fmt.Errorf("network namespace %s: %w", path, err), dropNamespace(path))
	}
	return loopbackUp(path)
}

func mountPoint(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	return f.Close()
}

// holder is a program that waits for the end of its input, which comes at the latest when this process ends.
const holder = "/bin/cat"

// makeOwned creates a network namespace below a new user namespace with these ids. That takes a process, as a thread
// of this one cannot; it ends as soon as both namespaces are mounted.
func makeOwned(path string, ids kernel.IDRange) error {
	maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(ids.First), Size: int(ids.Count)}}
	cmd := exec.Command(holder)
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: maps, GidMappings: maps, GidMappingsEnableSetgroups: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		in.Close()
		return fmt.Errorf("user namespace of %d ids from %d on: %w", ids.Count, ids.First, err)
	}
	of := fmt.Sprintf("/proc/%d/ns/", cmd.Process.Pid)
	err = unix.Mount(of+"user", kernel.UserNamespace(path), "", unix.MS_BIND, "")
	if err == nil {
		err = inNamespace(func() error { return enter(of + "net") }, func() error { return prepareNamespace(path) })
	}
	return errors.Join(err, in.Close(), cmd.Wait())
}

func newNetwork() error { return unix.Unshare(unix.CLONE_NEWNET) }

func enter(path string) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return netns.Set(ns)
}

// inNamespace runs f on a thread that entered a network namespace, and returns the thread afterwards. A thread that
// cannot return ends, unless it is the process's first one, which the Go runtime cannot end: programs would then see
// the wrong namespace in /proc/self.
func inNamespace(enter, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			result <- err
			return
		}
		defer home.Close()
		if err = enter(); err == nil {
			err = f()
		}
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		} else {
			err = errors.Join(err, back)
		}
		result <- err
	}()
	return <-result
}

// prepareNamespace sets up the namespace the thread is in and mounts it at path.
func prepareNamespace(path string) error {
	// Processes in it may not own it (user namespaces), so that low ports and ping would be refused to them.
	for name, value := range map[string]string{"ip_unprivileged_port_start": "0", "ping_group_range": "0 2147483647"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
}

func loopbackUp(path string) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	return h.LinkSetUp(lo)
}

// dropNamespace unmounts a namespace and the user namespace it belongs to; processes in them keep them alive.
func dropNamespace(path string) error {
	return errors.Join(dropMount(path), dropMount(kernel.UserNamespace(path)))
}

func dropMount(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) &&
		!errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
