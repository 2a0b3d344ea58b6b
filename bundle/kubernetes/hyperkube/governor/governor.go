// Package governor keeps a Go process that is mostly idle small, and lets it be fast when it is not.
//
// GOGC is the growth of the heap over what is alive, in percent, at which it is collected. A low one saves memory, and
// costs next to nothing while little is allocated: an idle control plane with 20 instead of 40 uses 18 MiB less and 0.3
// % of a core more. The same setting under load collects several times a second. So there are two, and how often the
// heap was collected lately says which one is in force. The higher one is not much higher: a heap that was once large
// stays spread over more pages than it needs, and a control plane that started with 40 or 100 was 10 or 37 MiB larger
// for good.
//
// A soft memory limit saves nothing more and can ruin everything: near the live heap it makes Go collect without end (a
// limit of 160 MiB on an idle control plane that settles at 165 by itself burnt most of a core). So the limit is for
// bursts alone, well above the heap, and moves out of the way of a heap that lives and grows: the process then dies of
// its cgroup's limit, which names the reason, rather than of fever.
package governor

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	distance = 1.4 // the limit's least multiple of the live heap
	period   = 5 * time.Second
	often    = 3 // collections within a period that make it a busy one; one without any is quiet
	settled  = 4 // periods of one kind in a row after which the process is of that kind; starting takes less
)

// Limit is the soft limit, in bytes, for a process allowed allowed bytes whose heap had live bytes alive after its last
// collection. Allowed 0 means no limit.
func Limit(allowed, live int64) int64 {
	if allowed <= 0 {
		return math.MaxInt64
	}
	return max(allowed, int64(distance*float64(live)))
}

// Pace says whether a process is busy. Its zero value is idle.
type Pace struct {
	busy bool
	row  int // periods so far that speak for a change
}

// Next takes the number of collections of one more period, and reports whether the process is busy now.
func (p *Pace) Next(collections uint64) (busy bool) {
	if p.busy && collections == 0 || !p.busy && collections >= often {
		p.row++
	} else {
		p.row = 0
	}
	if p.row == settled {
		p.busy, p.row = !p.busy, 0
	}
	return p.busy
}

// Run governs the process until ctx ends: GOGC is gogc while it is busy and half of that while it is idle. What it does
// not need goes back to the machine after the start, and when it becomes idle.
func Run(ctx context.Context, gogc int, allowed int64) {
	debug.SetGCPercent(gogc / 2)
	debug.SetMemoryLimit(Limit(allowed, 0))
	start := time.AfterFunc(settled*period, debug.FreeOSMemory)
	defer start.Stop()
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(heap)
	pace, limit, cycles := Pace{}, Limit(allowed, 0), heap[1].Value.Uint64()
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(heap)
		if want := Limit(allowed, int64(heap[0].Value.Uint64())); want != limit {
			limit = want
			debug.SetMemoryLimit(limit)
		}
		was := pace.busy
		busy := pace.Next(heap[1].Value.Uint64() - cycles)
		switch {
		case busy && !was:
			debug.SetGCPercent(gogc)
		case was && !busy:
			debug.SetGCPercent(gogc / 2)
			debug.FreeOSMemory() // which collects
			metrics.Read(heap)
		}
		cycles = heap[1].Value.Uint64()
	}
}
