package heap

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Headroom is the growth of a heap between two collections, beside a quarter of what is in use.
const Headroom = 32 << 20

// Tighten has the limit of the process's memory follow what is in use, from one collection to the next. A limit by
// GOMEMLIMIT stays.
func Tighten() {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		follow()
	}
}

// follow sets the limit, and does so again after the next collection: that is when something that nobody holds goes.
func follow() {
	debug.SetMemoryLimit(limit(read()))
	type token struct{ _ [4]uintptr }
	runtime.AddCleanup(new(token), func(struct{}) { follow() }, struct{}{})
}

// limit bounds the memory of a process: what its heap has in use and may grow by, and all else that the runtime
// takes.
func limit(live, total, heap uint64) int64 {
	return int64(live + live/4 + Headroom + total - min(heap, total))
}

// read is what was in use after the last collection, all that the runtime has, and of it the heap, in bytes. Holes
// between what is in use are no part of the heap here: the runtime counts them as taken, and would collect without
// pause for a limit that does not.
func read() (live, total, heap uint64) {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	for _, part := range s[2:] {
		heap += part.Value.Uint64()
	}
	return s[0].Value.Uint64(), s[1].Value.Uint64(), heap
}
