package network_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/network"
)

// owner tells this binary that it was started as root of an instance's user namespace.
const owner = "MARINA_TEST_OWNER"

var ids = kernel.IDRange{First: 700_000, Count: 65_536}

func node(name string, last byte) kernel.Attachment {
	return kernel.Attachment{Instance: kernel.InstanceID(name), Mode: kernel.NetworkBridge,
		Address: netip.AddrFrom4([4]byte{10, 77, 3, last}), IDs: &ids}
}

// own runs useOwned as root of the namespaces at path.
func (h *testbed) own(path string) {
	h.Helper()
	self, err := os.Open("/proc/self/exe")
	h.check(err)
	defer self.Close()
	cmd := exec.Command("nsenter", "--user="+kernel.UserNamespace(path), "--net="+path, "/proc/self/fd/3")
	cmd.Env, cmd.ExtraFiles, cmd.Dir = []string{owner + "=1"}, []*os.File{self}, "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Errorf("as root of the group's namespaces: %v: %s", err, out)
	}
}

// useOwned does with its network what a node does: packet rules with address translation, links, settings.
func useOwned() error {
	var errs []error
	try := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	for _, file := range []string{"uid_map", "gid_map"} {
		b, err := os.ReadFile("/proc/self/" + file)
		if got, want := strings.Fields(string(b)), fmt.Sprintf("[0 %d %d]", ids.First, ids.Count); err == nil &&
			fmt.Sprint(got) != want {
			err = fmt.Errorf("got %v, want %s", got, want)
		}
		try(file, err)
	}
	try("setgroups", unix.Setgroups([]int{5}))

	c := nftables.Conn{}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "node"})
	chain := c.AddChain(&nftables.Chain{Table: table, Name: "out", Type: nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Masq{}}})
	try("nftables", c.Flush())
	c.DelTable(table)
	try("nftables", c.Flush())

	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	attrs := func(name string) netlink.LinkAttrs { a := netlink.NewLinkAttrs(); a.Name = name; return a }
	for _, l := range []netlink.Link{
		&netlink.Bridge{LinkAttrs: attrs("br0")},
		&netlink.Veth{LinkAttrs: attrs("pod0"), PeerName: "pod1"},
		&netlink.Vxlan{LinkAttrs: attrs("vxlan0"), VxlanId: 4097, Port: 4789, VtepDevIndex: eth0.Attrs().Index},
	} {
		try(l.Type(), netlink.LinkAdd(l))
		try(l.Type(), netlink.LinkSetUp(l))
		try(l.Type(), netlink.LinkDel(l))
	}
	try("ip_forward", os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	for name, want := range map[string]string{"ip_unprivileged_port_start": "0", "conf/all/forwarding": "1"} {
		b, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		if got := strings.TrimSpace(string(b)); err == nil && got != want {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		try(name, err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil && lo.Attrs().Flags&unix.IFF_UP == 0 {
		err = unix.ENETDOWN
	}
	try("lo", err)
	return errors.Join(errs...)
}

func mounts() int {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	return strings.Count(string(b), "\n")
}

func TestRootOfAnInstanceOwnsItsNetwork(t *testing.T) {
	h := newTestbed(t)
	before := mounts()
	a := node("node", 10)
	path := h.attach(a)
	h.own(path)
	e := endpoint(a)
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{e}))
	h.wantGet("", "198.18.0.7:80", "node", "10.77.3.1")
	h.wantGet(h.netns(h.group("client", 11)), "198.18.0.7:80", "node", "10.77.3.11")
	h.serve(h.other, ":80", "outside")
	h.wantGet(path, "192.168.50.2:80", "outside", "192.168.50.1")
	h.check(h.n.Detach(t.Context(), "client"))
	h.check(h.n.Detach(t.Context(), "node"))
	if after := mounts(); after != before {
		t.Errorf("%d mounts after Detach, want %d", after, before)
	}
	if left, _ := os.ReadDir(filepath.Join(h.state, "netns")); len(left) > 0 {
		t.Errorf("left after Detach: %v", left)
	}
}

func TestHalfMadeUserNamespaceIsMadeAnew(t *testing.T) {
	h := newTestbed(t)
	before := mounts()
	a := node("node", 10)
	path := h.attach(a)
	user := kernel.UserNamespace(path)
	drop := func(path string) error {
		return errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.WriteFile(path, nil, 0o600))
	}
	for what, harm := range map[string]func() error{
		"both are files of before a boot":   func() error { return errors.Join(drop(path), drop(user)) },
		"user namespace lost":               func() error { return drop(user) },
		"user namespace without the second": func() error { return drop(path) },
	} {
		h.stop()
		h.check(harm())
		h.start()
		got, err := h.n.Attach(t.Context(), a)
		if err != nil || got != path {
			t.Fatalf("%s: Attach: %q, %v", what, got, err)
		}
		h.own(path)
		if after := mounts(); after != before+2 {
			t.Errorf("%s: %d mounts, want %d", what, after, before+2)
		}
	}
	h.stop()
	h.check(drop(user))
	h.start()
	h.check(h.n.Detach(t.Context(), "node"))
	if after := mounts(); after != before {
		t.Errorf("%d mounts after Detach, want %d", after, before)
	}
}

func TestIDsAreChecked(t *testing.T) {
	h := newTestbed(t)
	for _, r := range []kernel.IDRange{{First: 0, Count: 10}, {First: 10, Count: 0}, {First: 4_294_967_290, Count: 10}} {
		a := node("node", 10)
		a.IDs = &r
		if _, err := h.n.Attach(t.Context(), a); !errdefs.IsInvalidArgument(err) {
			t.Errorf("Attach with ids %+v: %v, want ErrInvalidArgument", r, err)
		}
	}
	a := node("node", 10)
	first := h.attach(a)
	a.IDs = nil // another attachment than before: it is made anew
	if _, err := h.n.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kernel.UserNamespace(first)); err == nil {
		t.Error("the user namespace is left")
	}
}

// An instance that owns its namespace gives its link the address of another one's.
func TestInstanceGetsNothingThatIsForAnother(t *testing.T) {
	h := newTestbed(t)
	victim, liar := h.group("honest", 10), h.attach(node("liar", 11))
	h.wantGet(liar, "10.77.3.10:80", "honest", "10.77.3.11")
	var mac []byte
	eth0 := func(ns string, f func(netlink.Link) error) {
		t.Helper()
		h.check(within(ns, func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return f(l)
		}))
	}
	eth0(h.netns(victim), func(l netlink.Link) error { mac = l.Attrs().HardwareAddr; return nil })
	eth0(liar, func(l netlink.Link) error { return netlink.LinkSetHardwareAddr(l, mac) })
	for range 3 {
		_, _, _ = get(liar, "10.77.3.1:53") // the bridge sees it
		h.wantGet("", "10.77.3.10:80", "honest", "10.77.3.1")
	}
	// Back on a new bridge it is the same.
	br, err := netlink.LinkByName(network.BridgeName("0badcafe"))
	h.check(err)
	h.check(netlink.LinkDel(br))
	h.n.Repair()
	_, _, _ = get(liar, "10.77.3.1:53")
	h.wantGet("", "10.77.3.10:80", "honest", "10.77.3.1")
}
