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
