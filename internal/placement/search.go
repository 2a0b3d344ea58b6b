package placement

import (
	"math"
	"math/bits"

	"github.com/marinaos/marina/internal/kernel"
)

// aggregate bounds the machines below a node: none has more free of any resource, none more points than most or fewer
// than least.
type aggregate struct {
	free        kernel.Resources
	most, least int64 // points: a freer machine has more
}

// noMachines is the aggregate of no machines.
var noMachines = aggregate{most: math.MinInt64, least: math.MaxInt64}

// updateAggregates recomputes machine i's aggregate and those of the blocks it is in, which count open machines only.
func (p *Pool) updateAggregates(i int32) {
	m := &p.machines[i]
	free := m.freeForAll()
	p.altered.setMember(i, true)
	p.totals.updateMachine(m, p.open.has(i), free)
	if int(i) < len(p.aggregates[0]) && !free.Fits(p.aggregates[0][i].free) {
		p.freed.setMember(i, true)
	}
	points := (share(free.MilliCPU, m.Total.MilliCPU)+share(free.Mem, m.Total.Mem))<<16 - int64(min(m.instances, 1<<16-1))
	now := aggregate{free, points, points}
	for level := range p.aggregates {
		sums := p.aggregates[level]
		for len(sums) <= int(i) {
			sums = append(sums, noMachines)
			p.aggregates[level] = sums
		}
		if level > 0 && sums[i] == now {
			return
		}
		sums[i] = now
		i >>= 6
		now = noMachines
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

// share returns free as a fraction of total in 1/65536, at most one whole.
func share(free, total int64) int64 {
	if free <= 0 || total <= 0 {
		return 0
	}
	for total > 1<<46 { // so that the product below fits
		free, total = free>>8, total>>8
	}
	return min(free<<16/total, 1<<16)
}

// search finds the machine for one more instance of a request.
type search struct {
	pool   *Pool
	r      *Request
	masks  []*set          // the machine is in all of them
	asked  []*tally        // and allowed by these
	tight  []*tally        // and by these, whose open values are searched one by one
	skip   map[int32]int32 // and has no instance here
	best   int32
	points int64 // of the best
	blocks int   // of 64 machines, visited
}

// packBlocks limits the blocks of 64 machines that are visited for the fullest machine.
const packBlocks = 64

// score is the best that any machine below s can reach: most points when spreading, least, negated, when packing.
func (q *search) score(s *aggregate) int64 {
	if q.r.pack {
		return -s.least
	}
	return s.most
}

// findMachine returns the machine for one more instance, -1 for none: of those with the fewest instances of its owner
// the freest, or, when packing, the fullest of those visited. Only machines in all sets of within count.
func (p *Pool) findMachine(r *Request, within ...*set) int32 {
	q := &p.scratch
	*q = search{pool: p, r: r, masks: append(append(q.masks[:0], &p.open), within...), asked: q.asked[:0],
		tight: q.tight[:0], best: -1, points: math.MinInt64}
	for _, rule := range r.rules {
		rule.narrowSearch(q)
	}
	o := r.owner
	if len(p.reserved) > 0 && r.reserved != kernel.ReservedNone {
		if q.searchReserved(); q.best >= 0 {
			return q.best
		}
	}
	if r.reserved == kernel.ReservedOnly {
		return -1
	}
	if r.pack {
		q.searchValues(q.tight)
		return q.best
	}
	if o.levels == nil {
		q.skip = o.by
		q.searchValues(q.tight)
		if q.skip = nil; q.best < 0 {
			q.searchOwned(o.by)
		}
		return q.best
	}
	o.addMachines(len(p.machines))
	for _, level := range o.levels {
		if level.n > 0 && q.best < 0 {
			q.searchSet(level, q.tight)
		}
	}
	return q.best
}

// searchOwned searches the machines that have instances of the owner.
func (q *search) searchOwned(by map[int32]int32) {
	for i, n := range by { // the result does not depend on the order
		points := q.score(&q.pool.aggregates[0][i])
		if q.best >= 0 && (n > by[q.best] || n == by[q.best] && (points < q.points || points == q.points && i > q.best)) ||
			!q.passes(i) {
			continue
		}
		q.best, q.points = i, points
	}
}

// passes reports whether machine i can take the instance.
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
	return q.r.need.Fits(q.pool.freeFor(q.r, i)) && q.passesUnindexed(i)
}

// passesUnindexed checks machine i for what neither sets nor aggregates tell: asked tallies, ports, address.
func (q *search) passesUnindexed(i int32) bool {
	for _, t := range q.asked {
		if !t.allows(i) {
			return false
		}
	}
	return q.skip[i] == 0 && q.pool.machines[i].hasPortsAndAddress(q.r)
}

// searchSet searches the machines of a set.
func (q *search) searchSet(s *set, tight []*tally) {
	q.masks = append(q.masks, s)
	q.searchValues(tight)
	q.masks = q.masks[:len(q.masks)-1]
}

// searchValues searches the machines of each open value of the first tally that also pass the others.
func (q *search) searchValues(tight []*tally) {
	if len(tight) == 0 {
		q.searchBelow(height-1, 0)
		return
	}
	for v := range tight[0].openValues {
		value := &tight[0].field.values[v]
		if value.set != nil {
			q.searchSet(value.set, tight[1:])
			continue
		}
		for _, i := range value.machines {
			if points := q.score(&q.pool.aggregates[0][i]); points > q.points && q.passes(i) {
				q.best, q.points = i, points
			}
		}
	}
}

// searchBelow searches the machines below one word of a level, the block with the best score first, until no block
// can beat the best machine found.
func (q *search) searchBelow(level int, w int32) {
	word := ^uint64(0)
	for _, m := range q.masks {
		word &= m.word(level, w)
	}
	sums := q.pool.aggregates[level]
	if level == 0 {
		q.blocks++
		for ; word != 0; word &= word - 1 {
			i := w<<6 + int32(bits.TrailingZeros64(word))
			if s := &sums[i]; q.score(s) > q.points && q.r.need.Fits(s.free) && q.passesUnindexed(i) {
				q.best, q.points = i, q.score(s)
			}
		}
		return
	}
	for word != 0 && !(q.r.pack && q.best >= 0 && q.blocks > packBlocks) {
		child, most := int32(-1), q.points
		for rest := word; rest != 0; rest &= rest - 1 {
			c := w<<6 + int32(bits.TrailingZeros64(rest))
			if s := &sums[c]; q.score(s) > most && q.r.need.Fits(s.free) {
				child, most = c, q.score(s)
			}
		}
		if child < 0 {
			return
		}
		word &^= 1 << (child & 63)
		if q.searchBelow(level-1, child); q.points == most {
			return // no other block has a better score
		}
	}
}
