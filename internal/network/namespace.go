package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const nsfsMagic = 0x6e736673 // NSFS_MAGIC of linux/magic.h

// isNamespace reports whether path is a namespace that is held by its mount, as opposed to a file left from before a boot.
func isNamespace(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == nsfsMagic
}

// makeNamespace makes a network namespace held by a mount at path, with its loopback up.
func makeNamespace(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	if err := newNamespace(path); err != nil {
		os.Remove(path)
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	return loopbackUp(path)
}

// newNamespace visits a new namespace with its thread and comes back. A thread that cannot come back is given up, unless it
// is the process's first one, which the runtime cannot end: programs would see the wrong namespace in /proc/self then.
func newNamespace(path string) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			result <- err
			return
		}
		defer home.Close()
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			err = settle(path)
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

// settle prepares the namespace the thread is in and lets a mount hold it.
func settle(path string) error {
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

// dropNamespace lets a namespace go; what still runs in it keeps it alive.
func dropNamespace(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
