package timeline

import (
	"time"
)

// Epoch begins every simulation, by every clock in it.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Actor is a process that time passes for: an agent's, a master's, or nature itself. What is scheduled for an actor is
// lost when it dies and kept back while it is paused.
type Actor struct {
	Life    int  // rises with each death
	Paused  bool // stopped by a signal: it sees nothing and then everything at once
	backlog []func()
}

// Die ends the process: nothing that was scheduled for it happens any more, unless it is scheduled anew.
func (a *Actor) Die() {
	a.Life++
	a.Paused, a.backlog = false, nil
}

// occasion is something that will happen.
type occasion struct {
	who  *Actor
	life int
	do   func()
}

// due is an element of the heap, the time of an occasion: small and without pointers, since it moves a lot.
type due struct {
	at   time.Duration
	seq  uint64 // order of those at one time
	slot int32
}

func (d due) before(o due) bool { return d.at < o.at || d.at == o.at && d.seq < o.seq }

// Timeline is the virtual clock and all that is to come.
type Timeline struct {
	Now    time.Duration // since Epoch
	seq    uint64
	heap   []due
	slots  []occasion
	free   []int32
	Events int // that happened
}

// After schedules do for an actor, d from now.
func (t *Timeline) After(d time.Duration, who *Actor, do func()) {
	slot := int32(len(t.slots))
	if n := len(t.free); n > 0 {
		slot, t.free = t.free[n-1], t.free[:n-1]
	} else {
		t.slots = append(t.slots, occasion{})
	}
	t.slots[slot] = occasion{who, who.Life, do}
	t.seq++
	x := due{t.Now + max(d, 0), t.seq, slot}
	t.heap = append(t.heap, x)
	i := len(t.heap) - 1
	for ; i > 0 && x.before(t.heap[(i-1)/2]); i = (i - 1) / 2 {
		t.heap[i] = t.heap[(i-1)/2]
	}
	t.heap[i] = x
}

// pop takes the earliest occasion and makes its time now.
func (t *Timeline) pop() occasion {
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
	t.Now = first.at
	return o
}

// Next lets the next thing happen. It reports false when nothing is left before the deadline, at which time then
// stands.
func (t *Timeline) Next(deadline time.Duration) bool {
	for len(t.heap) > 0 && t.heap[0].at <= deadline {
		switch o := t.pop(); {
		case o.life != o.who.Life: // died with its process
		case o.who.Paused:
			o.who.backlog = append(o.who.backlog, o.do)
		default:
			t.Events++
			o.do()
			return true
		}
	}
	t.Now = max(t.Now, deadline)
	return false
}

// Resume lets a paused actor see all that it missed, at once and in order.
func (t *Timeline) Resume(a *Actor) {
	a.Paused = false
	for _, do := range a.backlog {
		t.After(0, a, do)
	}
	a.backlog = nil
}

// Wall is the time that clocks show.
func (t *Timeline) Wall() time.Time { return Epoch.Add(t.Now) }
