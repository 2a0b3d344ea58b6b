package row

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

// Kind is a table of the master's.
type Kind uint8

// The tables, in the order in which a step's puts are written when they do not fit into one transaction: what is
// written first never refers to what comes later, so that every prefix of them is a state that can be loaded.
const (
	Spec        Kind = iota + 1 // kernel/specs/<id>: a kernel.Spec, while anything is made from it
	VIP                         // kernel/vips/<name>: a named VIP's Address
	Network                     // kernel/network/pool: the Pool of container addresses, if it was changed
	Removed                     // kernel/removed/<id>: the Removal of a machine, which may not come back
	Agent                       // kernel/agents/<id>: a Machine
	Quota                       // kernel/quotas/<role>
	Reservation                 // kernel/claims/<framework>/<name>: what outlives instances
	Exposed                     // kernel/exposed/<framework>/<owner>: further ports of an owner's instances
	Ended                       // kernel/ended/<framework>/<slot>: ids that must not be launched again
	Assigned                    // kernel/assigned/<agent>/<chunk>: instances
)

var tables = [...]string{Spec: "specs", VIP: "vips", Network: "network", Removed: "removed", Agent: "agents",
	Quota:       "quotas",
	Reservation: "claims", Exposed: "exposed", Ended: "ended", Assigned: "assigned"}

// All is the prefix of all rows of a master, for store.Store.Snapshot.
var All = store.Prefix("kernel")

// PoolID is the id of the one row of Network.
const PoolID = "pool"

// Row names a row.
type Row struct {
	Kind  Kind
	ID    string
	Chunk int // of Ended and Assigned
}

// Key is the row's key in the store.
func (r Row) Key() string {
	if r.Kind >= Ended {
		return store.Key("kernel", tables[r.Kind], r.ID, strconv.Itoa(r.Chunk))
	}
	return store.Key("kernel", tables[r.Kind], r.ID)
}

// Compare orders rows as they may be written.
func (r Row) Compare(o Row) int {
	return cmp.Or(cmp.Compare(r.Kind, o.Kind), cmp.Compare(r.ID, o.ID), cmp.Compare(r.Chunk, o.Chunk))
}

// Parse reads a row's key.
func Parse(key string) (Row, bool) {
	seg, err := store.Segments(key)
	if err != nil || len(seg) < 3 {
		return Row{}, false
	}
	for kind, table := range tables {
		if table == "" || table != seg[1] {
			continue
		}
		r := Row{Kind: Kind(kind), ID: seg[2]}
		if r.Kind >= Ended && len(seg) == 4 {
			r.Chunk, err = strconv.Atoi(seg[3])
		}
		return r, err == nil && r.Chunk >= 0 && r.Key() == key
	}
	return Row{}, false
}

// Item is a row and its encoded value.
type Item struct {
	Row
	Value []byte
}

// Group reads the keys of items and groups them by kind, in the order in which they come. What is no row is returned
// among the problems.
func Group(items []store.Item) (byKind map[Kind][]Item, problems []error) {
	byKind = map[Kind][]Item{}
	for _, item := range items {
		r, ok := Parse(item.Key)
		if !ok {
			problems = append(problems, fmt.Errorf("row %s: not a row of the kernel's tables", item.Key))
			continue
		}
		byKind[r.Kind] = append(byKind[r.Kind], Item{r, item.Value})
	}
	return byKind, problems
}

// The values of rows, as JSON. The others are kernel's own types, or those of the package that keeps the table.
type (
	// Machine is the value of an Agent row.
	Machine struct {
		Agent      kernel.Agent          `json:"agent"`
		Subnet     netip.Prefix          `json:"subnet"`
		Registered time.Time             `json:"registered"`
		Reserved   []kernel.ReservedPart `json:"reserved,omitempty"`
	}
	// Pool is the value of the Network row.
	Pool struct {
		Pool netip.Prefix `json:"pool"`
	}
	// Removal is the value of a Removed row.
	Removal struct {
		Hostname string    `json:"hostname"`
		Removed  time.Time `json:"removed"`
	}
	// Address is the value of a VIP row.
	Address struct {
		Addr netip.Addr `json:"addr"`
	}
)

// Ops encodes rows as value says they are now, nil for one that should not be. Rows of several steps may be encoded
// together: each once, however often it changed. The order is that of rows, with deletions last and in the opposite
// order, so that it may be cut into several transactions anywhere.
func Ops(rows []Row, value func(Row) any) ([]store.Op, error) {
	ops, gone := make([]store.Op, 0, len(rows)), []Row(nil)
	for _, r := range rows {
		value := value(r)
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
	// what refers to something goes before it
	slices.SortStableFunc(gone, func(a, b Row) int { return cmp.Compare(b.Kind, a.Kind) })
	for _, r := range gone {
		ops = append(ops, store.Delete(r.Key()))
	}
	return ops, nil
}

// encode packs the instances of an Assigned row, and writes all else as JSON.
func encode(value any) ([]byte, error) {
	if instances, ok := value.([]*kernel.Assignment); ok {
		return kernel.PackAssignments(instances)
	}
	return json.Marshal(value)
}
