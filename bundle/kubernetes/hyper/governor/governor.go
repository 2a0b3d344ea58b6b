// Package governor keeps a Go process that is mostly idle small.
//
// A low GOGC is what saves memory: the heap may outgrow what is alive by that percentage before it is collected. A soft
// memory limit saves nothing more and can ruin everything: near the live heap it makes Go collect without end (a limit of
// 160 MiB on an idle control plane that settles at 165 by itself burnt most of a core). So the limit is for bursts alone,
// well above the heap, and moves out of the way of a heap that lives and grows: the process then dies of its cgroup's
// limit, which names the reason, rather than of fever.
package governor

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	distance = 1.4 // the limit's least multiple of the live heap; what GOGC=40 asks for anyway
	period   = 5 * time.Second
	settled  = 20 * time.Second // after a start, garbage of starting goes back to the machine at once
)

// Limit is the soft limit, in bytes, for a process allowed allowed bytes whose heap had live bytes alive after its last
// collection. Allowed 0 means no limit.
func Limit(allowed, live int64) int64 {
	if allowed <= 0 {
		return math.MaxInt64
	}
	return max(allowed, int64(distance*float64(live)))
}

// Run sets the process's GOGC and soft limit, and moves the limit with the live heap until ctx ends.
func Run(ctx context.Context, gogc int, allowed int64) {
	debug.SetGCPercent(gogc)
	debug.SetMemoryLimit(Limit(allowed, 0))
	start := time.AfterFunc(settled, debug.FreeOSMemory)
	defer start.Stop()
	if allowed <= 0 {
		<-ctx.Done()
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for set := Limit(allowed, 0); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			metrics.Read(live)
			if want := Limit(allowed, int64(live[0].Value.Uint64())); want != set {
				debug.SetMemoryLimit(want)
				set = want
			}
		}
	}
}
