package kernel

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var moments = rapid.Custom(func(t *rapid.T) time.Time {
	if rapid.Bool().Draw(t, "none") {
		return time.Time{}
	}
	return time.Unix(0, rapid.Int64Range(-9e18, 9e18).Draw(t, "nanoseconds")).UTC()
})

func drawInstance(t *rapid.T) Instance {
	i := Instance{Assignment: Assignment{ID: InstanceID(rapid.String().Draw(t, "id")), Spec: "s",
		Placed: moments.Draw(t, "placed"), Goal: GoalRun, Why: rapid.String().Draw(t, "why")},
		Framework: "f", Owner: "/web", Version: "v", Agent: "a", Hostname: "a.example", Away: moments.Draw(t, "away"),
		Known: rapid.Bool().Draw(t, "known"), Removed: rapid.Bool().Draw(t, "removed")}
	if rapid.Bool().Draw(t, "stops") {
		i.Goal = GoalStop
	}
	switch rapid.IntRange(0, 2).Draw(t, "address") {
	case 1:
		i.Address = netip.MustParseAddr("10.1.2.3")
	case 2:
		i.Address = netip.MustParseAddr("2001:db8::1")
	}
	if rapid.Bool().Draw(t, "ports") {
		i.HostPorts = rapid.SliceOfN(rapid.Uint16(), 0, 3).Draw(t, "host ports")
	}
	if rapid.Bool().Draw(t, "resized") {
		i.Sizes = []Size{{Guarantee: Resources{MilliCPU: rapid.Int64().Draw(t, "cpus")}, Limit: Resources{Mem: Unlimited}}}
	}
	for k := range rapid.IntRange(0, 3).Draw(t, "tasks") {
		s := Status{Task: TaskID(fmt.Sprintf("%s._app.%d", i.ID, k)), Instance: i.ID, Seq: rapid.Uint64().Draw(t, "seq"),
			State:   State(rapid.IntRange(0, int(Gone)).Draw(t, "state")),
			Reason:  Reason(rapid.SampledFrom([]string{"", "exit", "unheard of"}).Draw(t, "reason")),
			Message: rapid.String().Draw(t, "message"),
			Time:    moments.Draw(t, "time"), Started: moments.Draw(t, "started"), PID: rapid.Int().Draw(t, "pid")}
		if rapid.Bool().Draw(t, "exits") {
			s.Exit = new(rapid.Int().Draw(t, "exit"))
		}
		if n := rapid.IntRange(-1, 2).Draw(t, "checks"); n >= 0 {
			s.Health = make([]Health, n)
		}
		for k := range s.Health {
			s.Health[k] = Health{Known: rapid.Bool().Draw(t, "has"), Alive: rapid.Bool().Draw(t, "alive"),
				Failures: rapid.Int().Draw(t, "failures"),
				First:    moments.Draw(t, "first"), LastGood: moments.Draw(t, "good"), LastBad: moments.Draw(t, "bad"),
				LastCause: rapid.String().Draw(t, "cause")}
		}
		i.Statuses = append(i.Statuses, s)
	}
	return i
}

func same(t *rapid.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func TestARecordHoldsAllOfAnInstance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := drawInstance(t)
		r := i.Record()
		same(t, "instance", i, r.Instance())
		same(t, "group", i.Assignment, r.Assignment())
		same(t, "what is at hand", []any{i.ID, i.Goal, i.Known, i.Removed, i.State(), i.Healthy(), i.Placed, len(i.Statuses)},
			[]any{r.ID(), r.Goal(), r.Known(), r.Removed(), r.State(), r.Healthy(), r.Placed(), r.Len()})
		for k := range i.Statuses {
			s := &i.Statuses[k]
			failing := false
			for _, h := range s.Health {
				failing = failing || h.Known && !h.Alive
			}
			state, healthy := r.Task(k)
			checks, fails := r.Checks(k)
			same(t, "task", []any{s.State, s.Healthy(), len(s.Health), failing, s.Task, r.Find(s.Task)},
				[]any{state, healthy, checks, fails, r.TaskID(k), k})
		}
	})
}

func TestARecordThatChangesLeavesTheOneBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i, j := drawInstance(t), drawInstance(t)
		r := i.Record()
		j.ID = i.ID
		g := j.Assignment
		want := i
		want.Assignment = g
		same(t, "regrouped", want, r.Reassign(&g).Instance())
		want = i
		want.Away, want.Known = j.Away, j.Known
		same(t, "elsewhere", want, r.At(&Host{Agent: i.Agent, Hostname: i.Hostname, Away: j.Away}, j.Known).Instance())
		want = i
		want.Removed = true
		same(t, "removed", want, r.Remove().Instance())
		statuses := r.Statuses()
		for k := range statuses {
			statuses[k].State, statuses[k].Seq = Killed, statuses[k].Seq+1
		}
		want = i
		want.Statuses = statuses
		same(t, "reported", want, r.Report(statuses).Instance())
		same(t, "the one before", i, r.Instance())
	})
}

func TestAnIndexFindsWhatAMapWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, want := NewIndex[*Record](), map[InstanceID]*Record{}
		if rapid.Bool().Draw(t, "clashes") {
			x.hash = func(id InstanceID) uint64 { return uint64(len(id)) % 2 }
		}
		ids := rapid.SampledFrom([]InstanceID{"a", "b", "c", "aa", "bb", "cc"})
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			id := ids.Draw(t, "id")
			if rapid.Bool().Draw(t, "put") {
				r := (&Instance{Assignment: Assignment{ID: id}}).Record()
				x.Put(r)
				want[id] = r
			} else {
				x.Delete(id)
				delete(want, id)
			}
			got := map[InstanceID]*Record{}
			for r := range x.All {
				if got[r.ID()] != nil {
					t.Fatalf("%s is there twice", r.ID())
				}
				got[r.ID()] = r
			}
			for _, id := range []InstanceID{"a", "b", "c", "aa", "bb", "cc"} {
				r, ok := x.Get(id)
				if r != want[id] || ok != (want[id] != nil) || got[id] != want[id] {
					t.Fatalf("%s: got %p, %v and %p in all, want %p", id, r, ok, got[id], want[id])
				}
			}
			if x.Len() != len(want) {
				t.Fatalf("got %d, want %d", x.Len(), len(want))
			}
		}
	})
}
