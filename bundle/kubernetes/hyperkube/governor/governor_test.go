package governor

import (
	"math"
	"testing"
)

func TestLimitNeverComesNearTheLiveHeap(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ allowed, live, want int64 }{
		{0, 100 * mib, math.MaxInt64},
		{512 * mib, 0, 512 * mib},
		{512 * mib, 120 * mib, 512 * mib},
		{512 * mib, 500 * mib, 700 * mib},
	} {
		if got := Limit(c.allowed, c.live); got != c.want {
			t.Errorf("Limit(%d, %d) = %d, want %d", c.allowed, c.live, got, c.want)
		}
	}
}

func TestProcessIsWhatItWasForAWhile(t *testing.T) {
	var p Pace
	for i, c := range []struct {
		collections uint64
		busy        bool
	}{
		{18, false}, {5, false}, {3, false}, {1, false}, // it starts
		{0, false}, {9, false}, {9, false}, {9, false}, {9, true}, // load
		{1, true}, {0, true}, {0, true}, {0, true}, {2, true}, {9, true}, // some of it
		{0, true}, {0, true}, {0, true}, {0, false}, {0, false}, {2, false},
	} {
		if got := p.Next(c.collections); got != c.busy {
			t.Errorf("period %d, %d collections: busy %v, want %v", i, c.collections, got, c.busy)
		}
	}
}
