package routes

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// Device is the VXLAN device's name.
	Device = "cluster0"
	// Port is UDP's for VXLAN.
	Port = 4789
	// overhead is the size of VXLAN's headers over IPv4, in bytes.
	overhead = 50
)

// overlay is the node's end of the cluster's network.
type overlay struct {
	self  peer
	vni   int
	under netlink.Link // the device with the node's address
	link  netlink.Link
}

// mtu is that of the pods.
func (o *overlay) mtu() int { return o.under.Attrs().MTU - overhead }

// linkOf finds the device that has the address.
func linkOf(a netip.Addr) (netlink.Link, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	for _, have := range addrs {
		if have.IP.Equal(a.AsSlice()) {
			return netlink.LinkByIndex(have.LinkIndex)
		}
	}
	return nil, fmt.Errorf("address %s: no device has it", a)
}

// openOverlay makes the device, or adopts the one that stands if it is the same.
func openOverlay(self peer, vni int, under netlink.Link) (*overlay, error) {
	o := &overlay{self: self, vni: vni, under: under}
	want := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: Device, MTU: o.mtu(), HardwareAddr: self.mac(), TxQLen: -1},
		VxlanId:   vni, VtepDevIndex: under.Attrs().Index, SrcAddr: self.node.AsSlice(), Port: Port,
	}
	have, err := netlink.LinkByName(Device)
	switch {
	case err == nil && o.is(have):
	case err == nil:
		if err := netlink.LinkDel(have); err != nil {
			return nil, fmt.Errorf("device %s: %w", Device, err)
		}
		fallthrough
	case errors.As(err, new(netlink.LinkNotFoundError)):
		if err := netlink.LinkAdd(want); err != nil {
			return nil, fmt.Errorf("device %s: %w", Device, err)
		}
	default:
		return nil, fmt.Errorf("device %s: %w", Device, err)
	}
	if o.link, err = netlink.LinkByName(Device); err != nil {
		return nil, fmt.Errorf("device %s: %w", Device, err)
	}
	if err := o.address(); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(o.link); err != nil {
		return nil, fmt.Errorf("device %s: %w", Device, err)
	}
	return o, nil
}

func (o *overlay) is(have netlink.Link) bool {
	v, ok := have.(*netlink.Vxlan)
	return ok && v.VxlanId == o.vni && v.Port == Port && !v.Learning && v.SrcAddr.Equal(o.self.node.AsSlice()) &&
		v.VtepDevIndex == o.under.Attrs().Index && v.MTU == o.mtu() && bytes.Equal(v.HardwareAddr, o.self.mac())
}

// address leaves the device with its address alone.
func (o *overlay) address() error {
	want := hostNet(o.self.device())
	addrs, err := netlink.AddrList(o.link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a.IPNet.String() != want.String() {
			if err := netlink.AddrDel(o.link, &a); err != nil {
				return fmt.Errorf("address %s: %w", a.IPNet, err)
			}
		}
	}
	if err := netlink.AddrReplace(o.link, &netlink.Addr{IPNet: want}); err != nil {
		return fmt.Errorf("address %s: %w", want, err)
	}
	return nil
}

func hostNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// entries are the rows of the device's tables for each peer, by their keys.
type entries struct {
	forwards   map[string]netlink.Neigh // MAC and node address
	neighbours map[string]netlink.Neigh // device address and MAC
	routes     map[string]netlink.Route // range and device address
}

func (o *overlay) wanted(peers []peer) entries {
	index := o.link.Attrs().Index
	e := entries{map[string]netlink.Neigh{}, map[string]netlink.Neigh{}, map[string]netlink.Route{}}
	for _, p := range peers {
		e.forwards[p.mac().String()+" "+p.node.String()] = netlink.Neigh{
			LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
			IP: p.node.AsSlice(), HardwareAddr: p.mac(),
		}
		e.neighbours[p.device().String()+" "+p.mac().String()] = netlink.Neigh{
			LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST,
			IP: p.device().AsSlice(), HardwareAddr: p.mac(),
		}
		e.routes[p.pods.String()+" "+p.device().String()] = netlink.Route{
			LinkIndex: index, Dst: ipNet(p.pods), Gw: p.device().AsSlice(), Src: o.self.device().AsSlice(),
			Flags: int(netlink.FLAG_ONLINK), Scope: netlink.SCOPE_UNIVERSE,
		}
	}
	return e
}

func (o *overlay) standing() (entries, error) {
	e := entries{map[string]netlink.Neigh{}, map[string]netlink.Neigh{}, map[string]netlink.Route{}}
	index := o.link.Attrs().Index
	forwards, err := netlink.NeighList(index, unix.AF_BRIDGE)
	if err != nil {
		return e, fmt.Errorf("forwarding entries: %w", err)
	}
	for _, f := range forwards {
		f.Family, f.Flags = unix.AF_BRIDGE, netlink.NTF_SELF
		e.forwards[f.HardwareAddr.String()+" "+f.IP.String()] = f
	}
	neighbours, err := netlink.NeighList(index, unix.AF_INET)
	if err != nil {
		return e, fmt.Errorf("neighbours: %w", err)
	}
	for _, n := range neighbours {
		if n.State&netlink.NUD_PERMANENT != 0 {
			e.neighbours[n.IP.String()+" "+n.HardwareAddr.String()] = n
		}
	}
	routes, err := netlink.RouteList(o.link, netlink.FAMILY_V4)
	if err != nil {
		return e, fmt.Errorf("routes: %w", err)
	}
	for _, r := range routes {
		if r.Gw != nil && r.Dst != nil {
			e.routes[r.Dst.String()+" "+r.Gw.String()] = r
		}
	}
	return e, nil
}

// keep makes the device's tables hold the peers and nothing else. What no longer holds goes first: a range may have
// moved.
func (o *overlay) keep(peers []peer) error {
	have, err := o.standing()
	if err != nil {
		return err
	}
	want := o.wanted(peers)
	for _, key := range missing(have.routes, want.routes) {
		r := have.routes[key]
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("route %s: %w", key, err)
		}
	}
	for _, stale := range []struct{ have, want map[string]netlink.Neigh }{{have.neighbours, want.neighbours}, {have.forwards, want.forwards}} {
		for _, key := range missing(stale.have, stale.want) {
			n := stale.have[key]
			if err := netlink.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("neighbour %s: %w", key, err)
			}
		}
	}
	for _, fresh := range []struct{ have, want map[string]netlink.Neigh }{{have.forwards, want.forwards}, {have.neighbours, want.neighbours}} {
		for _, key := range missing(fresh.want, fresh.have) {
			n := fresh.want[key]
			if err := netlink.NeighSet(&n); err != nil {
				return fmt.Errorf("neighbour %s: %w", key, err)
			}
		}
	}
	for _, key := range missing(want.routes, have.routes) {
		r := want.routes[key]
		if err := netlink.RouteReplace(&r); err != nil {
			return fmt.Errorf("route %s: %w", key, err)
		}
	}
	return nil
}

// missing are the keys of a that b does not have.
func missing[V any](a, b map[string]V) []string {
	var out []string
	for k := range a {
		if _, ok := b[k]; !ok {
			out = append(out, k)
		}
	}
	return out
}
