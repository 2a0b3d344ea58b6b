package placement

import (
	"math"
	"math/bits"

	"github.com/marinaos/marina/internal/kernel"
)

// sum is what the machines below a node have at most: none has more free of anything, none more or fewer points.
type sum struct {
	free        kernel.Resources
	most, least int64 // points: more are more free
}

// none is the sum of no machines.
var none = sum{most: math.MinInt64, least: math.MaxInt64}

// refresh brings the sums up to date with machine i: its own, and those of the blocks it is in as far as it is open.
func (p *Pool) refresh(i int32) {
	m := &p.machines[i]
	free := m.public()
	p.altered.put(i, true)
	p.sumUp(i, free)
	if int(i) < len(p.sums[0]) && !free.Fits(p.sums[0][i].free) {
		p.freed.put(i, true)
	}
	points := (share(free.MilliCPU, m.Total.MilliCPU)+share(free.Mem, m.Total.Mem))<<16 - int64(min(m.instances, 1<<16-1))
	now := sum{free, points, points}
	for level := range p.sums {
		sums := p.sums[level]
		for len(sums) <= int(i) {
			sums = append(sums, none)
			p.sums[level] = sums
		}
		if level > 0 && sums[i] == now {
			return
		}
		sums[i] = now
		i >>= 6
		now = none
		for k := range sums[i<<6 : min(int(i)<<6+64, len(sums))] {
			s := &sums[int(i)<<6+k]
			if level == 0 && !p.open.has(i<<6+int32(k)) {
				continue
			}
			now.free.MilliCPU = max(now.free.MilliCPU, s.free.MilliCPU)
			now.free.Mem = max(now.free.Mem, s.free.Mem)
			now.free.Disk = max(now.free.Disk, s.free.Disk)
			now.free.GPUs = max(now.free.GPUs, s.free.GPUs)
			now.most = max(now.most, s.most)
			now.least = min(now.least, s.least)
		}
	}
}

// share is free as a fraction of total in 1/65536, at most one whole.
func share(free, total int64) int64 {
	if free <= 0 || total <= 0 {
		return 0
	}
	for total > 1<<46 { // so that the product below fits
		free, total = free>>8, total>>8
	}
	return min(free<<16/total, 1<<16)
}

// search looks for the machine for one more instance of a request.
type search struct {
	pool   *Pool
	r      *Request
	masks  []*set          // the machine is in all of them
	asked  []*tally        // and allowed by these
	tight  []*tally        // and by these, of which each value is searched by itself
	skip   map[int32]int32 // and has none of these
	best   int32
	points int64 // of the best
	blocks int   // of machines that were looked at
}

// packBlocks is how many blocks of 64 machines are looked at for the fullest machine.
const packBlocks = 64

// of is what is wanted most: those of the freest machine of a sum, or the fullest with its sign turned.
func (q *search) of(s *sum) int64 {
	if q.r.pack {
		return -s.least
	}
	return s.most
}

// find is the machine for one more instance, -1 for none: of those with the fewest of its owner the freest, or the fullest of
// those it looked at. It looks at the machines in all of within only.
func (p *Pool) find(r *Request, within ...*set) int32 {
	q := &p.scratch
	*q = search{pool: p, r: r, masks: append(append(q.masks[:0], &p.open), within...), asked: q.asked[:0], tight: q.tight[:0], best: -1, points: math.MinInt64}
	for _, rule := range r.rules {
		rule.narrow(q)
	}
	o := r.owner
	if len(p.reserved) > 0 && r.reserved != kernel.ReservedNone {
		if q.reservedFor(); q.best >= 0 {
			return q.best
		}
	}
	if r.reserved == kernel.ReservedOnly {
		return -1
	}
	if r.pack {
		q.among(q.tight)
		return q.best
	}
	if o.levels == nil {
		q.skip = o.by
		q.among(q.tight)
		if q.skip = nil; q.best < 0 {
			q.fewest(o.by)
		}
		return q.best
	}
	o.meet(len(p.machines))
	for _, level := range o.levels {
		if level.n > 0 && q.best < 0 {
			q.within(level, q.tight)
		}
	}
	return q.best
}

// fewest looks at the machines of an owner only.
func (q *search) fewest(by map[int32]int32) {
	for i, n := range by { // the best of them, whatever the order
		points := q.of(&q.pool.sums[0][i])
		if q.best >= 0 && (n > by[q.best] || n == by[q.best] && (points < q.points || points == q.points && i > q.best)) || !q.passes(i) {
			continue
		}
		q.best, q.points = i, points
	}
}

// passes reports whether machine i can be the one.
func (q *search) passes(i int32) bool {
	for _, m := range q.masks {
		if !m.has(i) {
			return false
		}
	}
	for _, t := range q.tight {
		if !t.allows(i) {
			return false
		}
	}
	return q.r.need.Fits(q.pool.freeFor(q.r, i)) && q.takes(i)
}

// takes asks machine i what is not in columns.
func (q *search) takes(i int32) bool {
	for _, t := range q.asked {
		if !t.allows(i) {
			return false
		}
	}
	return q.skip[i] == 0 && q.pool.hasOwn(q.r, i)
}

// within looks at the machines of a set.
func (q *search) within(s *set, tight []*tally) {
	q.masks = append(q.masks, s)
	q.among(tight)
	q.masks = q.masks[:len(q.masks)-1]
}

// among looks at the machines of each value that a tally has open, one tally after the other.
func (q *search) among(tight []*tally) {
	if len(tight) == 0 {
		q.below(height-1, 0)
		return
	}
	for v := range tight[0].open {
		value := &tight[0].field.values[v]
		if value.set != nil {
			q.within(value.set, tight[1:])
			continue
		}
		for _, i := range value.machines {
			if points := q.of(&q.pool.sums[0][i]); points > q.points && q.passes(i) {
				q.best, q.points = i, points
			}
		}
	}
}

// below looks at the machines below one word of a level, the most promising first, as long as they promise more than what is
// found.
func (q *search) below(level int, w int32) {
	word := ^uint64(0)
	for _, m := range q.masks {
		word &= m.word(level, w)
	}
	sums := q.pool.sums[level]
	if level == 0 {
		q.blocks++
		for ; word != 0; word &= word - 1 {
			i := w<<6 + int32(bits.TrailingZeros64(word))
			if s := &sums[i]; q.of(s) > q.points && q.r.need.Fits(s.free) && q.takes(i) {
				q.best, q.points = i, q.of(s)
			}
		}
		return
	}
	for word != 0 && !(q.r.pack && q.best >= 0 && q.blocks > packBlocks) {
		child, most := int32(-1), q.points
		for rest := word; rest != 0; rest &= rest - 1 {
			c := w<<6 + int32(bits.TrailingZeros64(rest))
			if s := &sums[c]; q.of(s) > most && q.r.need.Fits(s.free) {
				child, most = c, q.of(s)
			}
		}
		if child < 0 {
			return
		}
		word &^= 1 << (child & 63)
		if q.below(level-1, child); q.points == most {
			return // nothing promises more
		}
	}
}
