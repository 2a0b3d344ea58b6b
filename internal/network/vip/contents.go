package vip

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/network"
)

// contents are the elements of the kernel's sets: by set, key to value. A plain set's values are empty, those of
// frontends are names of balancer chains.
type contents map[string]map[string]string

// edits are changes of contents: by set, key to value, nil to delete.
type edits map[string]map[string]*string

func newContents() contents {
	p := contents{}
	for _, name := range setNames {
		p[name] = map[string]string{}
	}
	return p
}

// setElement adds to e that key gets value, unless it has it.
func (c contents) setElement(e edits, set, key, value string) {
	if old, ok := c[set][key]; !ok || old != value {
		e.at(set)[key] = &value
	}
}

// deleteElement adds to e that key is deleted, if it is there.
func (c contents) deleteElement(e edits, set, key string) {
	if _, ok := c[set][key]; ok {
		e.at(set)[key] = nil
	}
}

// replaceSet adds to e the changes that turn the set into want.
func (c contents) replaceSet(e edits, set string, want map[string]string) {
	for k := range c[set] {
		if _, ok := want[k]; !ok {
			c.deleteElement(e, set, k)
		}
	}
	for k, v := range want {
		c.setElement(e, set, k, v)
	}
}

func (e edits) at(set string) map[string]*string {
	if e[set] == nil {
		e[set] = map[string]*string{}
	}
	return e[set]
}

func (c contents) applyEdits(e edits) {
	for set, m := range e {
		for k, v := range m {
			if v == nil {
				delete(c[set], k)
			} else {
				c[set][k] = *v
			}
		}
	}
}

// setBackends adds to e the changes that give the frontend the backends want: none refuse, nil removes the frontend. It
// returns the backends that were removed.
func (c contents) setBackends(e edits, f network.Frontend, want []netip.AddrPort) (gone []netip.AddrPort) {
	k := frontendKey(f)
	old := c.backendsOf(f)
	slots, gone := assignSlots(old, want)
	for i, b := range slots {
		c.setElement(e, backends, backendKey(k, i), backendValue(b))
	}
	for i := len(slots); i < len(old); i++ {
		c.deleteElement(e, backends, backendKey(k, i))
	}
	switch {
	case len(slots) > 0:
		c.setElement(e, frontends, k, balancerName(f, len(slots)))
		c.deleteElement(e, refused, k)
	case want != nil:
		c.deleteElement(e, frontends, k)
		c.setElement(e, refused, k, "")
	default:
		c.deleteElement(e, frontends, k)
		c.deleteElement(e, refused, k)
	}
	return gone
}

// backendsOf returns the backends of a frontend, in the order of their numbers.
func (c contents) backendsOf(f network.Frontend) []netip.AddrPort {
	k := frontendKey(f)
	n := balancerSize(c[frontends][k])
	out := make([]netip.AddrPort, 0, n)
	for i := range n {
		if v, ok := c[backends][backendKey(k, i)]; ok {
			out = append(out, parseBackend(v))
		}
	}
	return out
}

// assignSlots numbers the wanted backends so that few numbers change: one that stays keeps its number, holes are
// filled with the new ones and then from the end. Duplicates count once.
func assignSlots(old, want []netip.AddrPort) (slots, gone []netip.AddrPort) {
	missing := make(map[netip.AddrPort]bool, len(want))
	for _, b := range want {
		missing[b] = true
	}
	var holes []int
	slots = append(slots, old...)
	for i, b := range old {
		if missing[b] {
			delete(missing, b)
		} else {
			holes = append(holes, i)
			gone = append(gone, b)
		}
	}
	for _, b := range want {
		if !missing[b] {
			continue
		}
		delete(missing, b)
		if len(holes) > 0 {
			slots[holes[0]], holes = b, holes[1:]
		} else {
			slots = append(slots, b)
		}
	}
	for i := len(holes) - 1; i >= 0; i-- { // from the highest, so that the last is never a hole itself
		last := len(slots) - 1
		slots[holes[i]] = slots[last]
		slots = slots[:last]
	}
	return slots, gone
}

var noAddr netip.Addr

func balancerName(f network.Frontend, n int) string {
	if f.Addr == network.Anywhere {
		return "own_" + strconv.Itoa(n)
	}
	return "vip_" + strconv.Itoa(n)
}

func balancerSize(name string) int {
	if len(name) < 5 {
		return 0
	}
	n, _ := strconv.Atoi(name[4:])
	return n
}

func isBalancer(name string) bool {
	return balancerSize(name) > 0 && (name[:4] == "own_" || name[:4] == "vip_")
}

// The kernel's keys: each field begins at a multiple of four bytes, addresses and ports in network order.

func portKey(p network.Port) string {
	n := byte(unix.IPPROTO_TCP)
	if p.Protocol == "udp" {
		n = unix.IPPROTO_UDP
	}
	return string([]byte{n, 0, 0, 0, byte(p.Number >> 8), byte(p.Number), 0, 0})
}

func addrKey(a netip.Addr) string { b := a.As4(); return string(b[:]) }

func frontendKey(f network.Frontend) string { return addrKey(f.Addr) + portKey(f.Port) }

func numberKey(n uint32) string { return string(binaryutil.NativeEndian.PutUint32(n)) }

func backendKey(frontend string, i int) string {
	return frontend + numberKey(uint32(i))
}

func backendValue(b netip.AddrPort) string {
	return addrKey(b.Addr()) + string([]byte{byte(b.Port() >> 8), byte(b.Port()), 0, 0})
}

func parseBackend(v string) netip.AddrPort {
	b := []byte(v)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), binary.BigEndian.Uint16(b[4:]))
}

func parseFrontend(k string) network.Frontend {
	b := []byte(k)
	f := network.Frontend{Addr: netip.AddrFrom4([4]byte(b[:4])),
		Port: network.Port{Protocol: "tcp", Number: binary.BigEndian.Uint16(b[8:])}}
	if b[4] == unix.IPPROTO_UDP {
		f.Protocol = "udp"
	}
	return f
}
