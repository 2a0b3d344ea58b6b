package check

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Outcome is the result of one check.
type Outcome struct {
	OK     bool
	Ignore bool   // says nothing either way
	Cause  string // why it is not OK, for people
	At     time.Time
}

// Next is the automaton of a check: where it stands after one more outcome for a task that runs since started, and
// whether that is worth telling. Told are every change of Known and Alive, and every MaxFailed-th consecutive failure,
// on which schedulers act: agents never end a task for its health.
func Next(c *kernel.Check, h kernel.Health, started time.Time, o Outcome) (kernel.Health, bool) {
	was := h
	switch {
	case o.Ignore:
		return h, false
	case o.OK:
		if h.First.IsZero() {
			h.First = o.At
		}
		h.Known, h.Alive, h.Failures, h.LastGood = true, true, 0, o.At
	case h.First.IsZero() && o.At.Before(started.Add(c.Grace)):
		h.LastBad, h.LastCause = o.At, o.Cause // it may still be getting ready
	default:
		h.Known = true
		h.Failures++
		h.LastBad, h.LastCause = o.At, o.Cause
		h.Alive = h.Alive && h.Failures < max(1, c.MaxFailed)
	}
	tell := h.Known != was.Known || h.Alive != was.Alive
	if h.Failures > was.Failures && c.MaxFailed > 0 && h.Failures%c.MaxFailed == 0 {
		tell = true
	}
	return h, tell
}
