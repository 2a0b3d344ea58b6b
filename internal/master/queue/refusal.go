package queue

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/placement"
)

const (
	explainEvery = time.Second // between two explanations of why the same instances wait
	explainMost  = 16          // explanations between two steps, after the first of each
)

// Refuse notes why the instances of an entry wait, where the pool need not be asked.
func (e *Entry) Refuse(r kernel.Refusal) { e.refusal, e.unfit, e.asked = r, false, time.Time{} }

// FitNowhere notes that no machine took the instances of an entry: Refusal asks the pool why.
func (e *Entry) FitNowhere() { e.unfit = true }

// Unfit reports whether no machine took the instances when they were last tried.
func (e *Entry) Unfit() bool { return e.unfit }

// TriedEverywhere reports whether no machine took the instances before: only those on which something became free may
// take them now.
func (e *Entry) TriedEverywhere() bool { return e.unfit && e.queued }

// Refusal says why the instances of an entry wait. explain looks at every one of so many machines, and so is asked
// again only after a while, about a few entries in one step.
func (q *Queue) Refusal(e *Entry, now time.Time, machines int,
	explain func(*placement.Request) kernel.Refusal) kernel.Refusal {
	switch {
	case !e.unfit || !e.asked.IsZero() && now.Sub(e.asked) < explainEvery:
	case q.explained < explainMost:
		e.refusal, e.asked = explain(e.Spec.Request), now
		q.explained++
	case e.asked.IsZero():
		return kernel.Refusal{Agents: machines, Reasons: []kernel.Rejected{{Filter: "its needs", Agents: machines,
			Detail: "which lacks what is counted for a few at a time: ask again"}}}
	}
	return e.refusal
}
