// Package netspace lets tests of a node's network run in network namespaces of their own, as root of a user namespace
// that owns them: what a node is. Everything is gone with the test's process.
package netspace

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const marker = "MARINA_NETSPACE"

// Inside returns true in a process of the test alone, whose network namespace is empty but for lo. In the first process
// it starts that one, waits for it and returns false: the test returns. Where user namespaces or nft are missing it
// skips, unless MARINA_REQUIRE_REAL says that they must be there.
func Inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(marker) == t.Name() {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	if _, err := exec.LookPath("nft"); err != nil {
		skip(t, "nft is not installed")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), marker+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// A process namespace too: what the test starts ends with it. (Asking the kernel for that by Pdeathsig would not do:
		// threads end here, and children with the thread that started them.)
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if _, ran := err.(*exec.ExitError); err != nil && !ran {
		skip(t, fmt.Sprintf("no user namespace: %v", err))
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return false
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("MARINA_REQUIRE_REAL") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Space is a network namespace beside the process's own: a pod, a node, or the outside.
type Space struct {
	t  *testing.T
	fd int
}

// New makes an empty one, with lo up.
func New(t *testing.T) *Space {
	t.Helper()
	s := &Space{t: t}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s.fd) })
	s.Do(func() {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		s.must(err)
	})
	return s
}

// Do runs f in the namespace and waits for it. What f starts elsewhere is not in it; sockets it opens and programs it
// runs are.
func (s *Space) Do(f func()) {
	s.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(s.fd, unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		done <- err
	}()
	s.must(<-done)
}

func (s *Space) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
		panic(err)
	}
}

// Pod connects the space with the process's own namespace as the CNI plugin ptp would: addresses of its own behind a
// link that is routed to, and a default route.
func (s *Space) Pod(device string, gateway netip.Addr, addresses ...netip.Addr) {
	s.t.Helper()
	s.Join(nil, device, func(link netlink.Link) {
		for _, a := range addresses {
			s.must(netlink.AddrAdd(link, &netlink.Addr{IPNet: host(a)}))
		}
		s.must(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: host(gateway), Scope: netlink.SCOPE_LINK}))
		s.must(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}))
	})
	link, err := netlink.LinkByName(device)
	s.must(err)
	s.must(netlink.AddrAdd(link, &netlink.Addr{IPNet: host(gateway)}))
	for _, a := range addresses {
		s.must(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: host(a), Scope: netlink.SCOPE_LINK}))
	}
}

// Join makes a link whose one end is eth0 in the space, and the other, named device, in other; nil is the process's own
// namespace. Configure is called in the space with its end, which is up.
func (s *Space) Join(other *Space, device string, configure func(netlink.Link)) {
	s.t.Helper()
	make := func() {
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: device}, PeerName: "eth0", PeerNamespace: netlink.NsFd(s.fd)})
		s.must(err)
		link, err := netlink.LinkByName(device)
		s.must(err)
		s.must(netlink.LinkSetUp(link))
	}
	if other == nil {
		make()
	} else {
		other.Do(make)
	}
	s.Do(func() {
		link, err := netlink.LinkByName("eth0")
		s.must(err)
		s.must(netlink.LinkSetUp(link))
		configure(link)
	})
}

func host(a netip.Addr) *net.IPNet { return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)} }
