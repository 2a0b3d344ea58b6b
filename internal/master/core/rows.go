package core

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/store"
)

// RowKind is a table of the master's.
type RowKind uint8

// The tables, in the order in which a step's puts are written when they do not fit into one transaction: what is
// written first never refers to what comes later, so that every prefix of them is a state that can be loaded.
const (
	RowSpec        RowKind = iota + 1 // kernel/specs/<id>: a kernel.Spec, while anything is made from it
	RowVIP                            // kernel/vips/<name>: a named VIP's address
	RowNetwork                        // kernel/network/pool: the pool of container addresses, if it was changed
	RowRemoved                        // kernel/removed/<id>: a machine that was removed, and may not come back
	RowAgent                          // kernel/agents/<id>: a machine and its subnet
	RowQuota                          // kernel/quotas/<role>
	RowReservation                    // kernel/claims/<framework>/<name>: what outlives instances
	RowExposed                        // kernel/exposed/<framework>/<owner>: further ports of an owner's instances
	RowEnded                          // kernel/ended/<framework>/<slot>: ids that must not be launched again
	RowAssigned                       // kernel/assigned/<agent>/<chunk>: instances
)

var rowTables = [...]string{RowSpec: "specs", RowVIP: "vips", RowNetwork: "network", RowRemoved: "removed", RowAgent: "agents", RowQuota: "quotas", RowReservation: "claims", RowExposed: "exposed", RowEnded: "ended", RowAssigned: "assigned"}

// poolRow is the id of the one row of RowNetwork.
const poolRow = "pool"

// Rows is the prefix of all rows of a master, for store.Store.Snapshot.
var Rows = store.Prefix("kernel")

// Row names a row.
type Row struct {
	Kind  RowKind
	ID    string
	Chunk int // of RowEnded and RowAssigned
}

// Key is the row's key in the store.
func (r Row) Key() string {
	if r.Kind >= RowEnded {
		return store.Key("kernel", rowTables[r.Kind], r.ID, strconv.Itoa(r.Chunk))
	}
	return store.Key("kernel", rowTables[r.Kind], r.ID)
}

// Compare orders rows as they may be written.
func (r Row) Compare(o Row) int {
	return cmp.Or(cmp.Compare(r.Kind, o.Kind), cmp.Compare(r.ID, o.ID), cmp.Compare(r.Chunk, o.Chunk))
}

func parseRow(key string) (Row, bool) {
	seg, err := store.Segments(key)
	if err != nil || len(seg) < 3 {
		return Row{}, false
	}
	for kind, table := range rowTables {
		if table == "" || table != seg[1] {
			continue
		}
		r := Row{Kind: RowKind(kind), ID: seg[2]}
		if r.Kind >= RowEnded && len(seg) == 4 {
			r.Chunk, err = strconv.Atoi(seg[3])
		}
		return r, err == nil && r.Chunk >= 0 && r.Key() == key
	}
	return Row{}, false
}

// The values of rows, as JSON. Specs are kernel's own type; instances are packed by kernel.PackAssignments.
type (
	agentRow struct {
		Agent      kernel.Agent          `json:"agent"`
		Subnet     netip.Prefix          `json:"subnet"`
		Registered time.Time             `json:"registered"`
		Reserved   []kernel.ReservedPart `json:"reserved,omitempty"`
	}
	networkRow struct {
		Pool netip.Prefix `json:"pool"`
	}
	removedRow struct {
		Hostname string    `json:"hostname"`
		Removed  time.Time `json:"removed"`
	}
	vipRow struct {
		Addr netip.Addr `json:"addr"`
	}
)

// Ops encodes rows as they are now. Rows of several steps may be encoded together: each once, however often it
// changed. The order is that of RowKind, with deletions last and in the opposite order, so that it may be cut into
// several transactions anywhere.
func (s *State) Ops(rows []Row) ([]store.Op, error) {
	ops, gone := make([]store.Op, 0, len(rows)), []Row(nil)
	for _, r := range rows {
		value := s.value(r)
		if value == nil {
			gone = append(gone, r)
			continue
		}
		raw, err := encode(value)
		if err != nil {
			return nil, fmt.Errorf("row %s: encode: %w", r.Key(), err)
		}
		ops = append(ops, store.Put(r.Key(), raw))
	}
	slices.SortStableFunc(gone, func(a, b Row) int { return cmp.Compare(b.Kind, a.Kind) }) // what refers to something goes before it
	for _, r := range gone {
		ops = append(ops, store.Delete(r.Key()))
	}
	return ops, nil
}

func encode(value any) ([]byte, error) {
	if groups, ok := value.([]*kernel.Assignment); ok {
		return kernel.PackAssignments(groups)
	}
	return json.Marshal(value)
}

// value is what a row holds, nil when there should be none.
func (s *State) value(r Row) any {
	switch r.Kind {
	case RowSpec:
		if k, ok := s.specs.Stored(kernel.SpecID(r.ID)); ok {
			return k
		}
	case RowVIP:
		if addr := s.vips.Get(r.ID); addr.IsValid() {
			return vipRow{addr}
		}
	case RowNetwork:
		if s.subnets.Changed() {
			return networkRow{s.subnets.Prefix()}
		}
	case RowRemoved:
		if gone := s.removed.rows[kernel.AgentID(r.ID)]; gone != nil {
			return gone
		}
	case RowAgent:
		if a := s.fleet.byID[kernel.AgentID(r.ID)]; a != nil {
			return agentRow{*a.info, a.subnet, a.registered, a.reserved}
		}
	case RowQuota:
		if q, ok := s.capacity.quota.Quota(r.ID); ok {
			return q
		}
	case RowReservation:
		if c := s.reservations.Get(r.ID); c != nil {
			return c.ReservationView
		}
	case RowExposed:
		if row, ok := s.exposed.Row(r.ID); ok {
			return row
		}
	case RowEnded:
		if row, ok := s.ended.Row(r.ID, r.Chunk); ok {
			return row
		}
	case RowAssigned:
		if a := s.fleet.byID[kernel.AgentID(r.ID)]; a != nil && r.Chunk < len(a.chunks) && len(a.chunks[r.Chunk]) > 0 {
			groups := make([]*kernel.Assignment, len(a.chunks[r.Chunk]))
			for k, i := range a.chunks[r.Chunk] {
				groups[k] = new(i.Assignment())
			}
			return groups
		}
	}
	return nil
}
