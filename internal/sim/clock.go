package sim

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// epoch is when every simulation begins, by every clock in it.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// actor is a process that time passes for: an agent's, a master's, or nature itself. What is scheduled for an actor is lost
// when it dies and kept back while it is paused.
type actor struct {
	life    int  // rises with each death
	paused  bool // stopped by a signal: it sees nothing and then everything at once
	backlog []func()
}

func (a *actor) die() {
	a.life++
	a.paused, a.backlog = false, nil
}

// occasion is something that will happen.
type occasion struct {
	at   time.Duration
	seq  uint64 // order of those at one time
	who  *actor
	life int
	do   func()
}

type occasions []occasion

func (o occasions) Len() int { return len(o) }
func (o occasions) Less(i, k int) bool {
	return o[i].at < o[k].at || o[i].at == o[k].at && o[i].seq < o[k].seq
}
func (o occasions) Swap(i, k int) { o[i], o[k] = o[k], o[i] }
func (o *occasions) Push(x any)   { *o = append(*o, x.(occasion)) }
func (o *occasions) Pop() any {
	last := len(*o) - 1
	x := (*o)[last]
	(*o)[last] = occasion{}
	*o = (*o)[:last]
	return x
}

// timeline is the virtual clock and all that is to come.
type timeline struct {
	now    time.Duration
	seq    uint64
	queue  occasions
	events int // that happened
}

// after schedules do for an actor, d from now.
func (t *timeline) after(d time.Duration, who *actor, do func()) {
	t.seq++
	heap.Push(&t.queue, occasion{at: t.now + max(d, 0), seq: t.seq, who: who, life: who.life, do: do})
}

// next lets the next thing happen. It reports false when nothing is left before the deadline, at which time then stands.
func (t *timeline) next(deadline time.Duration) bool {
	for len(t.queue) > 0 && t.queue[0].at <= deadline {
		o := heap.Pop(&t.queue).(occasion)
		t.now = o.at
		switch {
		case o.life != o.who.life: // died with its process
			continue
		case o.who.paused:
			o.who.backlog = append(o.who.backlog, o.do)
			continue
		}
		t.events++
		o.do()
		return true
	}
	t.now = max(t.now, deadline)
	return false
}

// resume lets a paused actor see all that it missed, at once and in order.
func (t *timeline) resume(a *actor) {
	a.paused = false
	for _, do := range a.backlog {
		t.after(0, a, do)
	}
	a.backlog = nil
}

// wall is the time that clocks show.
func (t *timeline) wall() time.Time { return epoch.Add(t.now) }

// dice is the only source of chance.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0x6d6172696e61))} }

// chance is true with probability p.
func (d dice) chance(p float64) bool { return p > 0 && d.Float64() < p }

// between is a time from lo to hi.
func (d dice) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(d.Int64N(int64(hi-lo)+1))
}
