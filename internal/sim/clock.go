package sim

import (
	"math/rand/v2"
	"time"
)

// epoch is when every simulation begins, by every clock in it.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// actor is a process that time passes for: an agent's, a master's, or nature itself. What is scheduled for an actor is
// lost when it dies and kept back while it is paused.
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
	who  *actor
	life int
	do   func()
}

// due is when an occasion happens: the heap's element, small and without pointers, since it moves a lot.
type due struct {
	at   time.Duration
	seq  uint64 // order of those at one time
	slot int32
}

func (d due) before(o due) bool { return d.at < o.at || d.at == o.at && d.seq < o.seq }

// timeline is the virtual clock and all that is to come.
type timeline struct {
	now    time.Duration
	seq    uint64
	heap   []due
	slots  []occasion
	free   []int32
	events int // that happened
}

// after schedules do for an actor, d from now.
func (t *timeline) after(d time.Duration, who *actor, do func()) {
	slot := int32(len(t.slots))
	if n := len(t.free); n > 0 {
		slot, t.free = t.free[n-1], t.free[:n-1]
	} else {
		t.slots = append(t.slots, occasion{})
	}
	t.slots[slot] = occasion{who, who.life, do}
	t.seq++
	x := due{t.now + max(d, 0), t.seq, slot}
	t.heap = append(t.heap, x)
	i := len(t.heap) - 1
	for ; i > 0 && x.before(t.heap[(i-1)/2]); i = (i - 1) / 2 {
		t.heap[i] = t.heap[(i-1)/2]
	}
	t.heap[i] = x
}

// pop takes the earliest occasion and makes its time now.
func (t *timeline) pop() occasion {
	first, last := t.heap[0], len(t.heap)-1
	x := t.heap[last]
	t.heap = t.heap[:last]
	for i := 0; last > 0; {
		c := 2*i + 1
		if c+1 < last && t.heap[c+1].before(t.heap[c]) {
			c++
		}
		if c >= last || !t.heap[c].before(x) {
			t.heap[i] = x
			break
		}
		t.heap[i], i = t.heap[c], c
	}
	o := t.slots[first.slot]
	t.slots[first.slot] = occasion{}
	t.free = append(t.free, first.slot)
	t.now = first.at
	return o
}

// next lets the next thing happen. It reports false when nothing is left before the deadline, at which time then
// stands.
func (t *timeline) next(deadline time.Duration) bool {
	for len(t.heap) > 0 && t.heap[0].at <= deadline {
		switch o := t.pop(); {
		case o.life != o.who.life: // died with its process
		case o.who.paused:
			o.who.backlog = append(o.who.backlog, o.do)
		default:
			t.events++
			o.do()
			return true
		}
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
