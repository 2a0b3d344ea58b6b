package placement

// owner counts the instances of one owner, of all versions, by machine.
type owner struct {
	key      string
	requests int
	by       map[int32]int32

	// levels[n] has the machines with n instances; nil while instances are on few machines.
	levels  []*set
	leveled int32 // machines with lower numbers are on a level
}

// manyShare is the inverse of the share of machines from which on an owner has levels: one in 64.
const manyShare = 64

// owners has the counts of every owner with a request, by key.
type owners map[string]*owner

// of returns the counts of an owner, for one more request.
func (all owners) of(key string) *owner {
	o := all[key]
	if o == nil {
		o = &owner{key: key, by: map[int32]int32{}}
		all[key] = o
	}
	o.requests++
	return o
}

// addInstances adds n, which may be negative, to the instances on machine i. machines is how many there are.
func (o *owner) addInstances(i, n int32, machines int) {
	was, now := addCount(o.by, i, n)
	switch {
	case o.levels != nil:
		o.addMachines(machines)
		o.level(was).setMember(i, false)
		o.level(now).setMember(i, true)
	case len(o.by)*manyShare > machines:
		o.addMachines(machines)
		for i, n := range o.by { // sets, of which the order does not show
			o.level(0).setMember(i, false)
			o.level(n).setMember(i, true)
		}
	}
}

// addCount adds n instances at a machine or a value, and keeps no zeros.
func addCount(by map[int32]int32, at, n int32) (was, now int32) {
	was = by[at]
	if now = was + n; now > 0 {
		by[at] = now
	} else {
		delete(by, at)
	}
	return was, now
}

// addMachines puts machines that are new since the last call on the lowest level.
func (o *owner) addMachines(machines int) {
	for ; o.leveled < int32(machines); o.leveled++ {
		o.level(0).setMember(o.leveled, true)
	}
}

func (o *owner) level(n int32) *set {
	for len(o.levels) <= int(n) {
		o.levels = append(o.levels, &set{})
	}
	return o.levels[n]
}
