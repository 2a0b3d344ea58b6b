package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/kubernetes/steward"
	"github.com/marinaos/marina/internal/kubernetes/wire"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/store"
)

func warns(text string) func(View) bool {
	return func(v View) bool { return strings.Contains(strings.Join(v.Warnings, "\n"), text) }
}

func waitsFor(text string) func(View) bool {
	return func(v View) bool { return strings.Contains(strings.Join(v.WaitsFor, "\n"), text) }
}

// goesOn makes another cluster in full: the leadership works.
func (w *world) goesOn(name string) {
	w.t.Helper()
	w.ready(Definition{Name: name})
	select {
	case err := <-w.ended:
		w.t.Fatalf("the leadership's work ended: %v", err)
	default:
	}
}

// endsWith waits for the end of the leadership's work.
func (w *world) endsWith(kind error) {
	w.t.Helper()
	select {
	case err := <-w.ended:
		if !errors.Is(err, kind) {
			w.t.Errorf("the work ended with %v, want %v", err, kind)
		}
	case <-time.After(patience):
		w.t.Fatalf("the leadership's work goes on, want an end by %v", kind)
	}
}

func TestAReadThatFailsEndsNoLeadership(t *testing.T) {
	w := newWorld(t)
	w.ready(Definition{Name: "a"})
	w.faults.set(func(f *faults) {
		f.get = func(key string) error {
			if strings.HasPrefix(key, "kubernetes/leaves/") {
				return fmt.Errorf("timed out: %w", errdefs.ErrUnavailable)
			}
			return nil
		}
	})
	if _, err := w.clusters.Secret(t.Context(), "a1", "kubernetes/a/node-1"); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want the read's error", err)
	}
	w.faults.set(func(f *faults) { f.get = nil })
	w.goesOn("b")
}

// A follower may have been ended while its last word was on its way.
func TestTheWordOfAnEndedFollowerChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.ready(Definition{Name: "a"})
	v, _, err := w.clusters.Get("a")
	if err != nil {
		t.Fatal(err)
	}
	w.clusters.hear(t.Context(), steward.Word{Name: "a", ID: v.ID, Err: errors.New("connection refused")})
	w.clusters.hear(t.Context(), steward.Word{Name: "a", ID: v.ID, Status: &wire.Status{Version: "v0"}})
	w.goesOn("b") // both were taken before
	if v, _, err := w.clusters.Get("a"); err != nil || v.State != Ready || v.Release != "v1.37.2" {
		t.Errorf("got %s of release %s, %v, want what its steward says now", v.State, v.Release, err)
	}
}

func TestAWriteOfUnknownOutcomeEndsTheLeadership(t *testing.T) {
	w := newWorld(t)
	w.memory.LoseReply(true)
	if err := w.clusters.Create(t.Context(), Definition{Name: "a"}); !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("got %v, want that the outcome is not known", err)
	}
	w.endsWith(store.ErrUnknownOutcome)
	w.lead() // memory is what the store has
	if err := w.clusters.Create(t.Context(), Definition{Name: "a"}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("created again: got %v, want a refusal", err)
	}
}

func TestALostLeadershipEndsTheWork(t *testing.T) {
	w := newWorld(t)
	end := store.Txn{Ops: []store.Op{store.Delete(store.LeaderKey("master"))}}
	if _, err := w.store.Commit(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	if err := w.clusters.Create(t.Context(), Definition{Name: "a"}); err == nil {
		t.Error("a cluster was created by somebody who does not lead")
	}
	w.endsWith(store.ErrFenced)
}

// What cannot be asked for is its cluster's problem, told with the reason, and tried again.
func TestASpecThatCannotBeIsItsClustersProblem(t *testing.T) {
	w := newWorld(t)
	w.stop()
	d, err := Definition{Name: "a"}.Complete()
	if err != nil {
		t.Fatal(err)
	}
	d.Group, d.Privileged = "/"+strings.Repeat("x", 300<<10), new(true)
	put(t, w, "a", must(rows.Put("a", core.Row{Definition: d, ID: "id-a", VNI: 4096})).Value)
	w.lead()
	w.until("a", "telling why", waitsFor("control-plane is waiting"))
	w.goesOn("b")
}

func put(t *testing.T, w *world, name string, value []byte) {
	t.Helper()
	if _, err := w.store.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(rows.Key(name), value)}}); err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestAPanicParksItsClusterAndNoOther(t *testing.T) {
	for what, happens := range map[string]func(w *world){
		"in a request": func(w *world) {
			err := w.clusters.change(w.t.Context(), "a", planted)
			if !errdefs.IsInternal(err) {
				w.t.Errorf("got %v, want an internal error", err)
			}
		},
		"in settling": func(w *world) {
			w.faults.set(func(f *faults) {
				f.launch = func(r kernel.LaunchRequest) error {
					if strings.HasPrefix(r.Key, "a.") {
						panic("planted")
					}
					return nil
				}
			})
			w.kernel.End(w.groups("a")[1].ID, kernel.Failed, "killed")
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.ready(Definition{Name: "a"})
			happens(w)
			v := w.until("a", "parked", func(v View) bool { return v.State == Parked })
			if !strings.Contains(strings.Join(v.WaitsFor, ";"), "planted") {
				t.Errorf("it waits for %v, want the reason", v.WaitsFor)
			}
			alarms := w.clusters.Alarms()
			if len(alarms) != 1 || alarms[0].Subject != "cluster a" || alarms[0].Do == "" || alarms[0].Since.IsZero() {
				t.Errorf("alarms: got %+v, want one of cluster a with what to do", alarms)
			}
			if err := w.clusters.Change(t.Context(), Definition{Name: "a",
				Nodes: Nodes{Count: new(3)}}); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("a change: got %v, want a refusal", err)
			}
			w.goesOn("b")
			w.faults.set(func(f *faults) { f.launch = nil })
			w.lead()
			w.until("a", "taken up again by the next leader", isReadyOrStarting)
			if left := w.clusters.Alarms(); len(left) != 0 {
				t.Errorf("alarms of the next leader: %v", left)
			}
		})
	}
}

func planted(context.Context, *scheduler.Change) error { panic("planted") }

func isReadyOrStarting(v View) bool { return v.State != Parked && len(v.Members) == 2 }

func TestAParkedClusterMayBeDeleted(t *testing.T) {
	w := newWorld(t)
	w.ready(Definition{Name: "a"})
	_ = w.clusters.change(t.Context(), "a", planted)
	if err := w.clusters.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.gone("a")
	if left := append(w.clusters.Alarms(), kernel.Alarm{})[1:]; len(left) != 0 {
		t.Errorf("alarms left: %v", left)
	}
}

func TestAClusterWhoseRowCannotBeReadIsLeftAlone(t *testing.T) {
	for what, row := range map[string]string{
		"cut off":                `{"name":"a","id":`,
		"of a newer type":        `{"name":"a","id":"ID","vni":4096,"nodes":["one","two"]}`,
		"without what is needed": `{"name":"a","id":"ID"}`,
		"another's": `{"name":"b","id":"ID","nodes":{"count":1},"encryption":true,"privileged":true,
			"podCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/16"}`,
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.ready(Definition{Name: "a"})
			v, _, err := w.clusters.Get("a")
			if err != nil {
				t.Fatal(err)
			}
			before := w.groups("a")
			w.stop()
			put(t, w, "a", []byte(strings.ReplaceAll(row, "ID", v.ID)))
			w.lead()
			v = w.until("a", "parked, with what runs of it",
				func(v View) bool { return v.State == Parked && len(v.Members) == 2 })
			if a := w.clusters.Alarms(); len(a) != 1 || !strings.Contains(a[0].Do, "marina cluster delete a") ||
				!strings.Contains(a[0].Do, rows.Key("a")) {
				t.Errorf("alarms: got %+v, want the ways out", a)
			}
			if err := w.clusters.Create(t.Context(), Definition{Name: "a"}); !errdefs.IsAlreadyExists(err) {
				t.Errorf("its name: got %v, want that it is taken", err)
			}
			if _, err := w.clusters.Secret(t.Context(), "a1", "kubernetes/a/node-1"); err == nil {
				t.Error("certificates are made from a row that cannot be read")
			}
			w.goesOn("b")
			if n := w.clusters.state.Get("b").VNI; n == 4096 {
				t.Errorf("b's network has number %d, which may be a's", n)
			}
			if after := w.groups("a"); !slices.EqualFunc(before, after,
				func(x, y kernel.Instance) bool { return x.ID == y.ID && y.Goal == kernel.GoalRun }) {
				t.Errorf("its instances: got %v, want %v left alone", after, before)
			}
			if err := w.clusters.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			w.gone("a")
			for _, c := range w.kernel.Reservations(Framework) {
				if strings.HasPrefix(c.Name, "a.") {
					t.Errorf("reservation %s is left", c.Name)
				}
			}
			w.goesOn("a")
		})
	}
}

// What the kernel refuses is told and tried again.
func TestAReleaseThatIsRefusedIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.ready(Definition{Name: "a"})
	w.faults.set(func(f *faults) {
		f.release = func(reservation string) error {
			return fmt.Errorf("reservation %s is held: %w", reservation, errdefs.ErrFailedPrecondition)
		}
	})
	if err := w.clusters.Change(t.Context(), Definition{Name: "a", Nodes: Nodes{Count: new(0)}}); err != nil {
		t.Fatal(err)
	}
	w.until("a", "telling what is refused", warns("node-1: cannot release its volume: reservation a.node-1 is held"))
	w.faults.set(func(f *faults) { f.release = nil })
	w.until("a", "rid of it", func(v View) bool { return len(v.Members) == 1 && !warns("cannot release")(v) })
	if events, err := w.clusters.Events("a"); err != nil ||
		!slices.ContainsFunc(events, func(e Event) bool { return strings.Contains(e.Message, "is held") }) {
		t.Errorf("events: got %v, %v, want the refusal", events, err)
	}
}

func TestPortsThatAreNotExposedAreTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.faults.set(func(f *faults) {
		f.expose = func(string) error { return fmt.Errorf("no address is free: %w", errdefs.ErrResourceExhausted) }
	})
	s := w.ready(Definition{Name: "a"})
	s.change(func(st *wire.Status) { st.LoadBalancers = []wire.BalancerRequest{balancerOf("web", 80)} })
	v := w.until("a", "telling why", func(v View) bool { return len(v.Balanced) == 1 && v.Balanced[0].Message != "" })
	if !warns("cannot expose load balancers: no address is free")(v) {
		t.Errorf("warnings: got %q", v.Warnings)
	}
	w.faults.set(func(f *faults) { f.expose = nil })
	w.until("a", "balanced", func(v View) bool {
		return v.Balanced[0].Address != "" && len(v.Balanced[0].Published) == 1 && len(v.Warnings) == 0
	})
}

// Each word of a steward would otherwise be a commit of every cluster.
func TestTheKernelIsAskedToExposeOnlyWhatIsOtherwise(t *testing.T) {
	w := newWorld(t)
	s := w.ready(Definition{Name: "a"})
	w.ready(Definition{Name: "b"})
	s.change(func(st *wire.Status) { st.LoadBalancers = []wire.BalancerRequest{balancerOf("web", 80)} })
	w.until("a", "balanced", func(v View) bool { return len(v.Balanced) == 1 && v.Balanced[0].Address != "" })
	var before, after []string
	w.faults.set(func(f *faults) { before = slices.Clone(f.exposed) })
	for n := range 20 {
		s.change(func(st *wire.Status) { st.Pods.Running = n + 1 })
		w.until("a", "heard of", func(v View) bool { return v.Pods.Running == n+1 })
	}
	w.faults.set(func(f *faults) { after = slices.Clone(f.exposed) })
	if len(after) != len(before) {
		t.Errorf("20 words about pods: %d calls of Expose, want none: %v", len(after)-len(before), after[len(before):])
	}
	if len(before) > 3 {
		t.Errorf("two clusters and one load balancer: %d calls of Expose, want at most 3: %v", len(before), before)
	}
	s.change(func(st *wire.Status) { st.LoadBalancers = append(st.LoadBalancers, balancerOf("api", 443)) })
	w.until("a", "balanced twice", func(v View) bool { return len(v.Balanced) == 2 && v.Balanced[1].Address != "" })
}

func balancerOf(name string, port uint16) wire.BalancerRequest {
	b := wire.BalancerRequest{Namespace: "default", Name: name, UID: name}
	b.Ports = append(b.Ports, wire.BalancerPort{Protocol: "TCP", Port: port, NodePort: 30000 + port})
	return b
}
