package core

import (
	"math"

	"github.com/marinaos/marina/internal/marathon"
)

// replaceOld ends instances of old versions as far as enough healthy ones remain, and returns how many may live at
// once.
//
// With n instances wanted, at least ceil(n*minimumHealthCapacity) stay healthy and at most
// floor(n*(1+maximumOverCapacity)) live; where these are equal nothing could ever move, and one more may live.
func (t *turn) replaceOld() int {
	least, most := bounds(t.n, t.def.UpgradeStrategy)
	t.old = t.endIf(t.old, "", func(i *Instance) bool { return i.Waiting })
	for _, i := range t.lost {
		if i.Version != t.def.Config() && !i.Stopping {
			t.d.end(i, "its version is replaced")
		}
	}
	spare := len(t.old) - least
	for _, i := range t.fresh {
		if i.healthy(t.def) {
			spare++
		}
	}
	// Those that are not healthy go first: a healthy one goes only if enough healthy ones remain.
	t.old = t.endSome(spare, t.old, "replaced by version "+t.def.Config())
	return most
}

// bounds are the least healthy and the most living instances while n are being replaced.
func bounds(n int, u marathon.UpgradeStrategy) (least, most int) {
	least = int(math.Ceil(float64(n)*u.MinimumHealthCapacity - rounding))
	most = int(math.Floor(float64(n)*(1+u.MaximumOverCapacity) + rounding))
	if least == most {
		most++
	}
	return least, most
}

// endSurplus ends what is above the goal's number: those that do least first.
func (t *turn) endSurplus() {
	if surplus := len(t.fresh) - t.n; surplus > 0 {
		t.fresh = t.endSome(surplus, t.fresh, "surplus")
	}
}
