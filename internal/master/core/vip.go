package core

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

// vip is a named VIP and its address.
type vip struct {
	name string // "hello.marathon"
	addr netip.Addr
	uses int       // specs
	idle time.Time // since when it has none
}

// holdVIPs gives every named VIP of a spec an address and notes the use, and that of its literal addresses.
func (s *State) holdVIPs(sp *spec) error {
	s.countLiterals(&sp.Spec, 1)
	err := s.nameVIPs(sp)
	if err != nil {
		s.dropVIPs(sp)
	}
	return err
}

// checkLiterals refuses literal addresses that named VIPs hold: what is meant for those would be shared. It is asked at
// launches only: what is placed already, as by an earlier release, can be loaded.
func (s *State) checkLiterals(k *kernel.Spec) error {
	for addr := range literals(k) {
		if v := s.vipAddrs[addr]; v != nil {
			return fmt.Errorf("VIP %s of %.64s: its address is held by the named VIP %s: choose another of %s: %w", addr, k.Owner, v.name, s.cfg.VIPs, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// countLiterals adds n to the uses of a spec's literal addresses.
func (s *State) countLiterals(k *kernel.Spec, n int) {
	for addr := range literals(k) {
		if s.literals[addr] += n; s.literals[addr] == 0 {
			delete(s.literals, addr)
		}
	}
}

// literals yields the literal VIP addresses of a spec, one that is asked for twice twice.
func literals(k *kernel.Spec) iter.Seq[netip.Addr] {
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

func (s *State) nameVIPs(sp *spec) error {
	for _, port := range sp.Ports() {
		for _, ask := range port.VIPs {
			if ask.Name == "" {
				if !s.cfg.VIPs.Contains(ask.Addr) { // rules for it would take what is meant for others
					return fmt.Errorf("VIP %s of %s: its address is not of the datacenter's range %s: %w", ask.Addr, sp.Owner, s.cfg.VIPs, errdefs.ErrInvalidArgument)
				}
				continue
			}
			v, err := s.namedVIP(ask.Name + "." + sp.Framework)
			if err != nil {
				return err
			}
			v.uses++
			sp.vips = append(sp.vips, v)
		}
	}
	return nil
}

// namedVIP finds or makes a VIP. Its address is its name's hash in the range, or the next that is free and that no spec
// uses literally.
func (s *State) namedVIP(name string) (*vip, error) {
	if v := s.vips[name]; v != nil {
		return v, nil
	}
	if len(name) > maxVIPName {
		return nil, fmt.Errorf("VIP %.64s: a name has at most %d bytes: %w", name, maxVIPName, errdefs.ErrInvalidArgument)
	}
	base, size := s.cfg.VIPs.Masked().Addr(), uint32(1)<<(32-s.cfg.VIPs.Bits())
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	for n, at := uint32(0), h.Sum32()%size; n < size; n, at = n+1, (at+1)%size {
		if at == 0 || at == size-1 { // the range's own and its broadcast address
			continue
		}
		addr := addToAddr(base, at)
		if s.vipAddrs[addr] != nil || s.literals[addr] > 0 {
			continue
		}
		v := &vip{name: name, addr: addr}
		s.vips[name], s.vipAddrs[addr] = v, v
		s.dirty(Row{Kind: RowVIP, ID: name})
		return v, nil
	}
	return nil, fmt.Errorf("VIP %s: every address of %s is taken: choose a larger range: %w", name, s.cfg.VIPs, errdefs.ErrResourceExhausted)
}

func (s *State) dropVIPs(sp *spec) {
	s.countLiterals(&sp.Spec, -1)
	s.freeVIPs(sp.vips)
	sp.vips = nil
}

// freeVIPs ends one use of each.
func (s *State) freeVIPs(vips []*vip) {
	for _, v := range vips {
		if v.uses--; v.uses == 0 {
			v.idle = s.now
			s.idleVIPs = append(s.idleVIPs, v)
		}
	}
}

// expireVIPs takes the address from VIPs that nothing has used for long.
func (s *State) expireVIPs() {
	for len(s.idleVIPs) > 0 {
		v := s.idleVIPs[0]
		if v.uses == 0 && s.vips[v.name] == v && s.now.Before(v.idle.Add(s.cfg.VIPKeep)) {
			return
		}
		if v.uses == 0 && s.vips[v.name] == v {
			delete(s.vips, v.name)
			delete(s.vipAddrs, v.addr)
			s.dirty(Row{Kind: RowVIP, ID: v.name})
		}
		s.idleVIPs = s.idleVIPs[1:]
	}
}

func (s *State) vipWake() time.Time {
	if len(s.idleVIPs) == 0 {
		return time.Time{}
	}
	return s.idleVIPs[0].idle.Add(s.cfg.VIPKeep)
}

// addToAddr is the IPv4 address n after a.
func addToAddr(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}
