package core

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
)

var zero = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func someAgent(id string) *agent { return &agent{info: &kernel.Agent{ID: kernel.AgentID(id)}} }

// TestAnAgentsRowsHaveWhatIsPlaced places and releases at random: an instance is in its chunk once, chunks are as full
// as they may be, and no chunk is begun while one before it takes another.
func TestAnAgentsRowsHaveWhatIsPlaced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := someAgent("a")
		var placed []*instance
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			if len(placed) > 0 && rapid.IntRange(0, 2).Draw(t, "release") == 0 {
				k := rapid.IntRange(0, len(placed)-1).Draw(t, "which")
				a.release(placed[k])
				placed = slices.Delete(placed, k, k+1)
			} else {
				i, room := &instance{agent: a}, a.openChunk()
				for k, c := range a.chunks[:min(room, len(a.chunks))] {
					if len(c) < instancesPerChunk && room != len(a.chunks)-1 {
						t.Fatalf("chunk %d takes another, and the next goes to %d of %d", k, room, len(a.chunks))
					}
				}
				a.place(i, room)
				placed = append(placed, i)
			}
			each := slices.Collect(a.each)
			if a.count != len(placed) || len(each) != len(placed) {
				t.Fatalf("%d are placed, kept as %d and in %d places", len(placed), a.count, len(each))
			}
			for _, i := range placed {
				if !slices.Contains(a.chunks[i.chunk], i) || len(a.chunks[i.chunk]) > instancesPerChunk {
					t.Fatalf("chunk %d has %d instances, or not the one that says so", i.chunk, len(a.chunks[i.chunk]))
				}
			}
		}
	})
}

// TestTheFleetKnowsWhoBelongsToIt adds, removes, opens and closes at random, and holds what is kept twice against each
// other.
func TestTheFleetKnowsWhoBelongsToIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFleet()
		serial := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			serial++
			switch step := rapid.IntRange(0, 3).Draw(t, "step"); {
			case step == 0 || len(f.order) == 0:
				a := someAgent(fmt.Sprint("a", serial))
				if a.reported = rapid.Bool().Draw(t, "reported"); !a.reported {
					f.missing++
				}
				f.add(a)
			case step == 1:
				a := rapid.SampledFrom(f.order).Draw(t, "agent")
				if a.session != 0 {
					f.close(a, zero)
				}
				f.remove(a, zero)
			default:
				a := rapid.SampledFrom(f.order).Draw(t, "agent")
				if a.session != 0 {
					f.close(a, zero)
				} else {
					f.open(a, &event.AgentUp{Session: event.SessionID(serial),
						Registration: kernel.Registration{Incarnation: fmt.Sprint("i", serial)}}, zero)
					f.report(a)
				}
			}
			sessions, missing := 0, 0
			for k, a := range f.order {
				if a.number != k || f.byID[a.info.ID] != a || a.session != 0 && f.sessions[a.session] != a ||
					len(a.replaced) > replacedKept {
					t.Fatalf("agent %s is number %d, kept as %d; session %d; %d replaced", a.info.ID, k, a.number, a.session,
						len(a.replaced))
				}
				if a.session != 0 {
					sessions++
				}
				if !a.reported {
					missing++
				}
			}
			if len(f.byID) != len(f.order) || len(f.sessions) != sessions || f.missing != missing {
				t.Fatalf("%d agents, kept as %d; %d sessions, kept as %d; %d missing, kept as %d", len(f.order), len(f.byID),
					sessions,
					len(f.sessions), missing, f.missing)
			}
		}
	})
}

func TestSilenceIsNoticedInTwoSteps(t *testing.T) {
	cfg := Config{Suspect: 2 * time.Second, Unreachable: 5 * time.Second, Grace: 10 * time.Second}
	f := newFleet()
	known, late := someAgent("known"), someAgent("late")
	f.add(known)
	f.add(late)
	f.missing = 2
	f.begin(zero)
	f.open(known, &event.AgentUp{Session: 1}, zero)
	f.report(known)
	f.hear(known, zero, cfg.Suspect)
	var silent []string
	check := func(after time.Duration) []string {
		silent = nil
		f.check(zero.Add(after), &cfg, func(a *agent) { silent = append(silent, string(a.info.ID)) })
		return silent
	}
	for _, tc := range []struct {
		after                time.Duration
		silent               []string
		suspect, away, ready bool // the known agent, and whether the view is complete
	}{
		{after: time.Second},
		{after: 2 * time.Second, silent: []string{"known"}, suspect: true},
		{after: 3 * time.Second, suspect: true},
		{after: 5 * time.Second, silent: []string{"known"}, suspect: true, away: true},
		{after: 10 * time.Second, silent: []string{"late"}, suspect: true, away: true, ready: true},
		{after: 20 * time.Second, suspect: true, away: true, ready: true},
	} {
		got := check(tc.after)
		if !slices.Equal(got, tc.silent) || known.suspect != tc.suspect || known.away.IsZero() == tc.away ||
			f.complete != tc.ready {
			t.Errorf("after %v: got %v, suspect %v, away since %v, complete %v, want %+v", tc.after, got, known.suspect,
				known.away, f.complete, tc)
		}
	}
	if back := f.hear(known, zero.Add(time.Minute), cfg.Suspect); !back || known.suspect || !known.away.IsZero() {
		t.Errorf("heard again: got back %v, suspect %v, away since %v", back, known.suspect, known.away)
	}
	if again := f.hear(known, zero.Add(time.Minute), cfg.Suspect); again {
		t.Error("heard twice: got it back twice")
	}
}

func TestSilenceIsExcusedWhileNobodyListened(t *testing.T) {
	cfg := Config{Suspect: 2 * time.Second, Unreachable: 5 * time.Second, Grace: 10 * time.Second}
	f := newFleet()
	a := someAgent("a")
	f.add(a)
	f.begin(zero)
	f.open(a, &event.AgentUp{Session: 1}, zero)
	f.report(a)
	f.hear(a, zero, cfg.Suspect)
	f.excuse(4 * time.Second)
	f.check(zero.Add(5*time.Second), &cfg, func(a *agent) { t.Errorf("%s counts as silent", a.info.ID) })
}

func TestTheBrakeHoldsWhenManyAreAway(t *testing.T) {
	f := newFleet()
	for k := range 4 {
		f.add(someAgent(fmt.Sprint(k)))
	}
	f.order[0].away = zero
	if err := f.checkBrake(34); err != nil {
		t.Errorf("one of four: got %v", err)
	}
	f.order[1].away = zero
	if err := f.checkBrake(34); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("two of four: got %v, want it refused", err)
	}
}

func TestViewsShowWhatChangedAndKeepTheRest(t *testing.T) {
	f, v := newFleet(), newViews()
	for _, id := range []string{"a", "b", "c"} {
		f.add(someAgent(id))
	}
	shows := 0
	update := func() *Views {
		return v.update(len(f.order), func(a *agent) kernel.AgentView {
			shows++
			return kernel.AgentView{Agent: *a.info}
		}, func(framework string) []kernel.ReservationView {
			return []kernel.ReservationView{{Framework: framework}}
		})
	}
	for _, a := range f.order {
		v.alter(a)
		v.alter(a)
	}
	first := update()
	if shows != 3 || len(first.Machines) != 3 || update() != first {
		t.Errorf("%d were asked for, and %d shown, want each once and the same views after", shows, len(first.Machines))
	}
	b := f.order[1]
	v.alter(b)
	v.outdate("f")
	second := update()
	if shows != 4 || second.Machines[0] != first.Machines[0] || second.Machines[1] == first.Machines[1] ||
		len(second.Reservations["f"]) != 1 || len(first.Reservations) != 0 {
		t.Errorf("one changed: %d were asked for, got %+v", shows, second)
	}
	v.alter(b)
	v.remove(b)
	f.remove(b, zero)
	if third := update(); len(third.Machines) != 2 || third.Machines[1] != second.Machines[2] ||
		len(second.Machines) != 3 {
		t.Errorf("one removed: got %d machines", len(third.Machines))
	}
}
