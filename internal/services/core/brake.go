package core

import (
	"math"
	"slices"
	"time"
)

// brake takes one from the allowance of a window, or says no and has the app looked at when there is one again.
func (t *turn) brake(used *[]time.Time) bool {
	p := &t.s.Policy
	*used = slices.DeleteFunc(*used, func(at time.Time) bool { return !at.Add(p.BrakeWindow).After(t.now) })
	if len(*used) >= max(p.BrakeFloor, int(math.Ceil(p.BrakeShare*float64(t.s.wanted())))) {
		t.f.wakeAt((*used)[0].Add(p.BrakeWindow))
		return false
	}
	*used = append(*used, t.now)
	return true
}

// wanted is the number of instances all apps should have. What exists would be no measure: replacements add to it.
func (s *State) wanted() (n int) {
	for _, a := range s.Apps {
		n += a.Instances
	}
	return n
}
