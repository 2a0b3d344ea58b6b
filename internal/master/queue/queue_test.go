package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/allocator"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/placement"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func entry(key, role string, priority int) *Entry {
	k := kernel.Spec{Framework: "f", Owner: role + "/" + key, Role: role, Priority: priority}
	return &Entry{Key: Key{"f", key}, Spec: &spec.Spec{Spec: k, Need: kernel.Resources{MilliCPU: 1000}}, Since: start}
}

func ids(name string, n int) (out []kernel.InstanceID) {
	for k := range n {
		out = append(out, kernel.InstanceID(fmt.Sprint(name, ".", k)))
	}
	return out
}

func add(q *Queue, e *Entry, ids []kernel.InstanceID) {
	for _, id := range ids {
		q.Add(e, id)
	}
}

func never(*Entry) time.Time { return start.Add(time.Hour) }

// TestWhatIsAddedIsPlacedOrWithdrawn adds, places, withdraws and takes turns at random: an instance waits in one entry,
// what is taken out waits no more, and after a turn the queue has the entries in which something waits.
func TestWhatIsAddedIsPlacedOrWithdrawn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := New()
		waits := map[kernel.InstanceID]string{} // its entry
		serial := 0
		gone := func(ids []kernel.InstanceID, key string) {
			for _, id := range ids {
				if waits[id] != key {
					t.Fatalf("%s is taken out of %s, it waited in %q", id, key, waits[id])
				}
				delete(waits, id)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			key := fmt.Sprint("k", rapid.IntRange(0, 3).Draw(t, "key"))
			e := q.Get(Key{"f", key})
			switch step := rapid.IntRange(0, 4).Draw(t, "step"); {
			case step == 0:
				if e == nil {
					e = entry(key, "/r", 0)
				}
				serial++
				more := ids(fmt.Sprint("i", serial), rapid.IntRange(1, 3).Draw(t, "ids"))
				add(q, e, more)
				if q.Add(e, more[0]) {
					t.Fatalf("%s waits twice", more[0])
				}
				for _, id := range more {
					waits[id] = key
				}
			case step == 1 && e != nil:
				gone(q.Place(e, rapid.IntRange(0, len(e.Instances)).Draw(t, "place")), key)
			case step == 2 && e != nil:
				some := append(ids("unknown", 1), rapid.SliceOfN(rapid.SampledFrom(append(ids("other", 1), e.Instances...)), 0,
					3).Draw(t, "withdraw")...)
				slices.Sort(some)
				gone(q.Withdraw(e, slices.Compact(some)), key)
			case step == 3 && e != nil:
				gone(q.Withdraw(e, nil), key)
			case step == 4:
				all := rapid.Bool().Draw(t, "all")
				for _, e := range q.Turn(all) {
					if len(e.Instances) == 0 {
						t.Fatalf("%s has a turn with nothing that waits", e.Key.Key)
					}
				}
				q.EndTurn(never)
				q.Compact()
				listed := map[string]bool{}
				for e := range q.All {
					listed[e.Key.Key] = true
				}
				for id, key := range waits {
					if !listed[key] {
						t.Fatalf("%s waits in %s, which is not in the queue", id, key)
					}
				}
				for n := range 4 {
					key := fmt.Sprint("k", n)
					e := q.Get(Key{"f", key})
					if listed[key] != (e != nil) || e != nil && len(e.Instances) == 0 {
						t.Fatalf("%s is in the queue: %v, as entry %v", key, listed[key], e)
					}
				}
			}
			if q.Len() != len(waits) || q.Waits("f") != len(waits) {
				t.Fatalf("%d wait, kept as %d and %d", len(waits), q.Len(), q.Waits("f"))
			}
			for id, key := range waits {
				if e := q.Of(id); e == nil || e.Key.Key != key || !slices.Contains(e.Instances, id) {
					t.Fatalf("%s waits in %v, want %s", id, e, key)
				}
			}
		}
	})
}

func TestFreshEntriesAreTriedOnceByThemselves(t *testing.T) {
	q := New()
	old := entry("old", "/r", 0)
	add(q, old, ids("old", 1))
	q.Turn(false)
	q.EndTurn(never)
	fresh := entry("fresh", "/r", 0)
	add(q, fresh, ids("fresh", 1))
	if got := q.Turn(false); !slices.Equal(got, []*Entry{fresh}) {
		t.Errorf("the fresh only: got %v", got)
	}
	if got := q.Turn(true); !slices.Equal(got, []*Entry{old, fresh}) {
		t.Errorf("all: got %v", got)
	}
	q.EndTurn(never)
	if got := q.Turn(false); got != nil {
		t.Errorf("after its turn: got %v", got)
	}
	if old.Tries != 2 || fresh.Tries != 2 {
		t.Errorf("tries: got %d and %d, want 2 each", old.Tries, fresh.Tries)
	}
}

// TestRolesTakeTurnsAndPrioritiesGoFirst serves entries of two roles one instance at a time.
func TestRolesTakeTurnsAndPrioritiesGoFirst(t *testing.T) {
	for name, tc := range map[string]struct {
		entries []*Entry
		want    []string
	}{
		"one role": {[]*Entry{entry("low", "/a", 0), entry("high", "/a", 5)}, []string{"high", "high", "low", "low"}},
		"two": {[]*Entry{entry("a", "/a", 0), entry("b", "/b", 0), entry("first", "/b", 5)},
			[]string{"a", "first", "a", "first", "b", "b"}},
	} {
		q, quota := New(), &allocator.Tree{}
		quota.Machines(kernel.Resources{MilliCPU: 10_000}, kernel.Resources{MilliCPU: 10_000})
		for _, e := range tc.entries {
			add(q, e, ids(e.Key.Key, 2))
		}
		var got []string
		ServeFairly(q.Turn(false), quota, func(e *Entry, n int) int {
			for range q.Place(e, n) {
				got = append(got, e.Key.Key)
				quota.Charge(e.Spec.Role, e.Spec.Need, false)
			}
			return n
		})
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestABackfillIsCountedUntilItEnds(t *testing.T) {
	q := New()
	e := entry("e", "/r", 0)
	q.Keep(e, &Backfill{Agent: "a", Long: true})
	if q.LongBackfills() != 1 || e.Backfill().Agent != "a" {
		t.Errorf("kept: got %d, %v", q.LongBackfills(), e.Backfill())
	}
	if b := q.EndBackfill(e); b == nil || q.LongBackfills() != 0 || e.Backfill() != nil || q.EndBackfill(e) != nil {
		t.Errorf("ended: got %v and %d, want it once", b, q.LongBackfills())
	}
	if q.Keep(e, &Backfill{Agent: "a"}); q.LongBackfills() != 0 {
		t.Error("one for which others make way counts as long")
	}
}

func TestWhatIsDueComesByPriority(t *testing.T) {
	q := New()
	for _, e := range []*Entry{entry("late", "/r", 9), entry("b", "/r", 0), entry("a", "/r", 0), entry("high", "/r", 5)} {
		add(q, e, ids(e.Key.Key, 1))
	}
	at := map[string]time.Duration{"late": time.Minute, "b": time.Second, "a": 0, "high": time.Second}
	q.EndTurn(func(e *Entry) time.Time { return start.Add(at[e.Key.Key]) })
	if q.Wake() != start {
		t.Errorf("wake: got %v, want %v", q.Wake(), start)
	}
	names := func(due []*Entry) (out []string) {
		for _, e := range due {
			out = append(out, e.Key.Key)
			q.AttendTo(e, start.Add(time.Hour))
		}
		return out
	}
	now := start.Add(2 * time.Second)
	if diff := cmp.Diff([]string{"high", "a"}, names(q.Due(now, 2, time.Second))); diff != "" {
		t.Errorf("two of what is due (-want +got):\n%s", diff)
	}
	if got := q.Due(now, 2, time.Second); got != nil || q.Wake() != now.Add(time.Second) {
		t.Errorf("the rest: got %v, wake %v, want it a second later", got, q.Wake())
	}
	if diff := cmp.Diff([]string{"b"}, names(q.Due(now.Add(time.Second), 2, time.Second))); diff != "" {
		t.Errorf("the rest (-want +got):\n%s", diff)
	}
	if q.Wake() != start.Add(time.Minute) {
		t.Errorf("wake: got %v, want when the last is due", q.Wake())
	}
}

func TestAFewRefusalsAreExplainedInAStep(t *testing.T) {
	q, asked := New(), 0
	explain := func(*placement.Request) kernel.Refusal {
		asked++
		return kernel.Refusal{Agents: 7}
	}
	var all []*Entry
	for k := range explainMost + 1 {
		e := entry(fmt.Sprint(k), "/r", 0)
		e.FitNowhere()
		all = append(all, e)
		q.Refusal(e, start, 7, explain)
	}
	last := all[explainMost]
	if r := q.Refusal(last, start, 7, explain); asked != explainMost || len(r.Reasons) != 1 {
		t.Errorf("%d are explained, want %d; the next is told %v", asked, explainMost, r)
	}
	q.Done()
	if r := q.Refusal(last, start, 7, explain); asked != explainMost+1 || r.Agents != 7 {
		t.Errorf("in the next step: got %v", r)
	}
	if q.Refusal(last, start.Add(explainEvery-1), 7, explain); asked != explainMost+1 {
		t.Error("the same is asked again at once")
	}
	if q.Refusal(last, start.Add(explainEvery), 7, explain); asked != explainMost+2 {
		t.Error("the same is not asked again after a while")
	}
	last.Refuse(kernel.Refusal{Quota: "no"})
	if r := q.Refusal(last, start.Add(time.Hour), 7, explain); asked != explainMost+2 || r.Quota != "no" || last.Unfit() {
		t.Errorf("a refusal by the quota: got %v", r)
	}
}
