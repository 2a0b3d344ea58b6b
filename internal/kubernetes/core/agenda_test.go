package core

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

func TestTheAgendaHasWhoWasTouchedAndWhoseTimeHasCome(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	all := map[string]*Cluster{"a": nil, "b": nil, "c": nil}
	g := agenda{now: map[string]bool{}, later: map[string]time.Time{}}
	take := func(after time.Duration, due bool, want ...string) {
		t.Helper()
		now = now.Add(after)
		if got := g.due(all, now); got != due {
			t.Errorf("at %v: due %v, want %v", now, got, due)
		}
		if got := g.take(); !slices.Equal(got, want) {
			t.Errorf("at %v: got %v, want %v", now, got, want)
		}
	}
	take(0, true, "a", "b", "c") // the first time all
	take(0, false)
	g.touch("c")
	g.touch("b")
	g.touch("b")
	take(0, false, "b", "c")
	g.at("a", now.Add(3*time.Second))
	g.at("b", now.Add(5*time.Second))
	g.at("c", time.Time{}) // when something changes
	if got, want := g.next(), now.Add(3*time.Second); !got.Equal(want) {
		t.Errorf("next: got %v, want %v", got, want)
	}
	take(time.Second, false)
	g.touch("b")
	take(0, false, "b") // and not again at its time, unless it says so
	take(2*time.Second, true, "a")
	take(time.Hour, true, "a", "b", "c") // once a minute all, whatever was forgotten
	if got, want := g.next(), now.Add(sweep); !got.Equal(want) {
		t.Errorf("next, with nothing to do: got %v, want the next sweep at %v", got, want)
	}
}

func TestNumbersOfNetworksAreUniqueAlsoWhileOneCannotBeRead(t *testing.T) {
	s := NewState(kernel.PortRange{})
	all := s.clusters
	add := func(vni int) { all[fmt.Sprint(len(all))] = New(Row{VNI: vni}, nil) }
	for n := range 3 {
		if got, want := s.FreeVNI(), firstVNI+n; got != want {
			t.Errorf("number %d: got %d, want %d", n, got, want)
		}
		add(firstVNI + n)
	}
	delete(all, "1")
	if got, want := s.FreeVNI(), firstVNI+1; got != want {
		t.Errorf("with a gap: got %d, want %d", got, want)
	}
	all["unreadable"] = New(Row{}, nil)
	for n := range 2 {
		got := s.FreeVNI()
		if want := firstVNI + MaxClusters + n; got != want {
			t.Errorf("beside one that cannot be read: got %d, want %d", got, want)
		}
		add(got)
	}
}

func TestTroubleIsTriedAgainWithGrowingPauses(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for what, longest := range map[Step]time.Duration{ReleaseStep: maxPause, supplyStep: maxSupplyPause} {
		c := New(Row{Definition: Definition{Name: "a"}}, nil)
		if at := c.Again("node-1", what); !at.IsZero() {
			t.Errorf("%s: without trouble: %v, want at once", what, at)
		}
		pause := time.Duration(0)
		for n := range 40 {
			c.Settle("node-1", what, fmt.Errorf("refusal %d", n/20), now)
			next := c.Again("node-1", what).Sub(now)
			if next < pause || next > longest || n == 0 && next != firstPause {
				t.Fatalf("%s: pause %d is %v after %v", what, n, next, pause)
			}
			pause = next
		}
		if pause != longest {
			t.Errorf("%s: the last pause is %v, want %v", what, pause, longest)
		}
		if len(c.events) != 2 {
			t.Errorf("%s: %d events, want one for each reason: %v", what, len(c.events), c.events)
		}
		if c.Settle("node-1", what, nil, now); !c.Again("node-1", what).IsZero() {
			t.Errorf("%s: mended, and it waits", what)
		}
		c.Settle("node-1", what, fmt.Errorf("no"), now)
		if c.forget(c.member("node-1")); len(c.troubles) != 0 {
			t.Errorf("%s: a member that is gone has trouble: %v", what, c.troubles)
		}
	}
}

func TestEventsAreTheNewestAndNotRepeated(t *testing.T) {
	c := New(Row{Definition: Definition{Name: "a"}}, nil)
	for n := range 3 * MaxEvents {
		c.AddEvent(time.Time{}, "event %d", n/2)
	}
	if len(c.events) != MaxEvents || c.events[MaxEvents-1].Message != fmt.Sprint("event ", 3*MaxEvents/2-1) {
		t.Errorf("got %d events, the last %+v", len(c.events), c.events[len(c.events)-1])
	}
	for n, e := range c.events[1:] {
		if e.Message == c.events[n].Message {
			t.Fatalf("%q twice", e.Message)
		}
	}
}
