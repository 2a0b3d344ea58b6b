package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// addrRange is the IPv4 addresses from first to last, both included. 64 bits hold the address behind the last one.
type addrRange struct{ first, last uint64 }

func (r addrRange) String() string {
	return addr(r.first).String() + "-" + addr(r.last).String()
}

func addr(n uint64) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// prefixRange is false for what is no IPv4 block.
func prefixRange(cidr string) (addrRange, bool) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil || !p.Addr().Is4() {
		return addrRange{}, false
	}
	b := p.Masked().Addr().As4()
	first := uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	return addrRange{first, first + 1<<(32-p.Bits()) - 1}, true
}

// blockRanges is a block without its exceptions.
func blockRanges(b *networkingv1.IPBlock) []addrRange {
	whole, ok := prefixRange(b.CIDR)
	if !ok {
		return nil
	}
	var cut []addrRange
	for _, e := range b.Except {
		if r, ok := prefixRange(e); ok {
			cut = append(cut, r)
		}
	}
	var left []addrRange
	next := whole.first
	for _, r := range mergeRanges(cut) {
		if r.last < next {
			continue
		}
		if r.first > whole.last {
			break
		}
		if r.first > next {
			left = append(left, addrRange{next, r.first - 1})
		}
		next = r.last + 1
	}
	if next <= whole.last {
		left = append(left, addrRange{next, whole.last})
	}
	return left
}

// mergeRanges returns the same addresses in order, without overlaps and neighbours: the kernel refuses overlaps.
func mergeRanges(in []addrRange) []addrRange {
	in = slices.Clone(in)
	slices.SortFunc(in, func(a, b addrRange) int { return cmp.Compare(a.first, b.first) })
	var out []addrRange
	for _, r := range in {
		if n := len(out); n > 0 && r.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

type portRange struct{ first, last int32 }

// portMatch is nft's words for any of the ports.
func portMatch(in []portRange) string {
	in = slices.Clone(in)
	slices.SortFunc(in, func(a, b portRange) int { return cmp.Compare(a.first, b.first) })
	var out []portRange
	for _, r := range in {
		if n := len(out); n > 0 && r.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, r.last)
			continue
		}
		out = append(out, r)
	}
	var words []string
	for _, r := range out {
		if r.first == r.last {
			words = append(words, fmt.Sprint(r.first))
		} else {
			words = append(words, fmt.Sprintf("%d-%d", r.first, r.last))
		}
	}
	if len(words) == 1 {
		return words[0]
	}
	return "{ " + strings.Join(words, ", ") + " }"
}
