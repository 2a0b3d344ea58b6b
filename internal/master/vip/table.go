package vip

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"iter"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// maxName is the most bytes of a VIP's name with its framework's.
const maxName = 253

// VIP is a named VIP and its address.
type VIP struct {
	Name string // "hello.marathon"
	Addr netip.Addr
	uses int       // by specs and exposed ports
	idle time.Time // since when it has none
}

// Table keeps the named VIPs, and the addresses that specs use literally.
type Table struct {
	vips     netip.Prefix // the range
	keep     time.Duration
	changed  func(name string)
	named    map[string]*VIP
	at       map[netip.Addr]*VIP
	literals map[netip.Addr]int // uses of literal addresses by specs
	idle     []*VIP             // in the order in which they became idle; some may be in use again
}

// New returns an empty table of a range of addresses. A name that nothing uses keeps its address for so long. changed
// is told each name that got an address or lost it.
func New(vips netip.Prefix, keep time.Duration, changed func(name string)) *Table {
	return &Table{vips: vips, keep: keep, changed: changed, named: map[string]*VIP{}, at: map[netip.Addr]*VIP{},
		literals: map[netip.Addr]int{}}
}

// Get is the address of a name, invalid if it has none.
func (t *Table) Get(name string) netip.Addr {
	if v := t.named[name]; v != nil {
		return v.Addr
	}
	return netip.Addr{}
}

// All yields the names and their addresses in no order.
func (t *Table) All(yield func(name string, addr netip.Addr) bool) {
	for name, v := range t.named {
		if !yield(name, v.Addr) {
			return
		}
	}
}

// Load takes up a name's row. Nothing uses it yet.
func (t *Table) Load(name string, addr netip.Addr) error {
	if t.at[addr] != nil {
		return fmt.Errorf("address %s is given twice", addr)
	}
	v := &VIP{Name: name, Addr: addr}
	t.named[name], t.at[addr] = v, v
	t.idle = append(t.idle, v)
	return nil
}

// Begin counts the names that were loaded as idle from now on.
func (t *Table) Begin(now time.Time) {
	for _, v := range t.idle {
		v.idle = now
	}
}

// Check refuses literal addresses that named VIPs hold: what is meant for those would be shared. It is asked at
// launches only: what is placed already, as by an earlier release, can be loaded.
func (t *Table) Check(k *kernel.Spec) error {
	for addr := range Literals(k) {
		if v := t.at[addr]; v != nil {
			return fmt.Errorf("VIP %s of %.64s: its address is held by the named VIP %s: choose another of %s: %w",
				addr, k.Owner, v.Name, t.vips, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// HoldSpec gives every named VIP of a spec an address and notes its use, and that of its literal addresses. An error
// holds nothing.
func (t *Table) HoldSpec(k *kernel.Spec, now time.Time) ([]*VIP, error) {
	t.HoldLiterals(k)
	var held []*VIP
	for _, port := range k.Ports() {
		for _, ask := range port.VIPs {
			if ask.Name == "" && t.vips.Contains(ask.Addr) {
				continue
			}
			v, err := t.holdAsked(k, ask)
			if err != nil {
				t.ReleaseSpec(k, held, now)
				return nil, err
			}
			held = append(held, v)
		}
	}
	return held, nil
}

// holdAsked holds one named VIP of a spec. Rules for a literal one outside of the range would take what is meant for
// others.
func (t *Table) holdAsked(k *kernel.Spec, ask kernel.VIP) (*VIP, error) {
	if ask.Name == "" {
		return nil, fmt.Errorf("VIP %s of %s: its address is not of the datacenter's range %s: %w", ask.Addr, k.Owner, t.vips,
			errdefs.ErrInvalidArgument)
	}
	return t.Hold(ask.Name + "." + k.Framework)
}

// ReleaseSpec ends the uses that HoldSpec noted.
func (t *Table) ReleaseSpec(k *kernel.Spec, held []*VIP, now time.Time) {
	t.ReleaseLiterals(k)
	t.Release(held, now)
}

// Hold finds or makes a VIP and notes a use. Its address is its name's hash in the range, or the next that is free and
// that no spec uses literally.
func (t *Table) Hold(name string) (*VIP, error) {
	if v := t.named[name]; v != nil {
		v.uses++
		return v, nil
	}
	if len(name) > maxName {
		return nil, fmt.Errorf("VIP %.64s: a name has at most %d bytes: %w", name, maxName, errdefs.ErrInvalidArgument)
	}
	base, size := t.vips.Masked().Addr(), uint32(1)<<(32-t.vips.Bits())
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	for n, at := uint32(0), h.Sum32()%size; n < size; n, at = n+1, (at+1)%size {
		if at == 0 || at == size-1 { // the range's own and its broadcast address
			continue
		}
		addr := addToAddr(base, at)
		if t.at[addr] != nil || t.literals[addr] > 0 {
			continue
		}
		v := &VIP{Name: name, Addr: addr, uses: 1}
		t.named[name], t.at[addr] = v, v
		t.changed(name)
		return v, nil
	}
	return nil, fmt.Errorf("VIP %s: every address of %s is taken: choose a larger range: %w", name, t.vips,
		errdefs.ErrResourceExhausted)
}

// Release ends one use of each.
func (t *Table) Release(held []*VIP, now time.Time) {
	for _, v := range held {
		if v.uses--; v.uses == 0 {
			v.idle = now
			t.idle = append(t.idle, v)
		}
	}
}

// Expire takes the address from names that nothing has used for long.
func (t *Table) Expire(now time.Time) {
	for len(t.idle) > 0 {
		v := t.idle[0]
		gone := v.uses == 0 && t.named[v.Name] == v
		if gone && now.Before(v.idle.Add(t.keep)) {
			return
		}
		if gone {
			delete(t.named, v.Name)
			delete(t.at, v.Addr)
			t.changed(v.Name)
		}
		t.idle = t.idle[1:]
	}
}

// Wake returns when Expire has something to do at the earliest, zero for never.
func (t *Table) Wake() time.Time {
	if len(t.idle) == 0 {
		return time.Time{}
	}
	return t.idle[0].idle.Add(t.keep)
}

// HoldLiterals notes a use of each literal address of a spec: no name is given one of them.
func (t *Table) HoldLiterals(k *kernel.Spec) {
	for addr := range Literals(k) {
		t.literals[addr]++
	}
}

// ReleaseLiterals ends the uses that HoldLiterals noted.
func (t *Table) ReleaseLiterals(k *kernel.Spec) {
	for addr := range Literals(k) {
		if t.literals[addr]--; t.literals[addr] == 0 {
			delete(t.literals, addr)
		}
	}
}

// LiteralUses counts the specs' uses of a literal address.
func (t *Table) LiteralUses(addr netip.Addr) int { return t.literals[addr] }

// Literals yields the literal VIP addresses of a spec, one that is asked for twice twice.
func Literals(k *kernel.Spec) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, port := range k.Ports() {
			for _, ask := range port.VIPs {
				if ask.Name == "" && !yield(ask.Addr) {
					return
				}
			}
		}
	}
}

// addToAddr is the IPv4 address n after a.
func addToAddr(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}
