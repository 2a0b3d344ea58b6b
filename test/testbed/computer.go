package testbed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Computer is another computer beside the machine: a network namespace joined to it by a cable.
type Computer struct {
	Address string // its own
	Machine string // the machine's, at the other end of the cable
	ns      netns.NsHandle
}

// NewComputer puts one beside the machine; the machine is its router.
func NewComputer() (*Computer, error) {
	var b [3]byte
	rand.Read(b[:])
	base := fmt.Sprintf("100.%d.%d.", 64+b[0]%64, b[1]) // carrier-grade NAT's range: nobody's on a test machine
	c := &Computer{Machine: base + "1", Address: base + "2"}
	name := fmt.Sprintf("mc%x", b)
	err := inNamespace(netns.None(), func() error {
		ns, err := netns.New() // leaves this thread in it
		c.ns = ns
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("another computer: %w", err)
	}
	if err := c.plug(name); err != nil {
		return nil, errors.Join(fmt.Errorf("another computer: %w", err), c.Close())
	}
	return c, nil
}

// plug makes the cable, whose end at the machine is called name.
func (c *Computer) plug(name string) error {
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "cable",
		PeerNamespace: netlink.NsFd(c.ns)})
	if err != nil {
		return err
	}
	if err := raise(name, c.Machine); err != nil {
		return err
	}
	return inNamespace(c.ns, func() error {
		if err := raise("lo", ""); err != nil {
			return err
		}
		if err := raise("cable", c.Address); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(c.Machine)})
	})
}

// raise gives a link an address and turns it on.
func raise(name, address string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if address != "" {
		a, err := netlink.ParseAddr(address + "/30")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// inNamespace runs f on a thread in a namespace, and comes back. With None, f changes the thread's namespace itself.
func inNamespace(ns netns.NsHandle, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // given up with the goroutine if it cannot come back
		home, err := netns.Get()
		if err != nil {
			result <- err
			return
		}
		defer home.Close()
		if ns.IsOpen() {
			err = netns.Set(ns)
		}
		if err == nil {
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

// Dial connects from the computer, to an address by number.
func (c *Computer) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = inNamespace(c.ns, func() error {
		conn, err = (&net.Dialer{Timeout: callLimit}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Run runs a command on the computer: it has the machine's files, and its own network.
func (c *Computer) Run(env []string, program string, args ...string) (o Output) {
	err := inNamespace(c.ns, func() error { // a process is born in its parent thread's namespaces
		cmd := exec.Command(program, args...)
		cmd.Env = env
		o = finish(cmd, args)
		return nil
	})
	if err != nil {
		return Output{Code: -1, Err: err.Error(), args: args}
	}
	return o
}

// Close unplugs the computer; its cable goes with it.
func (c *Computer) Close() error { return c.ns.Close() }
