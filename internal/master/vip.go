package master

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"
)

// vip is a named VIP and its address.
type vip struct {
	name string // "hello.marathon"
	addr netip.Addr
	uses int       // specs
	idle time.Time // since when it has none
}

// holdVIPs gives every named VIP of a spec an address and notes the use.
func (s *State) holdVIPs(sp *spec) error {
	for _, port := range sp.Ports() {
		for _, ask := range port.VIPs {
			if ask.Name == "" {
				if !s.cfg.VIPs.Contains(ask.Addr) { // rules for it would take what is meant for others
					s.dropVIPs(sp)
					return fmt.Errorf("VIP %s of %s: its address is not of the datacenter's range %s: %w", ask.Addr, sp.Owner, s.cfg.VIPs, errdefs.ErrInvalidArgument)
				}
				continue
			}
			v, err := s.namedVIP(ask.Name + "." + sp.Framework)
			if err != nil {
				s.dropVIPs(sp)
				return err
			}
			v.uses++
			sp.vips = append(sp.vips, v)
		}
	}
	return nil
}

// namedVIP finds or makes a VIP. Its address is its name's hash in the range, or the next that is free.
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
		if s.vipAddrs[addr] != nil {
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
	for _, v := range sp.vips {
		if v.uses--; v.uses == 0 {
			v.idle = s.now
			s.idleVIPs = append(s.idleVIPs, v)
		}
	}
	sp.vips = nil
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
