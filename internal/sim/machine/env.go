package machine

import (
	"fmt"
	"time"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/sim/timeline"
)

// Env is shared by everything in one simulation: time, chance, the weather, and those who hear of what happens.
type Env struct {
	timeline.Timeline
	timeline.Trace
	Dice    timeline.Dice
	Weather Weather
	Plant   bug.Bug              // a mistake to make on purpose
	Pace    int                  // timers and faults last so much longer: 60 is Mesos's five minutes until unreachable
	Scarce  int64                // machines are so much smaller
	Some    *invariant.Sometimes // counts rare paths; nil: nobody does
	Judge   Judge
	Leader  func() Master // whom an agent dials; nil if nobody can be

	Err     error // the simulation cannot go on: something happened that no invariant speaks of
	serials int
}

// Judge sees what machines do.
type Judge interface {
	Made(*Agent, *Container)           // it came to be
	Seen(*Agent, *Container)           // a new agent process found it alive
	Ended(*Agent, *Container)          // its process ended
	Dialed(a *Agent, epoch int64)      // it has a session with a master of that epoch
	Connected(a *Agent, is bool)       // that is over, or begins
	Applied(a *Agent, epoch int64)     // a frame
	Hold(broken []invariant.Violation) // what a machine itself can tell
}

// Master is a process that says it leads, as its agents see it.
type Master interface {
	Name() string
	Process() *timeline.Actor
	Epoch() int64 // of the leadership it believes to have; 0: none
	Accept(*Link)
	Receive(*Link, kernel.Up)
	Lost(*Link) // it is over
}

// Note tells one thing that happened; see timeline.Trace.
func (e *Env) Note(who, what, which string, a, b int64) { e.Trace.Note(e.Now, who, what, which, a, b) }

// Reach counts a rare path.
func (e *Env) Reach(name string) { e.Some.Reached(name) }

// Slow is a time at the simulation's pace.
func (e *Env) Slow(d time.Duration) time.Duration { return d * time.Duration(e.Pace) }

// Serial returns a number that was never returned before.
func (e *Env) Serial() int {
	e.serials++
	return e.serials
}

// Fail ends the simulation: something happened that no invariant speaks of.
func (e *Env) Fail(format string, args ...any) {
	if e.Err == nil {
		e.Err = fmt.Errorf(format, args...)
		e.Note("world", "fails: ", e.Err.Error(), 0, 0)
	}
}
