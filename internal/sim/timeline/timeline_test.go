package timeline

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestThingsHappenByTimeAndThenAsTheyWereScheduled(t *testing.T) {
	var line Timeline
	var all Actor
	dice := NewDice(1)
	type thing struct {
		at time.Duration
		n  int
	}
	var got, want []thing
	for n := range 500 {
		x := thing{time.Duration(dice.IntN(20)) * time.Second, n}
		want = append(want, x)
		line.After(x.at, &all, func() {
			if line.Now != x.at {
				t.Errorf("thing %d: it is %v, want %v", x.n, line.Now, x.at)
			}
			got = append(got, x)
		})
	}
	slices.SortStableFunc(want, func(a, b thing) int { return int(a.at - b.at) })
	for line.Next(time.Hour) {
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if line.Events != len(want) || line.Now != time.Hour {
		t.Errorf("got %d events and time %v, want %d and the deadline", line.Events, line.Now, len(want))
	}
}

func TestNothingHappensToTheDeadAndToThePausedLater(t *testing.T) {
	var line Timeline
	var dead, paused Actor
	var got []string
	at := func(d time.Duration, who *Actor, what string) {
		line.After(d, who, func() { got = append(got, fmt.Sprint(what, " at ", line.Now)) })
	}
	at(1, &dead, "before death")
	at(2, &paused, "first")
	at(3, &paused, "second")
	dead.Die()
	at(4, &dead, "after death")
	paused.Paused = true
	for line.Next(10) {
	}
	line.Resume(&paused)
	for line.Next(20) {
	}
	if want := []string{"after death at 4ns", "first at 10ns", "second at 10ns"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	paused.Paused = true
	at(1, &paused, "missed")
	line.Next(40)
	paused.Die()
	line.Resume(&paused)
	if line.Next(50) {
		t.Error("what a paused actor missed happened after its death")
	}
}

func TestTracesDifferByEveryPartOfANote(t *testing.T) {
	type note struct {
		now              time.Duration
		who, what, which string
		a, b             int64
	}
	base := note{1, "m1", "sends %d of %d to", "a01", 2, 3}
	seen := map[uint64]note{}
	for _, n := range []note{base,
		{2, "m1", "sends %d of %d to", "a01", 2, 3}, {1, "m2", "sends %d of %d to", "a01", 2, 3},
		{1, "m1", "sent %d of %d to", "a01", 2, 3}, {1, "m1", "sends %d of %d to", "a02", 2, 3},
		{1, "m1", "sends %d of %d to", "a01", 3, 3}, {1, "m1", "sends %d of %d to", "a01", 2, 2}} {
		var out bytes.Buffer
		silent, loud := NewTrace(nil), NewTrace(&out)
		silent.Note(n.now, n.who, n.what, n.which, n.a, n.b)
		loud.Note(n.now, n.who, n.what, n.which, n.a, n.b)
		if silent.Hash != loud.Hash {
			t.Errorf("%v: got hash %x when it is read and %x when not", n, loud.Hash, silent.Hash)
		}
		if other, known := seen[loud.Hash]; known {
			t.Errorf("%v and %v: got one hash", n, other)
		}
		seen[loud.Hash] = n
		if n == base && out.String() != "          0s  m1        sends 2 of 3 to a01\n" {
			t.Errorf("got %q", out.String())
		}
	}
}
