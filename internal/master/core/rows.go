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
	"github.com/marinaos/marina/internal/master/ended"
	"github.com/marinaos/marina/internal/placement"
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
		if a := s.agents[kernel.AgentID(r.ID)]; a != nil {
			return agentRow{*a.info, a.subnet, a.registered, a.reserved}
		}
	case RowQuota:
		if q, ok := s.quota.Quota(r.ID); ok {
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
		if a := s.agents[kernel.AgentID(r.ID)]; a != nil && r.Chunk < len(a.chunks) && len(a.chunks[r.Chunk]) > 0 {
			groups := make([]*kernel.Assignment, len(a.chunks[r.Chunk]))
			for k, i := range a.chunks[r.Chunk] {
				groups[k] = new(i.Assignment())
			}
			return groups
		}
	}
	return nil
}

// Load fills an empty state with the master's rows. A row that cannot be read is returned among the problems and left
// alone; the agent it concerns is set aside: its tasks go on, and it gets neither sessions nor instances until the row
// is repaired.
func (s *State) Load(items []store.Item) (problems []error) {
	bad := func(r Row, why any) {
		problems = append(problems, fmt.Errorf("row %s: %v", r.Key(), why))
	}
	byKind := map[RowKind][]store.Item{}
	for _, item := range items {
		r, ok := parseRow(item.Key)
		if !ok {
			problems = append(problems, fmt.Errorf("row %s: not a row of the kernel's tables", item.Key))
			continue
		}
		byKind[r.Kind] = append(byKind[r.Kind], item)
	}
	for kind := RowVIP; kind <= RowAssigned; kind++ { // specs need the VIPs
		if kind == RowAgent {
			problems = append(problems, s.loadSpecs(byKind[RowSpec])...)
		}
		for _, item := range byKind[kind] {
			r, _ := parseRow(item.Key)
			if err := s.loadRow(r, item.Value); err != nil {
				bad(r, err)
				if kind == RowAgent || kind == RowAssigned {
					s.loadAgent(kernel.AgentID(r.ID)).broken = fmt.Sprintf("set aside: row %s cannot be read", r.Key())
				}
			}
		}
	}
	s.specs.FreeAllUnused()
	s.removed.sort()
	s.missing = len(s.order)
	return problems
}

// loadSpecs takes up the stored specs. The literal VIP addresses of all of them are held before the first is, so that
// a named VIP whose own row is lost is not given one.
func (s *State) loadSpecs(items []store.Item) (problems []error) {
	var found []kernel.Spec
	bad := func(key string, err error) { problems = append(problems, fmt.Errorf("row %s: %w", key, err)) }
	for _, item := range items {
		r, _ := parseRow(item.Key)
		var k kernel.Spec
		err := json.Unmarshal(item.Value, &k)
		if err == nil && k.ID != kernel.SpecID(r.ID) {
			err = fmt.Errorf("holds spec %q", k.ID)
		}
		if err != nil {
			bad(item.Key, err)
			continue
		}
		s.vips.HoldLiterals(&k)
		found = append(found, k)
	}
	for _, k := range found {
		if err := s.specs.Load(k); err != nil {
			bad(Row{Kind: RowSpec, ID: string(k.ID)}.Key(), err)
		}
	}
	for k := range found {
		s.vips.ReleaseLiterals(&found[k])
	}
	return problems
}

func (s *State) loadRow(r Row, raw []byte) error {
	switch r.Kind {
	case RowVIP:
		var row vipRow
		if err := json.Unmarshal(raw, &row); err != nil {
			return err
		}
		return s.vips.Load(r.ID, row.Addr)
	case RowNetwork:
		var row networkRow
		if err := json.Unmarshal(raw, &row); err != nil {
			return err
		}
		return s.subnets.LoadPrefix(row.Pool)
	case RowRemoved:
		var row removedRow
		if err := json.Unmarshal(raw, &row); err != nil {
			return err
		}
		s.removed.add(kernel.AgentID(r.ID), &row)
	case RowAgent:
		var row agentRow
		if err := json.Unmarshal(raw, &row); err != nil {
			return err
		}
		if s.removed.has(kernel.AgentID(r.ID)) { // only a part of its removal is durable: the rest follows
			s.dirty(r)
			return nil
		}
		row.Agent.ID = kernel.AgentID(r.ID)
		s.interner.Agent(&row.Agent)
		a := s.loadAgent(row.Agent.ID)
		a.info, a.registered, a.reserved = &row.Agent, row.Registered, row.Reserved
		a.refreshSite()
		if row.Subnet.IsValid() {
			if err := s.subnets.Load(row.Subnet, a.info.ID); err != nil {
				return err
			}
			a.subnet = row.Subnet
		}
		s.pool.Set(a.machine())
		for _, r := range a.reserved {
			s.pool.Reserve(a.info.ID, r.Role, r.Amount, kernel.Resources{})
		}
	case RowQuota:
		var q kernel.Quota
		if err := json.Unmarshal(raw, &q); err != nil {
			return err
		}
		q.Role = r.ID
		s.quota.Set(q)
	case RowReservation:
		return s.loadReservation(r, raw)
	case RowExposed:
		return s.loadExposed(r, raw)
	case RowEnded:
		var row ended.Row
		if err := json.Unmarshal(raw, &row); err != nil {
			return err
		}
		s.ended.Load(r.ID, r.Chunk, row)
	case RowAssigned:
		return s.loadAssigned(r, raw)
	}
	return nil
}

func (s *State) loadAgent(id kernel.AgentID) *agent {
	a := s.agents[id]
	if a == nil {
		a = &agent{info: &kernel.Agent{ID: id}}
		a.refreshSite()
		s.join(a)
	}
	return a
}

func (s *State) loadAssigned(r Row, raw []byte) error {
	groups, err := kernel.UnpackAssignments(raw)
	if err != nil {
		return err
	}
	if s.removed.has(kernel.AgentID(r.ID)) {
		s.loadOrphans(r, groups)
		return nil
	}
	a := s.agents[kernel.AgentID(r.ID)]
	if a == nil {
		return fmt.Errorf("agent %s has no row", r.ID)
	}
	for _, g := range groups {
		sp := s.specs.Get(g.Spec)
		if sp == nil {
			return fmt.Errorf("group %s: spec %s cannot be read", g.ID, g.Spec)
		}
		if s.instance(g.ID) != nil {
			return fmt.Errorf("group %s is placed twice", g.ID)
		}
		at := placement.Placement{Agent: a.info.ID, Address: g.Address, HostPorts: g.HostPorts}
		if sp.Reservation != nil {
			if at, err = s.loadHolder(&g, sp, a); err != nil {
				return fmt.Errorf("group %s: %w", g.ID, err)
			}
		}
		if err := s.pool.Take(sp.Request, at); err != nil {
			return fmt.Errorf("group %s: %w", g.ID, err)
		}
		i := s.newInstance(g, sp, a, r.Chunk, false)
		s.pool.Adjust(a.info.ID, sp.Fills(), i.need().Sub(sp.Need))
		if c := s.reservations.Of(&sp.Spec); c != nil {
			s.reservations.Hold(c, g.ID)
		}
	}
	return nil
}
