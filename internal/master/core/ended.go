package core

import "github.com/marinaos/marina/internal/kernel"

// ended remembers the last endedSlots*endedPerSlot instances of a framework that ended, as a ring of rows.
type ended struct {
	slots []endedRow
	turn  int64 // of the slot written to
	set   map[kernel.InstanceID]struct{}
}

func (s *State) endedOf(framework string) *ended {
	e := s.ended[framework]
	if e == nil {
		e = &ended{set: map[kernel.InstanceID]struct{}{}}
		s.ended[framework] = e
	}
	return e
}

func (e *ended) has(id kernel.InstanceID) bool {
	_, ok := e.set[id]
	return ok
}

// add remembers an id and returns the slot that changed.
func (e *ended) add(id kernel.InstanceID) int {
	if k := int(e.turn % endedSlots); k < len(e.slots) && len(e.slots[k].Groups) >= endedPerSlot {
		e.turn++
	}
	k := int(e.turn % endedSlots)
	e.grow(k)
	row := &e.slots[k]
	if row.Turn != e.turn || len(row.Groups) >= endedPerSlot {
		e.clear(k)
		row.Turn = e.turn
	}
	row.Groups = append(row.Groups, id)
	e.set[id] = struct{}{}
	return k
}

func (e *ended) load(k int, row endedRow) {
	if k >= endedSlots || len(row.Groups) > endedPerSlot {
		return
	}
	e.grow(k)
	e.slots[k] = row
	e.turn = max(e.turn, row.Turn)
	for _, id := range row.Groups {
		e.set[id] = struct{}{}
	}
}

func (e *ended) grow(k int) {
	for len(e.slots) <= k {
		e.slots = append(e.slots, endedRow{})
	}
}

func (e *ended) clear(k int) {
	for _, id := range e.slots[k].Groups {
		delete(e.set, id)
	}
	e.slots[k].Groups = nil
}

// remember keeps an instance that ended for those who ask what became of it.
func (s *State) remember(i *kernel.Record) {
	if len(s.past) < pastKept {
		s.past = append(s.past, i)
		return
	}
	s.past[s.pastNext] = i
	s.pastNext = (s.pastNext + 1) % pastKept
}
