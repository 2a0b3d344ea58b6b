package heap

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestTheLimitFollowsWhatIsInUse(t *testing.T) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		t.Skip("GOMEMLIMIT is set")
	}
	t.Cleanup(func() { debug.SetMemoryLimit(math.MaxInt64) })
	Tighten()
	before := debug.SetMemoryLimit(-1)
	if before > 256<<20 {
		t.Fatalf("limit of a small process: got %d MiB", before>>20)
	}
	const size = 200 << 20
	held := make([]byte, size)
	for late := time.Now().Add(30 * time.Second); debug.SetMemoryLimit(-1) < before+size; {
		if time.Now().After(late) {
			t.Fatalf("limit: got %d MiB, want 200 MiB more than %d", debug.SetMemoryLimit(-1)>>20, before>>20)
		}
		runtime.GC()
		runtime.Gosched()
	}
	held[0] = 1
	runtime.KeepAlive(held)
	held = nil
	for late := time.Now().Add(30 * time.Second); debug.SetMemoryLimit(-1) > before+size/2; {
		if time.Now().After(late) {
			t.Fatalf("limit: got %d MiB after what was held is gone", debug.SetMemoryLimit(-1)>>20)
		}
		runtime.GC()
		runtime.Gosched()
	}
}

func TestAHeapWithHolesIsNotCollectedWithoutPause(t *testing.T) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		t.Skip("GOMEMLIMIT is set")
	}
	t.Cleanup(func() { debug.SetMemoryLimit(math.MaxInt64) })
	type thing struct {
		_ [11]uint64
		_ *thing // so that the collector looks into it
	}
	held := make([]*thing, 2_000_000)
	for k := range held {
		held[k] = &thing{}
	}
	for k := range held { // all but every third, so that no page is free
		if k%3 != 0 {
			held[k] = nil
		}
	}
	Tighten()
	runtime.GC()
	runtime.GC() // the limit follows the first
	const work = 100 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range work / (4 << 10) {
		sink = make([]byte, 4<<10)
	}
	runtime.ReadMemStats(&after)
	if n := after.NumGC - before.NumGC; n > work/Headroom+3 {
		t.Errorf("%d collections for %d MiB, want one for each %d MiB at most", n, work>>20, Headroom>>20)
	}
	runtime.KeepAlive(held)
}

var sink []byte

func TestALimitWithoutMuchInUseIsHeadroom(t *testing.T) {
	for _, c := range []struct {
		live, total, heap uint64
		want              int64
	}{
		{0, 0, 0, Headroom},
		{400 << 20, 500 << 20, 450 << 20, 500<<20 + Headroom + 50<<20},
		{0, 1, 2, Headroom}, // the parts were read at another moment
	} {
		if got := limit(c.live, c.total, c.heap); got != c.want {
			t.Errorf("limit(%d, %d, %d): got %d, want %d", c.live, c.total, c.heap, got, c.want)
		}
	}
}
