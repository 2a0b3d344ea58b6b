package upkeep

import (
	"time"

	"github.com/marinaos/marina/internal/store"
)

// Shares of the quota, in percent.
const (
	TightPercent   = 70 // there is an alarm
	FullPercent    = 85 // people's writes are refused
	admitPercent   = 75 // and admitted again
	reclaimPercent = 90 // the database, what is free in it included, is made smaller while a leader works on it
	emptyPercent   = 20 // least share of the database that is free when it is made smaller at the start
)

// ReclaimPause is the least time between two Reclaims.
const ReclaimPause = 5 * time.Minute

// Level grades the room there is.
type Level int

// The levels.
const (
	Roomy Level = iota
	Tight       // an alarm asks for somebody to act
	Full        // what people ask for is refused
)

// String is the level in a log.
func (l Level) String() string { return [...]string{"roomy", "tight", "full"}[l] }

// judge is the level of a store that was at another one before.
func judge(st store.Status, before Level) Level {
	if st.NoSpace {
		return Full
	}
	switch used := percent(st.InUse, st.Quota); {
	case used >= FullPercent, used >= admitPercent && before == Full:
		return Full
	case used >= TightPercent:
		return Tight
	}
	return Roomy
}

// worthReclaiming reports whether the database should be rewritten: at the start, when it is no trouble, or while it is
// in use.
func worthReclaiming(st store.Status, start bool) bool {
	if st.Quota <= 0 {
		return false
	}
	free := percent(st.Bytes-st.InUse, st.Bytes)
	switch size := percent(st.Bytes, st.Quota); {
	case st.NoSpace:
		return true
	case start:
		return size >= TightPercent/2 && free >= emptyPercent
	default:
		return size >= reclaimPercent && free >= emptyPercent
	}
}

func percent(part, whole int64) int64 {
	if whole <= 0 {
		return 0
	}
	return part * 100 / whole
}
