package placement

import (
	"maps"
	"slices"
)

// series is the instances of one version of an owner whose constraints look at where others of them are.
type series struct {
	key      string
	requests int
	by       map[int32]int32 // instances by machine
	tallies  []*tally        // one for each of the constraints
}

// tally is how many instances of a series are on machines with each value of a field, which decides who takes one more.
type tally struct {
	*constraint
	series  *series
	field   *field
	edition int             // of the field that all below is of
	by      map[int32]int32 // instances by value
	total   int32
	full    int32   // UNIQUE, MAX_PER: values with as many as may be
	having  []int32 // how many values, of those that open machines have, have so many instances
	least   int32   // the fewest of any of those
	allowed *set    // machines that take one more, where the values are many and so are those with instances
}

// seriesOf is the one of a key.
func (p *Pool) seriesOf(key string) *series {
	s := p.series[key]
	if s == nil {
		s = &series{key: key, by: map[int32]int32{}}
		p.series[key] = s
	}
	s.requests++
	return s
}

// tally is the one of a constraint.
func (s *series) tally(p *Pool, c *constraint) *tally {
	for _, t := range s.tallies {
		if t.Constraint == c.Constraint {
			return t
		}
	}
	t := &tally{constraint: c, series: s, field: p.field(c.Field), edition: -1}
	t.field.tallies = append(t.field.tallies, t)
	s.tallies = append(s.tallies, t)
	return t
}

// change notes that machine i has n more instances, or fewer.
func (s *series) change(i, n int32) {
	count(s.by, i, n)
	for _, t := range s.tallies {
		if v := t.field.at(i); v >= 0 && t.current() {
			t.change(v, n)
		}
	}
}

// current reports whether what is counted is of the values that machines have now.
func (t *tally) current() bool { return t.edition == t.field.edition }

// recount begins anew if machines changed their values.
func (t *tally) recount() {
	if t.current() {
		return
	}
	t.edition, t.by, t.total, t.full, t.least, t.having, t.allowed = t.field.edition, map[int32]int32{}, 0, 0, 0, t.having[:0], nil
	for i, n := range t.series.by { // sums, of which the order does not show
		if v := t.field.at(i); v >= 0 {
			t.count(v, n)
		}
	}
	t.have(0, 0)
	for v := range t.field.values {
		if t.field.values[v].open > 0 {
			t.have(t.by[int32(v)], 1)
		}
	}
	t.rise()
	t.renew()
}

// have notes that n more values have so many instances.
func (t *tally) have(count, n int32) {
	for int(count) >= len(t.having) {
		t.having = append(t.having, 0)
	}
	t.having[count] += n
}

// change notes that a value has n more instances, or fewer.
func (t *tally) change(v, n int32) {
	least := t.least
	was, now := t.count(v, n)
	if t.field.values[v].open > 0 {
		t.have(was, -1)
		t.have(now, 1)
		t.least = min(t.least, now)
		t.rise()
	}
	if t.least != least || t.allowed == nil || !t.many() {
		t.renew()
	} else {
		t.field.values[v].mark(t.allowed, t.takes(now))
	}
}

// count is change as far as the value itself goes.
func (t *tally) count(v, n int32) (was, now int32) {
	was, now = count(t.by, v, n)
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

// rise brings the fewest up to what some value has.
func (t *tally) rise() {
	for int(t.least) < len(t.having)-1 && t.having[t.least] == 0 {
		t.least++
	}
}

// hold notes that a value got its first open machine, or lost its last.
func (t *tally) hold(v int32, in bool) {
	if !t.current() {
		return
	}
	n, least := t.by[v], t.least
	if in {
		t.have(n, 1)
		t.least = min(t.least, n)
	} else {
		t.have(n, -1)
	}
	if t.rise(); t.least != least {
		t.renew()
	}
}

// came notes that machine i is new, or has another value.
func (t *tally) came(i int32) {
	if t.current() && t.allowed != nil {
		t.allowed.put(i, t.allows(i))
	}
}

// many reports whether there are about as many values as machines, and instances on more than a few.
func (t *tally) many() bool {
	return t.field.held*manyMachines > t.field.machines && len(t.by)*onMany > t.field.machines
}

// renew makes the set of machines that take one more, if there has to be one.
func (t *tally) renew() {
	if t.allowed = nil; !t.many() {
		return
	}
	t.allowed = &set{}
	for v := range t.open {
		t.field.values[v].mark(t.allowed, true)
	}
}

// takes judges a value with so many instances.
func (t *tally) takes(count int32) bool {
	switch {
	case t.max > 0:
		return count < t.max
	case t.Operator == "GROUP_BY":
		return count <= t.least
	default: // CLUSTER
		return t.total == 0 || count > 0
	}
}

// open yields the values that take one more.
func (t *tally) open(yield func(int32) bool) {
	if t.Operator == "CLUSTER" && t.total > 0 {
		for _, v := range slices.Sorted(maps.Keys(t.by)) {
			if !yield(v) {
				return
			}
		}
		return
	}
	for v := range t.field.values {
		if t.takes(t.by[int32(v)]) && !yield(int32(v)) {
			return
		}
	}
}

// loose reports whether enough values take one more for machines to be asked one by one.
func (t *tally) loose() bool {
	open := t.field.held
	switch {
	case t.max > 0:
		open -= int(t.full)
	case t.Operator == "GROUP_BY":
		open = int(t.having[t.least])
	case t.total > 0:
		open = len(t.by)
	}
	return open*8 >= t.field.held
}

func (t *tally) allows(i int32) bool {
	t.recount()
	v := t.field.at(i)
	return v >= 0 && t.takes(t.by[v])
}

func (t *tally) narrow(q *search) {
	t.recount()
	q.masks = append(q.masks, &t.field.has)
	switch {
	case t.allowed != nil:
		q.masks = append(q.masks, t.allowed)
	case t.loose():
		q.asked = append(q.asked, t)
	default:
		q.tight = append(q.tight, t)
	}
}
