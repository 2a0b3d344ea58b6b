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
	having  []int32 // GROUP_BY: how many values, of those that machines have, have so many instances
	least   int32   // GROUP_BY: the fewest of any
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
	t.field.tallies++
	s.tallies = append(s.tallies, t)
	return t
}

// change notes that machine i has n more instances, or fewer.
func (s *series) change(i, n int32) {
	if s.by[i] += n; s.by[i] <= 0 {
		delete(s.by, i)
	}
	for _, t := range s.tallies {
		if v := t.field.of[i]; v >= 0 && t.edition == t.field.edition {
			t.change(v, n)
		}
	}
}

// recount begins anew if machines came or their values changed.
func (t *tally) recount() {
	if t.edition == t.field.edition {
		return
	}
	t.edition, t.by, t.total, t.full, t.least, t.having, t.allowed = t.field.edition, map[int32]int32{}, 0, 0, 0, t.having[:0], nil
	t.have(0, int32(t.field.held))
	for i, n := range t.series.by { // sums, of which the order does not show
		if v := t.field.of[i]; v >= 0 {
			t.change(v, n)
		}
	}
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
	was, least := t.by[v], t.least
	now := was + n
	if now > 0 {
		t.by[v] = now
	} else {
		delete(t.by, v)
	}
	t.total += n
	switch {
	case t.max > 0 && was < t.max && now >= t.max:
		t.full++
	case t.max > 0 && was >= t.max && now < t.max:
		t.full--
	case t.Operator == "GROUP_BY":
		t.have(was, -1)
		t.have(now, 1)
		t.least = min(t.least, now)
		for int(t.least) < len(t.having)-1 && t.having[t.least] == 0 {
			t.least++
		}
	}
	many := t.field.held*manyMachines > len(t.field.of) && len(t.by)*onMany > len(t.field.of)
	switch {
	case !many || t.least != least:
		t.allowed = nil
	case t.allowed != nil:
		t.field.values[v].mark(t.allowed, t.takes(now))
	}
	if many && t.allowed == nil {
		t.allowed = &set{}
		for v := range t.open {
			t.field.values[v].mark(t.allowed, true)
		}
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
	v := t.field.of[i]
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
