package placement

// shelves is how finely the index tells how free machines are: in steps of 1/64 of a machine, cpus and memory added up.
const shelves = 2*64 + 1

// index holds the open machines by how free they are, so that a single instance finds a good one without looking at all.
type index struct {
	shelf  [shelves][]int32
	cursor [shelves]int // where to look first, so that machines of one shelf take turns
	on     []int16      // shelf of each machine, -1 for none
	pos    []int32      // place on it
}

func (x *index) add() {
	x.on = append(x.on, -1)
	x.pos = append(x.pos, 0)
}

// move puts machine i on the shelf of its score, or on none.
func (x *index) move(i int32, score int64, open bool) {
	to := int16(-1)
	if open {
		to = int16(score >> 10)
	}
	from := x.on[i]
	if from == to {
		return
	}
	if from >= 0 {
		list := x.shelf[from]
		last := list[len(list)-1]
		list[x.pos[i]] = last
		x.pos[last] = x.pos[i]
		x.shelf[from] = list[:len(list)-1]
	}
	if x.on[i] = to; to >= 0 {
		x.pos[i] = int32(len(x.shelf[to]))
		x.shelf[to] = append(x.shelf[to], i)
	}
}

// best is the machine for one more instance: of those with the fewest of its owner one of the freest, -1 for none.
func (p *Pool) best(r *Request, tallies []tally) int32 {
	owner := p.owners[r.owner]
	floor := owner.least(len(p.machines))
	best, fewest := int32(-1), int32(0)
	for b := shelves - 1; b >= 0; b-- {
		list := p.index.shelf[b]
		at := p.index.cursor[b]
		for range list {
			if at >= len(list) {
				at = 0
			}
			i := list[at]
			at++
			count := owner.of(i)
			if best >= 0 && count >= fewest || !r.need.Fits(p.free[i]) || !p.allowed(tallies, i) || !p.fits(r, i) {
				continue
			}
			best, fewest = i, count
			if count <= floor {
				p.index.cursor[b] = at
				return best
			}
		}
	}
	return best
}

// of is how many instances are on machine i.
func (c *counts) of(i int32) int32 {
	if c == nil {
		return 0
	}
	return c.by[i]
}

// least is the smallest number of instances on any of n machines.
func (c *counts) least(n int) int32 {
	if c == nil || len(c.by) < n {
		return 0
	}
	for count, machines := range c.having {
		if count > 0 && machines > 0 {
			return int32(count)
		}
	}
	return 0
}

// change notes that machine i has n more instances, or fewer.
func (c *counts) change(i, n int32) {
	was := c.by[i]
	now := was + n
	for len(c.having) <= int(now) {
		c.having = append(c.having, 0)
	}
	if was > 0 {
		c.having[was]--
	}
	if c.total += int(n); now > 0 {
		c.having[now]++
		c.by[i] = now
	} else {
		delete(c.by, i)
	}
}
