package core

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
)

// giveSubnet gives an agent a subnet of the pool, if it has none and there is one.
func (s *State) giveSubnet(a *agent) {
	if a.subnet.IsValid() {
		return
	}
	if a.subnet = s.freeSubnet(); a.subnet.IsValid() {
		s.subnets[a.subnet] = a.info.ID
	}
}

// giveSubnets gives the agents that joined while there was none a subnet, as far as there are some now, and tells them.
func (s *State) giveSubnets() {
	for _, a := range s.order {
		if a.subnet.IsValid() || a.broken != "" {
			continue
		}
		if s.giveSubnet(a); !a.subnet.IsValid() {
			return
		}
		s.pool.Set(a.machine())
		s.altered(a)
		s.dirty(Row{Kind: RowAgent, ID: string(a.info.ID)})
		s.outbox(a).sync = true
		s.capacityAppeared()
	}
}

// freeSubnet is a subnet of the pool that no agent has, invalid when all are given out. It goes round, so that one
// that was given back is given out again last.
func (s *State) freeSubnet() netip.Prefix {
	base, bits := s.cfg.Pool.Masked(), s.cfg.SubnetBits
	if !base.Addr().Is4() || bits < base.Bits() || bits > 29 {
		return netip.Prefix{}
	}
	all := 1 << (bits - base.Bits())
	if len(s.subnets) >= all {
		return netip.Prefix{}
	}
	for range all {
		p := netip.PrefixFrom(addToAddr(base.Addr(), uint32(s.subnetsFrom%all)<<(32-bits)), bits)
		s.subnetsFrom = (s.subnetsFrom + 1) % all
		if _, taken := s.subnets[p]; !taken {
			return p
		}
	}
	return netip.Prefix{}
}

// setPool changes the pool. Agents are told by a Sync.
func (s *State) setPool(ev SetPool) error {
	pool := ev.Pool.Masked()
	bad := func(format string, args ...any) error {
		return fmt.Errorf("pool %s: "+format+": %w", append(append([]any{ev.Pool}, args...), errdefs.ErrInvalidArgument)...)
	}
	switch {
	case !pool.IsValid() || !pool.Addr().Is4():
		return bad("it is no IPv4 prefix such as 10.128.0.0/12")
	case !contains(pool, s.base):
		return bad("it must have all of %s, the datacenter's pool since its first start", s.base)
	case pool.Bits() < 8:
		return bad("it is larger than a /8")
	case pool.Overlaps(s.cfg.VIPs):
		return bad("it overlaps the virtual addresses %s", s.cfg.VIPs)
	}
	for _, a := range s.order {
		if a.subnet.IsValid() && !contains(pool, a.subnet) {
			return bad("machine %s has subnet %s, which is not of it", a.info.Hostname, a.subnet)
		}
	}
	if pool == s.cfg.Pool.Masked() {
		return nil
	}
	s.usePool(pool)
	s.dirty(Row{Kind: RowNetwork, ID: poolRow})
	s.giveSubnets()
	for _, a := range s.order {
		if a.session != 0 {
			s.outbox(a).sync = true
		}
	}
	return nil
}

// poolRow is the id of the one row of RowNetwork.
const poolRow = "pool"

func (s *State) usePool(pool netip.Prefix) {
	s.cfg.Pool, s.pooled, s.subnetsFrom = pool, pool != s.base.Masked(), 0
}

// loadPool takes up a pool that was set. One that does not have what is configured now is another datacenter's.
func (s *State) loadPool(raw []byte) error {
	var row networkRow
	if err := json.Unmarshal(raw, &row); err != nil {
		return err
	}
	if !contains(row.Pool, s.base) {
		return fmt.Errorf("pool %s does not have all of %s, which is configured", row.Pool, s.base)
	}
	s.usePool(row.Pool)
	return nil
}

// contains reports whether all of inner is in outer.
func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Masked().Addr())
}

// Pool shows the pool of container addresses.
func (s *State) Pool() Pool {
	pool := s.cfg.Pool.Masked()
	return Pool{Pool: pool, Subnets: 1 << max(0, s.cfg.SubnetBits-pool.Bits()), Used: len(s.subnets)}
}

// Pool is the pool of container addresses as GET /net/v1/pool shows it.
type Pool struct {
	Pool    netip.Prefix `json:"pool"`
	Subnets int          `json:"subnets"` // of the size that machines get
	Used    int          `json:"used"`    // by machines
}
