package master_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

func TestInstancesRunAndEndOverARealConnection(t *testing.T) {
	h := lead(t, memory.New(), master.Config{})
	a, b := newStub("a1", 4000), newStub("a2", 4000)
	a.connect(t, h)
	b.connect(t, h)
	h.agents(t, 2)
	w := h.Watch("marathon")
	defer w.Close()
	groups := ids("app", 10)
	got, err := h.Launch(t.Context(), kernel.LaunchRequest{Key: "/app@1", Spec: app(t, "/app"), Instances: groups})
	if err != nil || len(got.Placed) != 10 {
		t.Fatalf("launch: placed %d, error %v, want 10", len(got.Placed), err)
	}
	follow(t, w, func(seen map[kernel.InstanceID]kernel.Instance, _ kernel.Changes) bool {
		return count(seen, kernel.Running) == 10
	})
	if a.count(kernel.Running) != 5 || b.count(kernel.Running) != 5 {
		t.Errorf("spread: %d and %d run, want 5 and 5", a.count(kernel.Running), b.count(kernel.Running))
	}
	if err := h.Stop(t.Context(), "marathon", groups[:4], "scaled down"); err != nil {
		t.Fatal(err)
	}
	follow(t, w, func(seen map[kernel.InstanceID]kernel.Instance, _ kernel.Changes) bool { return removed(seen) == 4 })
	again, err := h.Launch(t.Context(), kernel.LaunchRequest{Key: "/app@1", Spec: app(t, "/app"), Instances: groups[:5]})
	if err != nil || len(again.Placed) != 1 || again.Waiting != 0 {
		t.Errorf("launch of four that ended and one that runs: placed %d, waiting %d, error %v, want 1, 0",
			len(again.Placed), again.Waiting, err)
	}
}

func TestNextLeaderTakesOverWhatRuns(t *testing.T) {
	st := memory.New()
	h := lead(t, st, master.Config{})
	a := newStub("a1", 4000)
	a.connect(t, h)
	h.agents(t, 1)
	w := h.Watch("marathon")
	defer w.Close()
	if _, err := h.Launch(t.Context(), kernel.LaunchRequest{Key: "/app@1", Spec: app(t, "/app"),
		Instances: ids("app", 3)}); err != nil {
		t.Fatal(err)
	}
	follow(t, w, func(seen map[kernel.InstanceID]kernel.Instance, _ kernel.Changes) bool {
		return count(seen, kernel.Running) == 3
	})

	// A write whose outcome nobody knows ends the leadership, and everyone who waits is told.
	st.LoseReply(true)
	if _, err := h.Launch(t.Context(), kernel.LaunchRequest{Key: "/more@1", Spec: app(t, "/more"),
		Instances: ids("more", 1)}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("launch with unknown outcome: got %v, want an errdefs.ErrUnavailable", err)
	}
	if err := <-h.ended; !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("run: got %v, want a store.ErrUnknownOutcome", err)
	}
	if _, err := w.Next(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("watch: got %v, want an errdefs.ErrUnavailable", err)
	}
	if err := h.lead.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}

	next := leadWith(t, st, master.Config{}, h.authority)
	w = next.Watch("marathon")
	defer w.Close()
	follow(t, w, func(seen map[kernel.InstanceID]kernel.Instance, c kernel.Changes) bool {
		if c.Complete {
			t.Error("complete before the agent has reported")
		}
		return len(seen) == 4
	})
	a.connect(t, next)
	seen := follow(t, w, func(seen map[kernel.InstanceID]kernel.Instance, c kernel.Changes) bool {
		return c.Complete && count(seen, kernel.Running) >= 3
	})
	for id, i := range seen {
		if !i.Known {
			t.Errorf("instance %s: not known though its agent reported", id)
		}
	}
}

func TestDoorServesOnlyTheAgentOfTheCertificate(t *testing.T) {
	h := lead(t, memory.New(), master.Config{})
	liar := newStub("a2", 1000)
	liar.info.ID = "a1"
	conn := h.dial(t, "a2", kernel.Protocol)
	defer conn.Close()
	liar.serve(conn) // returns when the master has hung up
	if got := h.Agents(); len(got) != 0 {
		t.Errorf("agents: got %v, want none", got)
	}
	other := h.dial(t, "a3", "http/1.1")
	client := http.Client{Transport: &http.Transport{DialTLSContext: dialed(other)}}
	resp, err := client.Get("https://localhost/v2/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); string(b) != "HTTP/1.1 /v2/" || err != nil {
		t.Errorf("other protocol: got %q, error %v", b, err)
	}
}

// onlyOne is a listener that is to be asked for a second connection only once the first is closed.
type onlyOne struct {
	net.Listener
	first net.Conn
	early atomic.Bool // it was asked before
	shut  atomic.Bool // the first connection is closed
}

type watched struct {
	net.Conn
	shut *atomic.Bool
}

func (c watched) Close() error {
	c.shut.Store(true)
	return c.Conn.Close()
}

func (l *onlyOne) Accept() (net.Conn, error) {
	if l.first != nil {
		if !l.shut.Load() {
			l.early.Store(true)
		}
		return l.Listener.Accept()
	}
	conn, err := l.Listener.Accept()
	if err == nil {
		l.first = conn
		conn = watched{conn, &l.shut}
	}
	return conn, err
}

// The limit is of connections that are open, also of those that were handed to the handler.
func TestNoMoreConnectionsAreOpenThanTheLimit(t *testing.T) {
	var listener *onlyOne
	h := lead(t, memory.New(), master.Config{}, func(d *master.Deps) {
		listener = &onlyOne{Listener: d.Listener}
		d.Listener, d.MaxConnections = listener, 1
	})
	ask := func(conn net.Conn, times int) {
		client := http.Client{Transport: &http.Transport{DialTLSContext: dialed(conn)}}
		defer client.CloseIdleConnections()
		for range times {
			resp, err := client.Get("https://localhost/v2/")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
	}
	ask(h.dial(t, "a1", "http/1.1"), 50)
	ask(h.dial(t, "a2", "http/1.1"), 1) // once the first is closed another is served
	if listener.early.Load() {
		t.Error("a second connection was accepted while the first was open, the limit is 1")
	}
}

func count(seen map[kernel.InstanceID]kernel.Instance, state kernel.State) (n int) {
	for _, i := range seen {
		if !i.Removed && i.State() == state {
			n++
		}
	}
	return n
}

func removed(seen map[kernel.InstanceID]kernel.Instance) (n int) {
	for _, i := range seen {
		if i.Removed {
			n++
		}
	}
	return n
}

// A look at the state is no step: it must not make readers believe that agents have yet to report.
func TestLookingAtTheStateChangesNothingForWatches(t *testing.T) {
	h := lead(t, memory.New(), master.Config{})
	a := newStub("a1", 4000)
	a.connect(t, h)
	h.agents(t, 1)
	w := h.Watch("marathon")
	defer w.Close()
	follow(t, w, func(_ map[kernel.InstanceID]kernel.Instance, c kernel.Changes) bool { return c.Complete })
	for range 50 {
		h.Queue("marathon")
	}
	if _, err := h.Launch(t.Context(), kernel.LaunchRequest{Key: "/app@1", Spec: app(t, "/app"),
		Instances: ids("app", 1)}); err != nil {
		t.Fatal(err)
	}
	follow(t, w, func(seen map[kernel.InstanceID]kernel.Instance, c kernel.Changes) bool {
		if !c.Complete {
			t.Error("the watch says that agents have yet to report")
		}
		return count(seen, kernel.Running) == 1
	})
}

// A machine that is removed while it is connected ends what it runs, and is no member again.
func TestRemovedMachineEndsItsTasksAndStaysOut(t *testing.T) {
	h := lead(t, memory.New(), master.Config{})
	a, b := newStub("a1", 4000), newStub("a2", 4000)
	a.connect(t, h)
	h.agents(t, 1)
	w := h.Watch("marathon")
	defer w.Close()
	if _, err := h.Launch(t.Context(), kernel.LaunchRequest{Key: "/app@1", Spec: app(t, "/app"),
		Instances: ids("app", 2)}); err != nil {
		t.Fatal(err)
	}
	follow(t, w, func(seen map[kernel.InstanceID]kernel.Instance, _ kernel.Changes) bool {
		return count(seen, kernel.Running) == 2
	})
	if _, err := h.RemoveMachine(t.Context(), "a1", false); !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("removing a connected machine that runs something: got %v, want an errdefs.ErrFailedPrecondition", err)
	}
	what, err := h.RemoveMachine(t.Context(), "a1", true)
	if err != nil || len(what.Instances) != 2 {
		t.Fatalf("removal: got %v, error %v, want two groups", what, err)
	}
	follow(t, w, func(seen map[kernel.InstanceID]kernel.Instance, _ kernel.Changes) bool { return removed(seen) == 2 })
	for range 2 { // what it is told to do is in it, and the session ends after it has heard so
		if told := <-a.dismissed; !strings.Contains(told, "machine a1 (a1) was removed") {
			t.Errorf("told %q, want that it was removed", told)
		}
		a.ended()
		a.connect(t, h) // dials again
	}
	b.connect(t, h)
	h.agents(t, 1)
	if got := h.Agents(); len(got) != 1 || got[0].ID != "a2" {
		t.Errorf("machines: got %v, want a2 alone", got)
	}
	if _, err := h.RemoveMachine(t.Context(), "a1", true); !errdefs.IsNotFound(err) {
		t.Errorf("removing it again: got %v, want an errdefs.ErrNotFound", err)
	}
}
