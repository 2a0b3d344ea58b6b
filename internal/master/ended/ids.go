package ended

import "github.com/marinaos/marina/internal/kernel"

const (
	perSlot = 128 // ids in one row
	slots   = 256 // rows of one framework
)

// Row is the stored value of one slot of the ring.
type Row struct {
	Turn   int64               `json:"turn"` // rises from slot to slot
	Groups []kernel.InstanceID `json:"groups"`
}

// IDs keeps the last 32,768 ids of each framework that ended.
type IDs struct {
	rings map[string]*ring // by framework
}

type ring struct {
	slots []Row
	turn  int64 // of the slot written to
	set   map[kernel.InstanceID]struct{}
}

// Has reports whether an instance of a framework is known to have ended.
func (e *IDs) Has(framework string, id kernel.InstanceID) bool {
	r := e.rings[framework]
	if r == nil {
		return false
	}
	_, ok := r.set[id]
	return ok
}

// Add remembers an id, and returns the slot of which the row changed.
func (e *IDs) Add(framework string, id kernel.InstanceID) (slot int) {
	r := e.ring(framework)
	if k := int(r.turn % slots); k < len(r.slots) && len(r.slots[k].Groups) >= perSlot {
		r.turn++
	}
	k := int(r.turn % slots)
	r.grow(k)
	row := &r.slots[k]
	if row.Turn != r.turn || len(row.Groups) >= perSlot {
		r.clear(k)
		row.Turn = r.turn
	}
	row.Groups = append(row.Groups, id)
	r.set[id] = struct{}{}
	return k
}

// Row is the value of a slot, and whether there is one.
func (e *IDs) Row(framework string, slot int) (Row, bool) {
	if r := e.rings[framework]; r != nil && slot < len(r.slots) {
		return r.slots[slot], true
	}
	return Row{}, false
}

// Load takes up a slot's row. One that no ring has is ignored.
func (e *IDs) Load(framework string, slot int, row Row) {
	if slot >= slots || len(row.Groups) > perSlot {
		return
	}
	r := e.ring(framework)
	r.grow(slot)
	r.slots[slot] = row
	r.turn = max(r.turn, row.Turn)
	for _, id := range row.Groups {
		r.set[id] = struct{}{}
	}
}

func (e *IDs) ring(framework string) *ring {
	r := e.rings[framework]
	if r == nil {
		r = &ring{set: map[kernel.InstanceID]struct{}{}}
		if e.rings == nil {
			e.rings = map[string]*ring{}
		}
		e.rings[framework] = r
	}
	return r
}

func (r *ring) grow(k int) {
	for len(r.slots) <= k {
		r.slots = append(r.slots, Row{})
	}
}

func (r *ring) clear(k int) {
	for _, id := range r.slots[k].Groups {
		delete(r.set, id)
	}
	r.slots[k].Groups = nil
}
