package queue

import (
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/spec"
)

// Key names an entry.
type Key struct{ Framework, Key string }

// Entry is instances of one spec that wait for a machine.
type Entry struct {
	Key
	Spec      *spec.Spec
	Instances []kernel.InstanceID // Place and Withdraw take some out
	Since     time.Time
	Tries     int

	Attend time.Time // when to look next for instances to preempt or a machine to keep
	From   int       // number of the agent from which on to look for instances to preempt

	queued   bool // in the queue
	fresh    bool // not tried since something was added
	backfill *Backfill
	refusal  kernel.Refusal
	unfit    bool      // no machine fits: the refusal is the pool's last answer
	asked    time.Time // when the pool gave it
}

// Backfill keeps free resources of a machine for one instance of an entry.
type Backfill struct {
	Agent   kernel.AgentID
	Until   time.Time
	Charged bool // against the quota as well
	Long    bool // for waiting long, not since others make way
}

// Queue keeps the entries.
type Queue struct {
	entries   map[Key]*Entry
	list      []*Entry // those that were tried, in the order of waiting since
	waiting   map[kernel.InstanceID]*Entry
	waits     map[string]int // instances, by framework
	fresh     []*Entry       // to be tried
	backfills int            // entries with a long one
	attend    time.Time      // when some entry is to be attended to; zero: never
	explained int            // refusals that the pool was asked for, until Done
}

// New returns an empty queue.
func New() *Queue {
	return &Queue{entries: map[Key]*Entry{}, waiting: map[kernel.InstanceID]*Entry{}, waits: map[string]int{}}
}

// All yields the entries of the queue, longest waiting first.
func (q *Queue) All(yield func(*Entry) bool) { slices.Values(q.list)(yield) }

// Get is the entry of a key, nil if nothing waits under it.
func (q *Queue) Get(k Key) *Entry { return q.entries[k] }

// Of is the entry in which an instance waits, nil if it does not.
func (q *Queue) Of(id kernel.InstanceID) *Entry { return q.waiting[id] }

// Len counts the instances that wait.
func (q *Queue) Len() int { return len(q.waiting) }

// Waits counts the instances of a framework that wait.
func (q *Queue) Waits(framework string) int { return q.waits[framework] }

// Add makes an instance wait in an entry, and the entry fresh. It reports false if the instance waits already.
func (q *Queue) Add(e *Entry, id kernel.InstanceID) bool {
	if q.waiting[id] != nil {
		return false
	}
	q.waiting[id] = e
	e.Instances = append(e.Instances, id)
	q.waits[e.Framework]++
	q.entries[e.Key] = e
	if !e.fresh {
		e.fresh = true
		q.fresh = append(q.fresh, e)
	}
	return true
}

// Place takes the first n instances of an entry out, to be placed.
func (q *Queue) Place(e *Entry, n int) []kernel.InstanceID {
	ids := e.Instances[:n:n]
	e.Instances = e.Instances[n:]
	for _, id := range ids {
		delete(q.waiting, id)
	}
	q.waits[e.Framework] -= n
	return ids
}

// Withdraw takes instances, nil for all, out of an entry and returns those that were in it; what is named twice is
// returned twice.
func (q *Queue) Withdraw(e *Entry, ids []kernel.InstanceID) []kernel.InstanceID {
	if ids == nil {
		ids = e.Instances
	}
	out := slices.DeleteFunc(slices.Clone(ids), func(id kernel.InstanceID) bool { return q.waiting[id] != e })
	before := len(e.Instances)
	for _, id := range out {
		delete(q.waiting, id)
	}
	e.Instances = slices.DeleteFunc(e.Instances, func(id kernel.InstanceID) bool { return q.waiting[id] != e })
	q.waits[e.Framework] -= before - len(e.Instances)
	return out
}

// Turn lists the entries to try, and counts the try: those in the queue too if all, else the fresh ones.
func (q *Queue) Turn(all bool) (tried []*Entry) {
	try := func(e *Entry) {
		if len(e.Instances) > 0 {
			e.Tries++
			tried = append(tried, e)
		}
	}
	if all {
		for _, e := range q.list {
			try(e)
		}
	}
	for _, e := range q.fresh {
		if !all || !e.queued {
			try(e)
		}
	}
	return tried
}

// EndTurn puts the fresh entries of which something waits still into the queue, to be attended to at the time that
// attend says.
func (q *Queue) EndTurn(attend func(*Entry) time.Time) {
	for _, e := range q.fresh {
		e.fresh = false
		switch {
		case e.queued:
		case len(e.Instances) == 0:
			delete(q.entries, e.Key)
		default:
			e.queued = true
			q.list = append(q.list, e)
			e.Attend = attend(e)
			q.attendAt(e.Attend)
		}
	}
	q.fresh = q.fresh[:0]
}

// Compact takes the entries in which nothing waits any more out of the queue and returns them; who had a backfill
// still has it.
func (q *Queue) Compact() (gone []*Entry) {
	empty := func(e *Entry) bool { return len(e.Instances) == 0 }
	if !slices.ContainsFunc(q.list, empty) {
		return nil
	}
	q.list = slices.DeleteFunc(q.list, func(e *Entry) bool {
		if empty(e) {
			e.queued = false
			delete(q.entries, e.Key)
			gone = append(gone, e)
		}
		return empty(e)
	})
	return gone
}

// Done ends a step: as many refusals may be explained again.
func (q *Queue) Done() { q.explained = 0 }
