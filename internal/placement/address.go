package placement

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// addresses allocates the addresses of one IPv4 subnet, without the first (the network), the second (the gateway) and
// the last (broadcast). It allocates round robin, so that a released address is reused last.
type addresses struct {
	subnet netip.Prefix
	taken  []uint64 // a bit for each address of the subnet
	used   int
	next   uint32 // offset to try first
}

// reservedAddresses is the number of a subnet's addresses that no instance gets.
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

func (a *addresses) takeNext() netip.Addr {
	n := a.size()
	for range 2 {
		for i := a.next; i < n-1; {
			if w := ^a.taken[i/64] >> (i % 64); w != 0 {
				i += uint32(bits.TrailingZeros64(w))
				if i >= n-1 {
					break
				}
				a.markTaken(i)
				a.next = i + 1
				return a.addrAt(i)
			}
			i = (i/64 + 1) * 64
		}
		a.next = 2
	}
	return netip.Addr{}
}

// take marks one address as taken; false if it is not one for instances or is taken already.
func (a *addresses) take(addr netip.Addr) bool {
	i, ok := a.offset(addr)
	if !ok || a.taken[i/64]&(1<<(i%64)) != 0 {
		return false
	}
	a.markTaken(i)
	a.next = max(a.next, i+1)
	return true
}

func (a *addresses) release(addr netip.Addr) {
	if i, ok := a.offset(addr); ok && a.taken[i/64]&(1<<(i%64)) != 0 {
		a.taken[i/64] &^= 1 << (i % 64)
		a.used--
	}
}

func (a *addresses) markTaken(i uint32) {
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

func (a *addresses) addrAt(i uint32) netip.Addr {
	b := a.subnet.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+i)
	return netip.AddrFrom4(b)
}
