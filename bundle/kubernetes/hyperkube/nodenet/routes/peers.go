package routes

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// peer is another node of the cluster.
type peer struct {
	node netip.Addr   // its address on the machines' network
	pods netip.Prefix // its pods' range
}

// device is the address of the peer's VXLAN device: the one that no pod gets.
func (p peer) device() netip.Addr { return p.pods.Addr() }

func (p peer) mac() net.HardwareAddr { return mac(p.node) }

// mac is the address of a node's VXLAN device: locally administered, and unique as the node's address is.
func mac(node netip.Addr) net.HardwareAddr {
	b := node.As4()
	return net.HardwareAddr{0x0a, 0x6d, b[0], b[1], b[2], b[3]}
}

// peersOf are the nodes other than self that have both an address and a range within the cluster's, by name without
// order. Of two nodes that claim the same range or address the first in that order is believed: routes cannot hold
// both.
func peersOf(self string, cluster netip.Prefix, nodes []*corev1.Node) []peer {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	var out []peer
	for _, n := range nodes {
		if n.Name == self {
			continue
		}
		pods, err := podRange(cluster, n)
		if err != nil {
			continue
		}
		node, ok := internalAddress(n)
		if !ok || slices.ContainsFunc(out, func(p peer) bool { return p.node == node || p.pods.Overlaps(pods) }) {
			continue
		}
		out = append(out, peer{node, pods})
	}
	return out
}

func internalAddress(n *corev1.Node) (netip.Addr, bool) {
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); a.Type == corev1.NodeInternalIP && err == nil && ip.Is4() {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// podRange is the IPv4 range of n's pods.
func podRange(cluster netip.Prefix, n *corev1.Node) (netip.Prefix, error) {
	for _, s := range append([]string{n.Spec.PodCIDR}, n.Spec.PodCIDRs...) {
		p, err := netip.ParsePrefix(s)
		if err != nil || !p.Addr().Is4() {
			continue
		}
		if p != p.Masked() || !cluster.Contains(p.Addr()) || p.Bits() < cluster.Bits() {
			return p, fmt.Errorf("node %s: podCIDR %s is no range of %s", n.Name, p, cluster)
		}
		return p, nil
	}
	return netip.Prefix{}, fmt.Errorf("node %s: no podCIDR", n.Name)
}
