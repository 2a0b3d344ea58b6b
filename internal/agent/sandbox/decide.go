package sandbox

import (
	"cmp"
	"slices"
	"time"
)

// Limits say which sandboxes of ended tasks are kept.
type Limits struct {
	Age   time.Duration // they are removed after
	Count int           // and the oldest of more than this many
	Free  int64         // and the oldest while less is free on the disk, in bytes
}

// box is the sandbox of an ended task.
type box struct {
	name  string
	ended time.Time
	bytes int64
}

// decide tells which sandboxes of ended tasks to remove: those past their age, the oldest above the count, and the
// oldest until enough is free.
func decide(l Limits, ended []box, now time.Time, free int64) []string {
	slices.SortFunc(ended, func(a, b box) int { return cmp.Or(a.ended.Compare(b.ended), cmp.Compare(a.name, b.name)) })
	var out []string
	for i, b := range ended {
		if now.Sub(b.ended) < l.Age && len(ended)-i <= l.Count && free >= l.Free {
			break
		}
		out = append(out, b.name)
		free += b.bytes
	}
	return out
}
