package placement

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// addresses gives out the addresses of one IPv4 subnet: not the first (the network), the second (the gateway) or the last
// (broadcast). It goes round, so that an address given back is given out again last.
type addresses struct {
	subnet netip.Prefix
	taken  []uint64 // a bit for each address of the subnet
	used   int
	next   uint32 // offset to look at first
}

// reservedAddresses of a subnet are never given to a group.
const reservedAddresses = 3

func newAddresses(subnet netip.Prefix) addresses {
	if !subnet.IsValid() || !subnet.Addr().Is4() || subnet.Bits() < 12 || subnet.Bits() > 29 {
		return addresses{}
	}
	size := 1 << (32 - subnet.Bits())
	return addresses{subnet: subnet.Masked(), taken: make([]uint64, (size+63)/64), next: 2}
}

func (a *addresses) size() uint32 {
	if a.taken == nil {
		return 0
	}
	return 1 << (32 - a.subnet.Bits())
}

func (a *addresses) free() int { return max(0, int(a.size())-reservedAddresses-a.used) }

func (a *addresses) give() netip.Addr {
	n := a.size()
	for range 2 {
		for i := a.next; i < n-1; {
			if w := ^a.taken[i/64] >> (i % 64); w != 0 {
				i += uint32(bits.TrailingZeros64(w))
				if i >= n-1 {
					break
				}
				a.set(i)
				a.next = i + 1
				return a.at(i)
			}
			i = (i/64 + 1) * 64
		}
		a.next = 2
	}
	return netip.Addr{}
}

// take marks one address; false if it is not the subnet's to give or taken.
func (a *addresses) take(addr netip.Addr) bool {
	i, ok := a.offset(addr)
	if !ok || a.taken[i/64]&(1<<(i%64)) != 0 {
		return false
	}
	a.set(i)
	a.next = max(a.next, i+1)
	return true
}

func (a *addresses) giveBack(addr netip.Addr) {
	if i, ok := a.offset(addr); ok && a.taken[i/64]&(1<<(i%64)) != 0 {
		a.taken[i/64] &^= 1 << (i % 64)
		a.used--
	}
}

func (a *addresses) set(i uint32) {
	a.taken[i/64] |= 1 << (i % 64)
	a.used++
}

func (a *addresses) offset(addr netip.Addr) (uint32, bool) {
	if a.taken == nil || !a.subnet.Contains(addr) {
		return 0, false
	}
	b, base := addr.As4(), a.subnet.Addr().As4()
	i := binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(base[:])
	return i, i >= 2 && i < a.size()-1
}

func (a *addresses) at(i uint32) netip.Addr {
	b := a.subnet.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+i)
	return netip.AddrFrom4(b)
}
