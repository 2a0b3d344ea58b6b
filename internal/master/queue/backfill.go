package queue

import (
	"cmp"
	"slices"
	"time"
)

// Backfill returns the backfill of an entry, nil if it has none.
func (e *Entry) Backfill() *Backfill { return e.backfill }

// Keep gives an entry without one a backfill.
func (q *Queue) Keep(e *Entry, b *Backfill) {
	e.backfill = b
	if b.Long {
		q.backfills++
	}
}

// EndBackfill takes what Keep gave and returns it, nil if there is none.
func (q *Queue) EndBackfill(e *Entry) *Backfill {
	b := e.backfill
	e.backfill = nil
	if b != nil && b.Long {
		q.backfills--
	}
	return b
}

// LongBackfills counts the entries for which a machine is kept as they waited for long.
func (q *Queue) LongBackfills() int { return q.backfills }

// AttendTo makes an entry be attended to at a time.
func (q *Queue) AttendTo(e *Entry, at time.Time) {
	e.Attend = at
	q.attendAt(at)
}

func (q *Queue) attendAt(t time.Time) {
	if q.attend.IsZero() || t.Before(q.attend) {
		q.attend = t
	}
}

// Wake returns when Due has something at the earliest, zero for never.
func (q *Queue) Wake() time.Time {
	if len(q.list) == 0 {
		return time.Time{}
	}
	return q.attend
}

// Due lists at most so many entries whose time to be attended to has come, the higher priority first, then what is due
// longest. Whoever attends to one says when to look again, by AttendTo. The rest, if there are more, is due after a
// while.
func (q *Queue) Due(now time.Time, most int, rest time.Duration) []*Entry {
	if q.attend.IsZero() || now.Before(q.attend) {
		return nil
	}
	q.attend = time.Time{}
	due := slices.DeleteFunc(slices.Clone(q.list), func(e *Entry) bool {
		if now.Before(e.Attend) {
			q.attendAt(e.Attend)
			return true
		}
		return false
	})
	slices.SortStableFunc(due, func(a, b *Entry) int {
		return cmp.Or(cmp.Compare(b.Spec.Priority, a.Spec.Priority), a.Attend.Compare(b.Attend))
	})
	if len(due) > most {
		q.attendAt(now.Add(rest))
		due = due[:most]
	}
	return due
}
