package network

import (
	"context"
	"iter"
	"net"
	"net/netip"

	"github.com/marinaos/marina/internal/kernel"
)

// Anywhere and Loopback are the addresses of frontends on the machine itself: Anywhere stands for all its addresses,
// as other computers, tasks and the machine call them, Loopback for 127.0.0.1, which only the machine calls.
var (
	Anywhere = netip.IPv4Unspecified()
	Loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
)

// Layout is the addressing of a datacenter on this machine.
type Layout struct {
	ID      string       `json:"id"`      // the instance's, 8 hex digits
	Bridge  string       `json:"bridge"`  // link of the datacenter
	Gateway netip.Addr   `json:"gateway"` // the bridge's address, first of Subnet; the name server listens there
	Subnet  netip.Prefix `json:"subnet"`  // addresses of this machine's instances
	Pool    netip.Prefix `json:"pool"`    // addresses of all instances of the datacenter; Subnet is part of it
	VIPs    netip.Prefix `json:"vips"`
}

// MAC returns the bridge's link address, a fixed one of its own: a bridge would else take one of its ports'.
func (l Layout) MAC() net.HardwareAddr {
	return append(net.HardwareAddr{0x02, 0x6d}, l.Gateway.AsSlice()...)
}

// Port is a port of one protocol, "tcp" or "udp".
type Port struct {
	Protocol string
	Number   uint16
}

// Frontend is an address and port that clients call: the address of a VIP, or Anywhere or Loopback for published and
// host ports.
type Frontend struct {
	Addr netip.Addr
	Port
}

// RuleChange is a change of the packet rules, applied whole or not at all.
type RuleChange struct {
	// Backends has the frontends that change, each with its new backends. An empty list refuses connections at once; nil
	// removes the frontend.
	Backends map[Frontend][]netip.AddrPort

	// Links, Open and Bound replace what was there; nil leaves it. Links maps a link of the bridge to the only address
	// it may send from. Open are ports of the machine that instances may call. Bound are ports that a process only
	// reserves and never answers on: connections that no frontend redirects are refused there.
	Links       map[string]netip.Addr
	Open, Bound map[Port]bool

	// Networks and Inner replace what was there too; their values are numbers of named networks, from 1 on. Networks has
	// the addresses of instances in them; all others are in the datacenter's own. Groups of different networks reach each
	// other by frontends only. Inner are host ports of such instances: instances of other named networks may not call
	// them.
	Networks map[netip.Addr]uint32
	Inner    map[Port]uint32
}

// Rules keeps the machine's packet rules. They serve without this process and are found again by the next one.
// internal/network/vip is the real one. Its methods are safe for concurrent use.
type Rules interface {
	// Configure sets up the rules of layout. Frontends that an earlier process set up for the same layout keep their
	// backends.
	Configure(layout Layout) error
	ChangeRules(c RuleChange) error
	// Frontends lists all frontends and their backends, those of an earlier process included.
	Frontends() iter.Seq2[Frontend, []netip.AddrPort]
	// Repair puts back what somebody else changed and reports whether there was anything.
	Repair() (bool, error)
	// Remove deletes all rules of the instance. Nothing to delete is not an error.
	Remove(id string) error
}

// Names answers for the datacenter's names. internal/network/dns is the real one. ChangeNames is safe for concurrent
// use.
type Names interface {
	// Listen binds the layout's gateway address; again with the same layout it does nothing.
	Listen(layout Layout) error
	// ChangeNames removes the names of some endpoints and adds those of others.
	ChangeNames(removed, added []kernel.Endpoint)
	// Run answers until ctx ends.
	Run(ctx context.Context) error
}

// Prefix is netip.MustParsePrefix, for constants.
func Prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// Single is the prefix of one address.
func Single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
