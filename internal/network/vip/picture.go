package vip

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/network"
)

// picture is what the kernel's sets hold: by set, key to value. A plain set's values are empty, those of doors are names
// of chains.
type picture map[string]map[string]string

// edits is what changes in a picture: by set, key to value, nil to delete.
type edits map[string]map[string]*string

func newPicture() picture {
	p := picture{}
	for _, name := range setNames {
		p[name] = map[string]string{}
	}
	return p
}

// put notes that key is to have value, unless it does.
func (p picture) put(e edits, set, key, value string) {
	if old, ok := p[set][key]; !ok || old != value {
		e.at(set)[key] = &value
	}
}

// drop notes that key is to go, if it is there.
func (p picture) drop(e edits, set, key string) {
	if _, ok := p[set][key]; ok {
		e.at(set)[key] = nil
	}
}

// whole notes what makes the set exactly want.
func (p picture) whole(e edits, set string, want map[string]string) {
	for k := range p[set] {
		if _, ok := want[k]; !ok {
			p.drop(e, set, k)
		}
	}
	for k, v := range want {
		p.put(e, set, k, v)
	}
}

func (e edits) at(set string) map[string]*string {
	if e[set] == nil {
		e[set] = map[string]*string{}
	}
	return e[set]
}

func (p picture) apply(e edits) {
	for set, m := range e {
		for k, v := range m {
			if v == nil {
				delete(p[set], k)
			} else {
				p[set][k] = *v
			}
		}
	}
}

// lead notes what makes the door lead to want, which may be none; it returns the backends that it no longer leads to.
func (p picture) lead(e edits, d network.Door, want []netip.AddrPort) (gone []netip.AddrPort) {
	k := doorKey(d)
	old := p.leads(d)
	slots, gone := arrange(old, want)
	for i, b := range slots {
		p.put(e, backends, backendKey(k, i), backendValue(b))
	}
	for i := len(slots); i < len(old); i++ {
		p.drop(e, backends, backendKey(k, i))
	}
	switch {
	case len(slots) > 0:
		p.put(e, doors, k, pickName(d, len(slots)))
		p.drop(e, refused, k)
	case want != nil:
		p.drop(e, doors, k)
		p.put(e, refused, k, "")
	default:
		p.drop(e, doors, k)
		p.drop(e, refused, k)
	}
	return gone
}

// leads is where a door leads, by number.
func (p picture) leads(d network.Door) []netip.AddrPort {
	k := doorKey(d)
	n := pickSize(p[doors][k])
	out := make([]netip.AddrPort, 0, n)
	for i := range n {
		if v, ok := p[backends][backendKey(k, i)]; ok {
			out = append(out, parseBackend(v))
		}
	}
	return out
}

// arrange gives the wanted backends numbers so that as few as possible change: who stays keeps its number, the holes are
// filled with the new ones and then from the end. Doubles count once.
func arrange(old, want []netip.AddrPort) (slots, gone []netip.AddrPort) {
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

func pickName(d network.Door, n int) string {
	if d.Addr == network.Anywhere {
		return "own_" + strconv.Itoa(n)
	}
	return "vip_" + strconv.Itoa(n)
}

func pickSize(name string) int {
	if len(name) < 5 {
		return 0
	}
	n, _ := strconv.Atoi(name[4:])
	return n
}

func isPick(name string) bool {
	return pickSize(name) > 0 && (name[:4] == "own_" || name[:4] == "vip_")
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

func doorKey(d network.Door) string { return addrKey(d.Addr) + portKey(d.Port) }

func numberKey(n uint32) string { return string(binaryutil.NativeEndian.PutUint32(n)) }

func backendKey(door string, i int) string {
	return door + numberKey(uint32(i))
}

func backendValue(b netip.AddrPort) string {
	return addrKey(b.Addr()) + string([]byte{byte(b.Port() >> 8), byte(b.Port()), 0, 0})
}

func parseBackend(v string) netip.AddrPort {
	b := []byte(v)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), binary.BigEndian.Uint16(b[4:]))
}

func parseDoor(k string) network.Door {
	b := []byte(k)
	d := network.Door{Addr: netip.AddrFrom4([4]byte(b[:4])), Port: network.Port{Protocol: "tcp", Number: binary.BigEndian.Uint16(b[8:])}}
	if b[4] == unix.IPPROTO_UDP {
		d.Protocol = "udp"
	}
	return d
}
