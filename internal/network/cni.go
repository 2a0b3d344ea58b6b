package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	types "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const groupLink = "eth0" // a group's link, in its namespace

// cni connects namespaces to the bridge by the plugins bridge and static.
type cni struct {
	layout  Layout
	plugins string
	cache   string
	mtu     int
}

func (n *Network) cni(l Layout) cni {
	return cni{l, n.cfg.Plugins, filepath.Join(n.root, "cni"), machineMTU()}
}

// conf returns the CNI configuration of an instance's network. The instance's address is a /32: all it sends goes
// through the gateway, packets to neighbours included, so that the same rules apply to every pair of instances and
// replies pass their frontend on the way back. Where br_netfilter is on, the kernel passes a packet that a frontend
// redirects to a neighbour, or back to its sender, from bridge port to bridge port: hairpin mode allows that, port
// isolation would not.
func (c cni) conf(addr netip.Addr) ([]byte, error) {
	const linkScope = 253 // RT_SCOPE_LINK
	type object = map[string]any
	return json.Marshal(object{"cniVersion": "1.1.0", "name": "marina_" + c.layout.ID, "plugins": []object{{
		"type": "bridge", "bridge": c.layout.Bridge, "mtu": c.mtu, "isGateway": false, "ipMasq": false, "hairpinMode": true,
		"ipam": object{"type": "static",
			"addresses": []object{{"address": Single(addr).String()}},
			"routes": []object{
				{"dst": Single(c.layout.Gateway).String(), "scope": linkScope},
				{"dst": "0.0.0.0/0", "gw": c.layout.Gateway.String()},
			}}}}})
}

func (c cni) configure(id, netns string, addr netip.Addr) (
	*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	b, err := c.conf(addr)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("CNI: %w", err)
	}
	list, err := libcni.ConfListFromBytes(b)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("CNI: %w", err)
	}
	return libcni.NewCNIConfigWithCacheDir([]string{c.plugins}, c.cache, nil), list,
		&libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: groupLink}, nil
}

// add connects the namespace and returns the machine's end of the link and the address of the instance's.
func (c cni) add(ctx context.Context, id, netns string, addr netip.Addr) (link, mac string, err error) {
	x, list, rt, err := c.configure(id, netns, addr)
	if err != nil {
		return "", "", err
	}
	res, err := x.AddNetworkList(ctx, list, rt)
	if err != nil {
		return "", "", fmt.Errorf("CNI plugins of %s: %w", c.plugins, err)
	}
	r, err := types.NewResultFromResult(res)
	if err != nil {
		return "", "", fmt.Errorf("CNI: %w", err)
	}
	for _, i := range r.Interfaces {
		switch {
		case i.Sandbox != "":
			mac = i.Mac
		case i.Name != c.layout.Bridge:
			link = i.Name
		}
	}
	if link == "" || mac == "" {
		return "", "", errors.New("CNI: plugin bridge does not name both ends of the link")
	}
	return link, mac, pinMAC(link, mac)
}

// del disconnects the namespace, if it was connected.
func (c cni) del(ctx context.Context, id, netns string) error {
	x, list, rt, err := c.configure(id, netns, c.layout.Gateway.Next())
	if err != nil {
		return err
	}
	if !isNamespace(netns) {
		rt.NetNS = ""
	}
	if err := x.DelNetworkList(ctx, list, rt); err != nil {
		return fmt.Errorf("CNI plugins of %s: %w", c.plugins, err)
	}
	return nil
}

func linkExists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

func deleteLink(name string) error {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return nil
}

// pinMAC makes the bridge deliver frames for mac, and no others, to the link. Learning is off, because an instance that
// owns its namespace can send from any address and would else receive another instance's frames; flooding of unknown
// addresses is off too.
func pinMAC(name, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	err = errors.Join(netlink.LinkSetLearning(l, false), netlink.LinkSetFlood(l, false), netlink.NeighSet(&netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, HardwareAddr: hw,
		State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER | netlink.NTF_STICKY}))
	if err != nil {
		return fmt.Errorf("link %s on its bridge: %w", name, err)
	}
	return nil
}

// rejoinBridge attaches an instance's link to the bridge again if it is not there.
func rejoinBridge(r record, bridge string) error {
	l, err := netlink.LinkByName(r.Link)
	if err != nil {
		return fmt.Errorf("link %s: %w", r.Link, err)
	}
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", bridge, err)
	}
	if l.Attrs().MasterIndex == br.Attrs().Index {
		return nil
	}
	if err := errors.Join(netlink.LinkSetMaster(l, br), netlink.LinkSetHairpin(l, true)); err != nil {
		return fmt.Errorf("link %s on bridge %s: %w", r.Link, bridge, err)
	}
	if r.MAC != "" { // records of earlier versions have none
		if err := pinMAC(r.Link, r.MAC); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("link %s on bridge %s: %w", r.Link, bridge, err)
	}
	return nil
}
