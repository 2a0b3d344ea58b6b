package placement

import (
	"maps"
	"slices"
)

// series counts the instances of one version of an owner, for constraints that depend on where the others are.
type series struct {
	key      string
	requests int
	by       map[int32]int32 // instances by machine
	tallies  []*tally        // one for each of the constraints
}

// tally counts the instances of a series by the values of a field. The counts decide which values take one more.
type tally struct {
	*constraint
	series    *series
	field     *field
	edition   int             // of the field when the counts below were taken
	by        map[int32]int32 // instances by value
	total     int32
	full      int32   // UNIQUE, MAX_PER: values with the maximum
	histogram []int32 // by number of instances: how many values of open machines have so many
	least     int32   // the smallest number in the histogram
	allowed   *set    // machines that take one more; nil unless needsSet
}

// seriesByKey has every series with a request.
type seriesByKey map[string]*series

// of returns the series of a key, for one more request.
func (all seriesByKey) of(key string) *series {
	s := all[key]
	if s == nil {
		s = &series{key: key, by: map[int32]int32{}}
		all[key] = s
	}
	s.requests++
	return s
}

// tallyFor returns the tally of a constraint.
func (s *series) tallyFor(p *Pool, c *constraint) *tally {
	for _, t := range s.tallies {
		if t.Constraint == c.Constraint {
			return t
		}
	}
	t := &tally{constraint: c, series: s, field: p.fieldFor(c.Field), edition: -1}
	t.field.tallies = append(t.field.tallies, t)
	s.tallies = append(s.tallies, t)
	return t
}

// addInstances adds n, which may be negative, to the instances on machine i.
func (s *series) addInstances(i, n int32) {
	addCount(s.by, i, n)
	for _, t := range s.tallies {
		if v := t.field.valueOf(i); v >= 0 && t.isCurrent() {
			t.addInstances(v, n)
		}
	}
}

// isCurrent reports whether no machine changed its value since the counts were taken.
func (t *tally) isCurrent() bool { return t.edition == t.field.edition }

// recount takes all counts anew if machines changed their values.
func (t *tally) recount() {
	if t.isCurrent() {
		return
	}
	t.edition, t.by, t.total, t.full, t.least, t.histogram, t.allowed = t.field.edition, map[int32]int32{}, 0, 0, 0,
		t.histogram[:0], nil
	for i, n := range t.series.by { // sums do not depend on the order
		if v := t.field.valueOf(i); v >= 0 {
			t.addToValue(v, n)
		}
	}
	t.addValues(0, 0)
	for v := range t.field.values {
		if t.field.values[v].open > 0 {
			t.addValues(t.by[int32(v)], 1)
		}
	}
	t.raiseLeast()
	t.rebuildAllowed()
}

// addValues adds n, which may be negative, to the number of values with count instances.
func (t *tally) addValues(count, n int32) {
	for int(count) >= len(t.histogram) {
		t.histogram = append(t.histogram, 0)
	}
	t.histogram[count] += n
}

// addInstances adds n, which may be negative, to the instances of a value.
func (t *tally) addInstances(v, n int32) {
	least := t.least
	was, now := t.addToValue(v, n)
	if t.field.values[v].open > 0 {
		t.addValues(was, -1)
		t.addValues(now, 1)
		t.least = min(t.least, now)
		t.raiseLeast()
	}
	if t.least != least || t.allowed == nil || !t.needsSet() {
		t.rebuildAllowed()
	} else {
		t.field.values[v].markMachines(t.allowed, t.accepts(now))
	}
}

// addToValue does the part of addInstances that concerns the value alone.
func (t *tally) addToValue(v, n int32) (was, now int32) {
	was, now = addCount(t.by, v, n)
	t.total += n
	switch {
	case t.max == 0:
	case was < t.max && now >= t.max:
		t.full++
	case was >= t.max && now < t.max:
		t.full--
	}
	return was, now
}

// raiseLeast raises least to the smallest number that some value has.
func (t *tally) raiseLeast() {
	for int(t.least) < len(t.histogram)-1 && t.histogram[t.least] == 0 {
		t.least++
	}
}

// setValueOpen follows that a value got its first open machine, or lost its last.
func (t *tally) setValueOpen(v int32, in bool) {
	if !t.isCurrent() {
		return
	}
	n, least := t.by[v], t.least
	if in {
		t.addValues(n, 1)
		t.least = min(t.least, n)
	} else {
		t.addValues(n, -1)
	}
	if t.raiseLeast(); t.least != least {
		t.rebuildAllowed()
	}
}

// updateMachine follows that machine i is new or has another value.
func (t *tally) updateMachine(i int32) {
	if t.isCurrent() && t.allowed != nil {
		t.allowed.setMember(i, t.allows(i))
	}
}

// needsSet reports whether values are about as many as machines, and instances on more than a few: then enumerating
// values costs more than a set.
func (t *tally) needsSet() bool {
	return t.field.openValues*manyMachines > t.field.machines && len(t.by)*manyShare > t.field.machines
}

// rebuildAllowed builds the set of machines that take one more, if it is needed.
func (t *tally) rebuildAllowed() {
	if t.allowed = nil; !t.needsSet() {
		return
	}
	t.allowed = &set{}
	for v := range t.openValues {
		t.field.values[v].markMachines(t.allowed, true)
	}
}

// accepts reports whether a value with count instances takes one more.
func (t *tally) accepts(count int32) bool {
	switch {
	case t.max > 0:
		return count < t.max
	case t.Operator == "GROUP_BY":
		return count <= t.least
	default: // CLUSTER
		return t.total == 0 || count > 0
	}
}

// openValues yields the values that take one more.
func (t *tally) openValues(yield func(int32) bool) {
	if t.Operator == "CLUSTER" && t.total > 0 {
		for _, v := range slices.Sorted(maps.Keys(t.by)) {
			if !yield(v) {
				return
			}
		}
		return
	}
	for v := range t.field.values {
		if t.accepts(t.by[int32(v)]) && !yield(int32(v)) {
			return
		}
	}
}

// mostlyOpen reports whether so many values take one more that checking machines one by one is cheap.
func (t *tally) mostlyOpen() bool {
	open := t.field.openValues
	switch {
	case t.max > 0:
		open -= int(t.full)
	case t.Operator == "GROUP_BY":
		open = int(t.histogram[t.least])
	case t.total > 0:
		open = len(t.by)
	}
	return open*8 >= t.field.openValues
}

func (t *tally) allows(i int32) bool {
	t.recount()
	v := t.field.valueOf(i)
	return v >= 0 && t.accepts(t.by[v])
}

func (t *tally) narrowSearch(q *search) {
	t.recount()
	q.masks = append(q.masks, &t.field.has)
	switch {
	case t.allowed != nil:
		q.masks = append(q.masks, t.allowed)
	case t.mostlyOpen():
		q.asked = append(q.asked, t)
	default:
		q.tight = append(q.tight, t)
	}
}
