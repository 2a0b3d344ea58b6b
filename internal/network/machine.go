package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks our routes among others: 'm', a number nobody has registered.
const routeProtocol = 'm'

// BridgeName returns the name of the bridge of the datacenter with this instance id.
func BridgeName(id string) string { return "mar" + id[:6] }

func isBridgeName(name string) bool { return len(name) == 9 && strings.HasPrefix(name, "mar") }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

// ensureBridge creates the bridge with its address and the route of the VIP range; what is there already stays.
func ensureBridge(l Layout, mtu int) error {
	br, err := netlink.LinkByName(l.Bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = l.Bridge, mtu, l.MAC()
		if err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err == nil {
			br, err = netlink.LinkByName(l.Bridge)
		}
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", l.Bridge, err)
	}
	if br.Type() != "bridge" {
		return fmt.Errorf("link %s is a %s of somebody else's; remove it: %w", l.Bridge, br.Type(), errdefs.ErrAlreadyExists)
	}
	if !bytes.Equal(br.Attrs().HardwareAddr, l.MAC()) {
		if err := netlink.LinkSetHardwareAddr(br, l.MAC()); err != nil {
			return fmt.Errorf("bridge %s: %w", l.Bridge, err)
		}
	}
	addr := netip.PrefixFrom(l.Gateway, l.Subnet.Bits())
	if err := soleAddress(br, addr); err != nil {
		return fmt.Errorf("address %s of bridge %s: %w", addr, l.Bridge, err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return fmt.Errorf("bridge %s: %w", l.Bridge, err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("link lo: %w", err)
	}
	if err := netlink.RouteReplace(vipRoute(l, lo)); err != nil {
		return fmt.Errorf("route to VIPs %s: %w", l.VIPs, err)
	}
	return nil
}

func soleAddress(br netlink.Link, want netip.Prefix) error {
	addrs, err := netlink.AddrList(br, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if prefixOf(a.IPNet) != want {
			if err := netlink.AddrDel(br, &a); err != nil {
				return err
			}
		}
	}
	return netlink.AddrReplace(br, &netlink.Addr{IPNet: ipNet(want)})
}

// vipRoute returns the route that makes the whole VIP range local to the machine, so that a packet to a VIP never
// leaves it. The machine calls VIPs from the gateway's address.
func vipRoute(l Layout, lo netlink.Link) *netlink.Route {
	return &netlink.Route{Dst: ipNet(l.VIPs), LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_HOST, Type: unix.RTN_LOCAL,
		Table: unix.RT_TABLE_LOCAL, Protocol: routeProtocol, Src: l.Gateway.AsSlice()}
}

func removeBridge(l Layout) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("link lo: %w", err)
	}
	if l.VIPs.IsValid() {
		if err := netlink.RouteDel(vipRoute(l, lo)); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("route to VIPs %s: %w", l.VIPs, err)
		}
	}
	br, err := netlink.LinkByName(l.Bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(br)
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", l.Bridge, err)
	}
	return nil
}

// machineMTU returns the MTU, in bytes, of the default route's link: instances must not send larger packets than it
// takes.
func machineMTU() int {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 1500
	}
	for _, r := range routes {
		if r.Dst == nil || prefixOf(r.Dst).Bits() == 0 {
			if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
				return link.Attrs().MTU
			}
		}
	}
	return 1500
}

func ownAddresses() (map[netip.Addr]bool, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("addresses of the machine: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range addrs {
		own[prefixOf(a.IPNet).Addr()] = true
	}
	return own, nil
}

// Neighbour returns the name of the bridge of another datacenter on this machine, or "".
func Neighbour(bridge string) string {
	all, err := CompleteList(netlink.LinkList)
	if err != nil {
		return ""
	}
	for _, x := range all {
		if name := x.Attrs().Name; x.Type() == "bridge" && isBridgeName(name) && name != bridge {
			return name
		}
	}
	return ""
}

// maxDumps limits how often CompleteList asks the kernel again.
const maxDumps = 20

// CompleteList calls list again until the kernel was not interrupted while it listed, at most maxDumps times: links and
// routes of others come and go on a busy machine.
func CompleteList[T any](list func() ([]T, error)) (out []T, err error) {
	for range maxDumps {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}
