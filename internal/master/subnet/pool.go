package subnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// Pool gives machines subnets of one prefix, all of the same length.
type Pool struct {
	base   netip.Prefix // by configuration
	prefix netip.Prefix // in use
	bits   int          // of a subnet
	given  map[netip.Prefix]kernel.AgentID
	next   int // number of the subnet to try first
}

// Usage is the pool as GET /net/v1/pool shows it.
type Usage struct {
	Pool    netip.Prefix `json:"pool"`
	Subnets int          `json:"subnets"` // of the size that machines get
	Used    int          `json:"used"`    // by machines
}

// New returns a pool of the configured prefix, of which nothing is given out.
func New(base netip.Prefix, bits int) *Pool {
	return &Pool{base: base, prefix: base, bits: bits, given: map[netip.Prefix]kernel.AgentID{}}
}

// Prefix is the prefix in use.
func (p *Pool) Prefix() netip.Prefix { return p.prefix }

// Changed reports whether the prefix in use is another than the configured one, and so has a row.
func (p *Pool) Changed() bool { return p.prefix != p.base && p.prefix != p.base.Masked() }

// Usage counts the subnets that there are and that are given out.
func (p *Pool) Usage() Usage {
	pool := p.prefix.Masked()
	return Usage{Pool: pool, Subnets: 1 << max(0, p.bits-pool.Bits()), Used: len(p.given)}
}

// Holder is the machine that has a subnet, empty if none has.
func (p *Pool) Holder(s netip.Prefix) kernel.AgentID { return p.given[s] }

// Give gives a machine a free subnet, invalid when there is none. Subnets go round, so that one that was returned is
// given again last.
func (p *Pool) Give(to kernel.AgentID) netip.Prefix {
	base := p.prefix.Masked()
	if !base.Addr().Is4() || p.bits < base.Bits() || p.bits > 29 {
		return netip.Prefix{}
	}
	all := 1 << (p.bits - base.Bits())
	if len(p.given) >= all {
		return netip.Prefix{}
	}
	for range all {
		s := netip.PrefixFrom(addToAddr(base.Addr(), uint32(p.next%all)<<(32-p.bits)), p.bits)
		p.next = (p.next + 1) % all
		if _, taken := p.given[s]; !taken {
			p.given[s] = to
			return s
		}
	}
	return netip.Prefix{}
}

// Load notes a subnet that a machine has by its row.
func (p *Pool) Load(s netip.Prefix, by kernel.AgentID) error {
	if _, taken := p.given[s]; taken {
		return fmt.Errorf("subnet %s is given twice", s)
	}
	p.given[s] = by
	return nil
}

// Return takes back what Give gave.
func (p *Pool) Return(s netip.Prefix) { delete(p.given, s) }

// Check refuses a prefix that cannot be the pool beside the virtual addresses.
func (p *Pool) Check(to, vips netip.Prefix) error {
	bad := func(format string, args ...any) error { return Refused(to, format, args...) }
	switch pool := to.Masked(); {
	case !pool.IsValid() || !pool.Addr().Is4():
		return bad("it is no IPv4 prefix such as 10.128.0.0/12")
	case !Contains(pool, p.base):
		return bad("it must have all of %s, the datacenter's pool since its first start", p.base)
	case pool.Bits() < 8:
		return bad("it is larger than a /8")
	case pool.Overlaps(vips):
		return bad("it overlaps the virtual addresses %s", vips)
	}
	return nil
}

// Refused is the error that refuses a prefix as the pool.
func Refused(to netip.Prefix, format string, args ...any) error {
	return fmt.Errorf("pool %s: "+format+": %w", append(append([]any{to}, args...), errdefs.ErrInvalidArgument)...)
}

// Use makes a prefix the pool, and reports whether it is another than before. It has all that was given out.
func (p *Pool) Use(to netip.Prefix) bool {
	if to.Masked() == p.prefix.Masked() {
		return false
	}
	p.prefix, p.next = to.Masked(), 0
	return true
}

// LoadPrefix takes up a pool that was set. One that lacks some of the configured one is another datacenter's.
func (p *Pool) LoadPrefix(to netip.Prefix) error {
	if !Contains(to, p.base) {
		return fmt.Errorf("pool %s does not have all of %s, which is configured", to, p.base)
	}
	p.prefix, p.next = to, 0
	return nil
}

// Contains reports whether all of inner is in outer.
func Contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Masked().Addr())
}

// addToAddr is the IPv4 address n after a.
func addToAddr(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}
