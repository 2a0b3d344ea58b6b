package core

import (
	"github.com/marinaos/marina/internal/master/subnet"
)

// poolRow is the id of the one row of RowNetwork.
const poolRow = "pool"

// giveSubnet gives an agent a subnet of the pool, if it has none and there is one.
func (s *State) giveSubnet(a *agent) {
	if !a.subnet.IsValid() {
		a.subnet = s.subnets.Give(a.info.ID)
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

// setPool changes the pool. Agents are told by a Sync.
func (s *State) setPool(ev SetPool) error {
	if err := s.subnets.Check(ev.Pool, s.cfg.VIPs); err != nil {
		return err
	}
	for _, a := range s.order {
		if a.subnet.IsValid() && !subnet.Contains(ev.Pool.Masked(), a.subnet) {
			return subnet.Refused(ev.Pool, "machine %s has subnet %s, which is not of it", a.info.Hostname, a.subnet)
		}
	}
	if !s.subnets.Use(ev.Pool) {
		return nil
	}
	s.dirty(Row{Kind: RowNetwork, ID: poolRow})
	s.giveSubnets()
	for _, a := range s.order {
		if a.session != 0 {
			s.outbox(a).sync = true
		}
	}
	return nil
}

// Pool shows the pool of container addresses.
func (s *State) Pool() subnet.Usage { return s.subnets.Usage() }
