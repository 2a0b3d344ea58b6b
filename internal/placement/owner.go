package placement

// owner is how many instances of one owner, all versions, each machine has.
type owner struct {
	key      string
	requests int
	by       map[int32]int32

	// levels are the machines with none, one, two instances and so on, once they are on more than a few.
	levels []*set
	known  int32 // machines that are on a level
}

// onMany is the share of machines, one in so many, from which on an owner has levels.
const onMany = 64

// ownerOf is the one of a key.
func (p *Pool) ownerOf(key string) *owner {
	o := p.owners[key]
	if o == nil {
		o = &owner{key: key, by: map[int32]int32{}}
		p.owners[key] = o
	}
	o.requests++
	return o
}

// change notes that machine i of so many has n more instances, or fewer.
func (o *owner) change(i, n int32, machines int) {
	was, now := count(o.by, i, n)
	switch {
	case o.levels != nil:
		o.meet(machines)
		o.level(was).put(i, false)
		o.level(now).put(i, true)
	case len(o.by)*onMany > machines:
		o.meet(machines)
		for i, n := range o.by { // sets, of which the order does not show
			o.level(0).put(i, false)
			o.level(n).put(i, true)
		}
	}
}

// count adds n instances at a machine or a value, and keeps no zeros.
func count(by map[int32]int32, at, n int32) (was, now int32) {
	was = by[at]
	if now = was + n; now > 0 {
		by[at] = now
	} else {
		delete(by, at)
	}
	return was, now
}

// meet puts machines that came since on the lowest level.
func (o *owner) meet(machines int) {
	for ; o.known < int32(machines); o.known++ {
		o.level(0).put(o.known, true)
	}
}

func (o *owner) level(n int32) *set {
	for len(o.levels) <= int(n) {
		o.levels = append(o.levels, &set{})
	}
	return o.levels[n]
}
