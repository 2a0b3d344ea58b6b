package network

import (
	"context"
	"iter"
	"net"
	"net/netip"

	"github.com/marinaos/marina/internal/kernel"
)

// Anywhere and Loopback are the addresses of the doors on the machine's own addresses: Anywhere is all of them as other
// computers, tasks and the machine itself call them, Loopback is 127.0.0.1 as only the machine calls it.
var (
	Anywhere = netip.IPv4Unspecified()
	Loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
)

// Layout is where a datacenter lives on this machine.
type Layout struct {
	ID      string       `json:"id"`      // the instance's, 8 hex digits
	Bridge  string       `json:"bridge"`  // link of the datacenter
	Gateway netip.Addr   `json:"gateway"` // the bridge's address, first of Subnet; names are asked there
	Subnet  netip.Prefix `json:"subnet"`  // where this machine's groups live
	Pool    netip.Prefix `json:"pool"`    // where all groups of the datacenter live; Subnet is part of it
	VIPs    netip.Prefix `json:"vips"`
}

// MAC is the bridge's link address, a fixed one of its own: a bridge would else take one of its ports'.
func (l Layout) MAC() net.HardwareAddr {
	return append(net.HardwareAddr{0x02, 0x6d}, l.Gateway.AsSlice()...)
}

// Port is a port of one protocol, "tcp" or "udp".
type Port struct {
	Protocol string
	Number   uint16
}

// Door is what clients call: a VIP's address or one of Anywhere and Loopback, and a port.
type Door struct {
	Addr netip.Addr
	Port
}

// Change is what is to become of the packet rules, all of it at once or not at all.
type Change struct {
	// Doors are those that change: where each leads. None of them refuses every connection at once; nil takes the
	// door away.
	Doors map[Door][]netip.AddrPort

	// Links, Open and Held are whole, nil leaves them as they are. A link of the bridge may send from its address only.
	// Open are ports of the machine that groups may call. Held are ports that no process answers on: what no door
	// leads elsewhere is refused.
	Links      map[string]netip.Addr
	Open, Held map[Port]bool

	// Networks and Inner are whole too, and numbers are of named networks, from 1 on. Networks says which one a group's address
	// is in; others are in the datacenter's own. Addresses of different networks are kept apart but for doors. Inner are host
	// ports of such groups: groups of other named networks may not call them.
	Networks map[netip.Addr]uint32
	Inner    map[Port]uint32
}

// Rules keeps the machine's packet rules. They serve without this process and are found again by the next one.
// internal/network/vip is the real one. Its methods are safe for concurrent use.
type Rules interface {
	// Configure makes the rules those of layout; doors of an earlier process of the same layout go on leading where they do.
	Configure(layout Layout) error
	Change(c Change) error
	// Doors lists all doors and where they lead, those of an earlier process included.
	Doors() iter.Seq2[Door, []netip.AddrPort]
	// Repair puts back what somebody else changed and reports whether there was anything.
	Repair() (bool, error)
	// Remove takes all rules of the instance away. Nothing to remove is not an error.
	Remove(id string) error
}

// Names answers for the datacenter's names. internal/network/dns is the real one. Change is safe for concurrent use.
type Names interface {
	// Listen binds the layout's gateway address; again with the same layout it does nothing.
	Listen(layout Layout) error
	// Change takes some endpoints' names away and adds others'.
	Change(removed, added []kernel.Endpoint)
	// Run answers until ctx ends.
	Run(ctx context.Context) error
}

// Prefix is netip.MustParsePrefix, for constants.
func Prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// Single is the prefix of one address.
func Single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
