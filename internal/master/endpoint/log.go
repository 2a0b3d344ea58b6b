package endpoint

import (
	"iter"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// maxFrame is the most endpoints of one delta.
const maxFrame = 5000

// Standing is a task's state in the endpoints.
type Standing uint8

// The standings of a task.
const (
	Hidden  Standing = iota // not among them
	Named                   // running: it has names
	Ready                   // and gets new connections
	altered                 // must be sent again, as its agent's address changed
)

// Standings are the states of an instance's tasks in the newest endpoints, two bits each.
type Standings uint64

// Of returns a task's state.
func (s Standings) Of(task int) Standing { return Standing(s >> (2 * task) & 3) }

func (s *Standings) set(task int, as Standing) {
	*s = *s&^(3<<(2*task)) | Standings(as)<<(2*task)
}

// wanted is the state that a task should have, as its record is now.
func wanted(r *kernel.Record, task int) Standing {
	state, healthy := r.Task(task)
	switch {
	case r.Removed() || state != kernel.Running && state != kernel.Killing:
		return Hidden
	case healthy && r.Goal() == kernel.GoalRun && r.Away.IsZero():
		return Ready
	}
	return Named
}

// Instance is an instance as the log sees it.
type Instance interface {
	comparable
	Now() *kernel.Record
	Standings() *Standings
	Endpoint(task int) kernel.Endpoint // as it is now
}

// Log is the endpoints' newest version, how it came about, and what changed since.
type Log[I Instance] struct {
	keep    int // changes in log
	version uint64
	changes []task[I] // since version
	urgent  bool      // one of them takes an endpoint out
	flushed time.Time
	last    int         // changes that were flushed then
	log     []change[I] // how versions came about, oldest first
	oldest  uint64      // version from which the log leads to version
	logged  int         // tasks in log
	fresh   []*kernel.EndpointDelta
	all     []*kernel.EndpointDelta // of this version, once somebody asked for them
}

type task[I Instance] struct {
	instance I
	task     int
}

type change[I Instance] struct {
	to    uint64
	tasks []task[I]
}

// NewLog returns a log that keeps so many changes for readers that come back.
func NewLog[I Instance](keep int) *Log[I] { return &Log[I]{keep: keep, version: 1, oldest: 1} }

// Version is the newest version, and whether nothing changed since.
func (l *Log[I]) Version() (version uint64, settled bool) { return l.version, len(l.changes) == 0 }

// Update compares how the tasks of an instance should stand in the endpoints with how they do.
func (l *Log[I]) Update(i I) {
	standings, now := i.Standings(), i.Now()
	for k := range now.Len() {
		want, was := wanted(now, k), standings.Of(k)
		if was == want {
			continue
		}
		if want == Named && was == Ready { // about to stop, say: nobody may choose it from the moment its agent is told
			l.urgent = true
		}
		standings.set(k, want)
		l.all = nil
		l.changes = append(l.changes, task[I]{i, k})
	}
}

// Moved makes the next Update send the instance's endpoints again.
func (l *Log[I]) Moved(i I) {
	standings := i.Standings()
	for k := range i.Now().Len() {
		if standings.Of(k) != Hidden {
			standings.set(k, altered)
		}
	}
}

// Flush makes the next versions out of what changed, if pause is over since the last time or a change is urgent, and
// reports whether it did.
func (l *Log[I]) Flush(now time.Time, pause time.Duration) bool {
	if len(l.changes) == 0 || !l.urgent && now.Before(l.flushed.Add(pause)) {
		return false
	}
	l.flushed, l.urgent, l.last = now, false, len(l.changes)
	for len(l.changes) > 0 {
		n := min(len(l.changes), maxFrame)
		tasks := l.changes[:n:n]
		l.changes = l.changes[n:]
		l.version++
		l.log = append(l.log, change[I]{l.version, tasks})
		l.logged += n
		l.fresh = append(l.fresh, l.delta(l.version-1, tasks))
	}
	l.changes, l.all = nil, nil
	for l.logged > l.keep && len(l.log) > 0 {
		l.logged -= len(l.log[0].tasks)
		l.oldest = l.log[0].to
		l.log = l.log[1:]
	}
	return true
}

// Done forgets the deltas that readers of one step share.
func (l *Log[I]) Done() { l.fresh, l.all = nil, nil }

// Wake returns when Flush has something to do at the earliest, zero for never.
func (l *Log[I]) Wake(pause time.Duration) time.Time {
	if len(l.changes) == 0 {
		return time.Time{}
	}
	return l.flushed.Add(pause)
}

// Last is the number of changes in the last flush.
func (l *Log[I]) Last() int { return l.last }

// delta is the endpoints of tasks as they are now, each once.
func (l *Log[I]) delta(from uint64, tasks []task[I]) *kernel.EndpointDelta {
	d := &kernel.EndpointDelta{From: from, To: l.version}
	seen := make(map[task[I]]struct{}, len(tasks))
	for _, t := range tasks {
		if _, twice := seen[t]; twice {
			continue
		}
		seen[t] = struct{}{}
		if t.instance.Standings().Of(t.task) == Hidden {
			d.Remove = append(d.Remove, t.instance.Now().TaskID(t.task))
		} else {
			d.Set = append(d.Set, t.instance.Endpoint(t.task))
		}
	}
	return d
}

// Reader is a session's part of the log.
type Reader struct {
	baseline bool   // it holds the newest version
	holds    uint64 // the version it said it holds when it began, zero: none
}

// NewReader begins a session that holds a version of this log, zero for none.
func NewReader(holds uint64) Reader { return Reader{holds: holds} }

// For returns the deltas that bring a session to the newest version: the fresh ones, or those since what it holds, or
// all there is.
func (l *Log[I]) For(r *Reader, all iter.Seq[I]) []*kernel.EndpointDelta {
	if r.baseline {
		return l.fresh
	}
	r.baseline = true
	if r.holds == l.version {
		return nil
	}
	if r.holds >= l.oldest && r.holds < l.version {
		var tasks []task[I]
		for _, c := range l.log {
			if c.to > r.holds {
				tasks = append(tasks, c.tasks...)
			}
		}
		if len(tasks) <= maxFrame {
			return []*kernel.EndpointDelta{l.delta(r.holds, tasks)}
		}
	}
	return l.All(all)
}

// All is the whole set in as many parts as frames need. All who ask before something changes, or Done, share it.
func (l *Log[I]) All(all iter.Seq[I]) []*kernel.EndpointDelta {
	if l.all != nil {
		return l.all
	}
	parts := []*kernel.EndpointDelta{{To: l.version, Full: true}}
	for i := range all {
		standings := *i.Standings()
		for k := range i.Now().Len() {
			if standings.Of(k) == Hidden {
				continue
			}
			last := parts[len(parts)-1]
			if len(last.Set) == maxFrame {
				last.More = true
				last = &kernel.EndpointDelta{To: l.version, Full: true}
				parts = append(parts, last)
			}
			last.Set = append(last.Set, i.Endpoint(k))
		}
	}
	l.all = parts
	return parts
}
