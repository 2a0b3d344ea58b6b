package endpoint

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fake is an instance of one or two tasks.
type fake struct {
	record    *kernel.Record
	standings Standings
}

func (f *fake) Now() *kernel.Record   { return f.record }
func (f *fake) Standings() *Standings { return &f.standings }
func (f *fake) Endpoint(task int) kernel.Endpoint {
	return kernel.Endpoint{Task: f.record.TaskID(task), Ready: f.standings.Of(task) == Ready}
}

func newFake(id string, tasks int) *fake {
	i := kernel.Instance{Assignment: kernel.Assignment{ID: kernel.InstanceID(id), Goal: kernel.GoalRun}}
	for k := range tasks {
		i.Statuses = append(i.Statuses, kernel.Status{Task: kernel.TaskID(fmt.Sprint(id, ".", k))})
	}
	return &fake{record: i.Record()}
}

func (f *fake) report(task int, state kernel.State) {
	statuses := f.record.Statuses()
	statuses[task].State = state
	f.record = f.record.Report(statuses)
}

func (f *fake) stop() {
	g := f.record.Assignment()
	g.Goal = kernel.GoalStop
	f.record = f.record.Reassign(&g)
}

// session is an agent that applies what it is told.
type session struct {
	reader  Reader
	version uint64
	ready   map[kernel.TaskID]bool
	parts   map[kernel.TaskID]bool
}

func (s *session) apply(t *rapid.T, deltas []*kernel.EndpointDelta) {
	for _, d := range deltas {
		switch {
		case !d.Full && d.From != s.version:
			t.Fatalf("a delta from %d to a session that holds %d", d.From, s.version)
		case d.Full && s.parts == nil:
			s.parts = map[kernel.TaskID]bool{}
		case !d.Full:
			s.parts = s.ready
		}
		for _, e := range d.Set {
			s.parts[e.Task] = e.Ready
		}
		for _, id := range d.Remove {
			delete(s.parts, id)
		}
		if !d.More {
			s.ready, s.version, s.parts = s.parts, d.To, nil
		}
	}
}

// TestWhoFollowsTheDeltasHoldsWhatThereIs changes instances at random, while sessions come, go and come back with what
// they hold: after each version all of them hold it.
func TestWhoFollowsTheDeltasHoldsWhatThereIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLog[*fake](rapid.IntRange(0, 8).Draw(t, "keep"))
		var all []*fake
		sessions := []*session{{ready: map[kernel.TaskID]bool{}}}
		now, serial := start, 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Second)
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				if len(all) == 0 || rapid.IntRange(0, 3).Draw(t, "new") == 0 {
					serial++
					all = append(all, newFake(fmt.Sprint("i", serial), rapid.IntRange(1, 2).Draw(t, "tasks")))
				}
				f := rapid.SampledFrom(all).Draw(t, "instance")
				switch rapid.IntRange(0, 5).Draw(t, "change") {
				case 0:
					f.stop()
				case 1:
					f.record = f.record.Remove()
					all = slices.DeleteFunc(all, func(o *fake) bool { return o == f })
				case 2:
					l.Moved(f)
				default:
					f.report(rapid.IntRange(0, f.record.Len()-1).Draw(t, "task"), rapid.SampledFrom([]kernel.State{kernel.Staging,
						kernel.Running}).Draw(t, "state"))
				}
				l.Update(f)
			}
			if rapid.Bool().Draw(t, "look") {
				l.All(slices.Values(all))
			}
			l.Flush(now, 0)
			if rapid.Bool().Draw(t, "session") {
				s := rapid.SampledFrom(sessions).Draw(t, "comes back")
				sessions = append(sessions, &session{reader: NewReader(s.version), version: s.version, ready: maps.Clone(s.ready)})
			}
			want := map[kernel.TaskID]bool{}
			for _, f := range all {
				for k := range f.record.Len() {
					if s := f.standings.Of(k); s != Hidden {
						want[f.record.TaskID(k)] = s == Ready
					}
				}
			}
			version, settled := l.Version()
			for k, s := range sessions {
				if k > 0 && k%7 == 0 { // it went away
					continue
				}
				s.apply(t, l.For(&s.reader, slices.Values(all)))
				if !settled || s.version != version || !maps.Equal(s.ready, want) {
					t.Fatalf("session %d holds version %d %v, want %d %v; settled %v", k, s.version, s.ready, version, want, settled)
				}
			}
			l.Done()
		}
	})
}

func TestChangesWaitForThePauseButStopsDoNot(t *testing.T) {
	l := NewLog[*fake](100)
	a, b := newFake("a", 1), newFake("b", 1)
	for _, f := range []*fake{a, b} {
		f.report(0, kernel.Running)
		l.Update(f)
	}
	if !l.Flush(start, time.Second) || l.Last() != 2 {
		t.Errorf("the first: %d changes are flushed, want 2", l.Last())
	}
	a.report(0, kernel.Staging)
	l.Update(a)
	if l.Flush(start.Add(time.Millisecond), time.Second) || l.Wake(time.Second) != start.Add(time.Second) {
		t.Errorf("within the pause: wake %v, want it to wait for its end", l.Wake(time.Second))
	}
	b.stop()
	l.Update(b)
	if !l.Flush(start.Add(2*time.Millisecond), time.Second) || !l.Wake(time.Second).IsZero() {
		t.Error("an instance that stops waits for the pause")
	}
}

func TestASetThatIsLargeComesInParts(t *testing.T) {
	l := NewLog[*fake](1)
	all := make([]*fake, maxFrame+1)
	for k := range all {
		all[k] = newFake(fmt.Sprint(k), 1)
		all[k].report(0, kernel.Running)
		l.Update(all[k])
	}
	l.Flush(start, 0)
	r := NewReader(0)
	parts := l.For(&r, slices.Values(all))
	if len(parts) != 2 || !parts[0].More || parts[1].More || len(parts[0].Set) != maxFrame || len(parts[1].Set) != 1 {
		t.Errorf("got %d parts, want two, of which the first has %d endpoints and says that there is more", len(parts),
			maxFrame)
	}
}
