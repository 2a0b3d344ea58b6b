package master

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

func TestCommitCutsWhatIsTooLargeForOneTransaction(t *testing.T) {
	st := memory.New()
	lead, err := st.Campaign(t.Context(), "master", "m1")
	if err != nil {
		t.Fatal(err)
	}
	m := New(Config{}, Deps{Store: st, Leadership: lead})
	var ops []store.Op
	for k := range 3*store.MaxTxnOps + 7 {
		value := "x"
		if k%1000 == 0 {
			value = strings.Repeat("x", store.MaxValueBytes) // eight of these fill a transaction
		}
		ops = append(ops, store.Put(store.Key("kernel", fmt.Sprint(k)), []byte(value)))
	}
	if err := m.commit(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	snap, err := st.Snapshot(t.Context(), row.All)
	if err != nil || len(snap.Items) != len(ops) {
		t.Errorf("rows: got %d, error %v, want %d", len(snap.Items), err, len(ops))
	}
	if err := lead.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.commit(t.Context(), ops[1:2]); err == nil {
		t.Error("commit after the leadership: got no error")
	}
}

func TestSlowWatcherGetsTheNewestOfEachInstance(t *testing.T) {
	w := &watch{framework: "f", wake: make(chan struct{}, 1), at: map[kernel.InstanceID]int{}}
	record := func(framework, id, why string, removed bool) *kernel.Record {
		i := kernel.Instance{Framework: framework, Assignment: kernel.Assignment{ID: kernel.InstanceID(id), Why: why},
			Removed: removed}
		return i.Record()
	}
	a2, b2 := record("f", "a", "2", false), record("f", "b", "2", true)
	w.push([]*kernel.Record{record("f", "a", "1", false), record("f", "b", "1", false), record("other", "c", "1", false)},
		true, true)
	w.push([]*kernel.Record{a2}, true, false)
	w.push([]*kernel.Record{b2}, true, false)
	got, ok := w.take()
	want := kernel.Changes{Instances: []*kernel.Record{a2, b2}, Complete: true, Room: true}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *kernel.Record) bool { return a == b })); !ok || diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if _, ok := w.take(); ok {
		t.Error("second read: got changes, want none")
	}
	w.push(nil, true, false)
	if _, ok := w.take(); ok {
		t.Error("nothing changed: got changes, want none")
	}
}

func TestAWatchThatJoinsMissesNothingOfItsBatch(t *testing.T) {
	state := core.NewState(Config{})
	up := event.AgentUp{Session: 1, Seq: 1, Registration: kernel.Registration{Incarnation: "1",
		Agent: kernel.Agent{ID: "a1", Total: kernel.Resources{MilliCPU: 1000, Mem: kernel.GiB, Disk: kernel.GiB}}}}
	spec, err := (&kernel.Spec{Framework: "marathon", Owner: "/app", Version: "1", Role: "/",
		Network: kernel.Network{Mode: kernel.NetworkHost},
		Tasks:   []kernel.TaskSpec{{Name: "t", Suffix: ".t", Shell: "true"}}}).Seal()
	if err != nil {
		t.Fatal(err)
	}
	launch := event.Launch{LaunchRequest: kernel.LaunchRequest{Key: "k", Spec: spec, Instances: []kernel.InstanceID{"g1"}}}
	m := &Master{done: make(chan struct{}), measures: newMeasures(nil)}
	w := m.Watch("marathon").(*watch)
	b, err := m.step(state, core.NewAudit(state), []item{{event: up}, {look: w.join}, {event: launch}})
	if err != nil {
		t.Fatal(err)
	}
	m.release(b)
	if c, ok := w.take(); !ok || len(c.Instances) != 1 || c.Instances[0].ID() != "g1" {
		t.Errorf("what was launched in the batch in which the watch began: got %d instances, want g1", len(c.Instances))
	}
}

func TestSlowAgentIsCutOff(t *testing.T) {
	var ended error
	s := &session{agent: "a1", wake: make(chan struct{}, 1), end: func(err error) { ended = err }}
	for range maxOutboxFrames {
		s.enqueue(outgoing{})
	}
	if ended != nil {
		t.Fatalf("session with a full outbox: ended with %v", ended)
	}
	s.enqueue(outgoing{})
	if ended == nil || len(s.queue) != maxOutboxFrames {
		t.Errorf("session with an overfull outbox: %d frames queued, ended with %v, want it ended", len(s.queue), ended)
	}
}
