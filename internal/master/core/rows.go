package core

import (
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/store"
)

// Ops encodes rows as they are now, by row.Ops.
func (s *State) Ops(rows []row.Row) ([]store.Op, error) { return row.Ops(rows, s.value) }

// value returns the value of a row, nil when there should be none.
func (s *State) value(r row.Row) any {
	switch r.Kind {
	case row.Spec:
		if k, ok := s.specs.Stored(kernel.SpecID(r.ID)); ok {
			return k
		}
	case row.VIP:
		if addr := s.vips.Get(r.ID); addr.IsValid() {
			return row.Address{Addr: addr}
		}
	case row.Network:
		if s.subnets.Changed() {
			return row.Pool{Pool: s.subnets.Prefix()}
		}
	case row.Removed:
		if gone := s.removed.Row(kernel.AgentID(r.ID)); gone != nil {
			return gone
		}
	case row.Agent:
		if a := s.fleet.get(kernel.AgentID(r.ID)); a != nil {
			return row.Machine{Agent: *a.info, Subnet: a.subnet, Registered: a.registered, Reserved: a.reserved}
		}
	case row.Quota:
		if q, ok := s.capacity.quota.Quota(r.ID); ok {
			return q
		}
	case row.Reservation:
		if c := s.reservations.Get(r.ID); c != nil {
			return c.ReservationView
		}
	case row.Exposed:
		if value, ok := s.exposed.Row(r.ID); ok {
			return value
		}
	case row.Ended:
		if value, ok := s.ended.Row(r.ID, r.Chunk); ok {
			return value
		}
	case row.Assigned:
		if a := s.fleet.get(kernel.AgentID(r.ID)); a != nil && r.Chunk < len(a.chunks) && len(a.chunks[r.Chunk]) > 0 {
			assignments := make([]*kernel.Assignment, len(a.chunks[r.Chunk]))
			for k, i := range a.chunks[r.Chunk] {
				assignments[k] = new(i.Assignment())
			}
			return assignments
		}
	}
	return nil
}
