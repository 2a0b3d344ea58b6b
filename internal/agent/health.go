package agent

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// outcome is the result of one check.
type outcome struct {
	ok     bool
	ignore bool   // says nothing either way
	cause  string // why it is not ok, for people
	at     time.Time
}

// nextHealth is the automaton of a check: where it stands after one more outcome for a task that runs since started, and
// whether that is worth telling. Told are every change of Known and Alive, and every MaxFailed-th consecutive failure,
// on which schedulers act: agents never end a task for its health.
func nextHealth(c *kernel.Check, h kernel.Health, started time.Time, o outcome) (kernel.Health, bool) {
	was := h
	switch {
	case o.ignore:
		return h, false
	case o.ok:
		if h.First.IsZero() {
			h.First = o.at
		}
		h.Known, h.Alive, h.Failures, h.LastGood = true, true, 0, o.at
	case h.First.IsZero() && o.at.Before(started.Add(c.Grace)):
		h.LastBad, h.LastCause = o.at, o.cause // it may still be getting ready
	default:
		h.Known = true
		h.Failures++
		h.LastBad, h.LastCause = o.at, o.cause
		h.Alive = h.Alive && h.Failures < max(1, c.MaxFailed)
	}
	tell := h.Known != was.Known || h.Alive != was.Alive
	if h.Failures > was.Failures && c.MaxFailed > 0 && h.Failures%c.MaxFailed == 0 {
		tell = true
	}
	return h, tell
}
