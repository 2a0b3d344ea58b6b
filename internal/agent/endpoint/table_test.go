package endpoint

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/agent/checkpoint"
	"github.com/marinaos/marina/internal/kernel"
)

// follower is a network of a test's own.
type follower struct {
	apply func([]kernel.Endpoint) error
}

func (f follower) Apply(_ context.Context, e []kernel.Endpoint) error {
	return f.apply(e)
}

func TestTheNextAgentKnowsEveryEndpointThatClientsHaveSeen(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	f, err := checkpoint.Open(t.Context(), t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ready := kernel.Endpoint{Task: "t1", Agent: "a1", Running: true, Ready: true}

	ctx, kill := context.WithCancel(t.Context())
	onDisk := New("a1", nil, log)
	killed := New("a1", follower{apply: func([]kernel.Endpoint) error { // here an agent that is killed would stop
		if err := onDisk.Restore(f); err != nil {
			t.Error(err)
		}
		kill()
		return nil
	}}, log)
	killed.Seed(map[kernel.TaskID]View{"t1": {Running: true, Ready: true}})
	if err := killed.Change(7, &kernel.EndpointDelta{Full: true, To: 3, Set: []kernel.Endpoint{ready}}); err != nil {
		t.Fatal(err)
	}
	if err := killed.Run(ctx, f); err != nil {
		t.Fatal(err)
	}

	var got []kernel.Endpoint
	ctx, stop := context.WithCancel(t.Context())
	next := New("a1", follower{apply: func(e []kernel.Endpoint) error {
		got = slices.Clone(e)
		stop()
		return nil
	}}, log)
	next.mu.Lock()
	next.table, next.epoch, next.version = onDisk.table, onDisk.epoch, onDisk.version
	next.mu.Unlock()
	next.Seed(map[kernel.TaskID]View{"t1": {Running: true, Ready: true}})
	if err := next.Run(ctx, f); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || !got[0].Ready || next.Held(7) != 3 {
		t.Errorf("the next agent's network: got %+v at version %d, want t1 ready at version 3", got, next.Held(7))
	}
}

func TestNetworkThatStaysBrokenIsLoggedOnce(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	f, err := checkpoint.Open(t.Context(), t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var log strings.Builder
		times := 0
		e := New("a1", follower{apply: func([]kernel.Endpoint) error {
			switch times++; {
			case times <= 60, times == 102:
				return errors.New("no nftables")
			case times <= 100:
				return errors.New("table is busy")
			}
			return nil
		}}, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		if err := e.Change(7, &kernel.EndpointDelta{Full: true, To: 3}); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- e.Run(ctx, f) }()
		e.Settle(ctx)
		e.ask() // breaks again, as before
		e.Settle(ctx)
		e.ask()
		e.Settle(ctx)
		synctest.Wait()
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := `level=ERROR msg="endpoints cannot be applied, trying again" err="no nftables"
level=ERROR msg="endpoints cannot be applied, trying again" err="table is busy"
level=INFO msg="endpoints are applied again"
level=ERROR msg="endpoints cannot be applied, trying again" err="no nftables"
level=INFO msg="endpoints are applied again"
`
		if diff := cmp.Diff(want, log.String()); diff != "" || times != 104 {
			t.Errorf("after %d tries, want 104: log (-want +got):\n%s", times, diff)
		}
	})
}

// table is a Table of agent a1 whose network is a slice.
func table(t *testing.T) (e *Table, applied func() map[kernel.TaskID]kernel.Endpoint) {
	t.Helper()
	var last []kernel.Endpoint
	e = New("a1", follower{apply: func(all []kernel.Endpoint) error {
		last = slices.Clone(all)
		return nil
	}}, slog.New(slog.DiscardHandler))
	return e, func() map[kernel.TaskID]kernel.Endpoint {
		all, _ := e.view()
		if err := e.net.Apply(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		out := map[kernel.TaskID]kernel.Endpoint{}
		for _, p := range last {
			out[p.Task] = p
		}
		return out
	}
}

func TestWhatThisMachineKnowsCountsOnlyAgainstItsOwnTasks(t *testing.T) {
	e, applied := table(t)
	here := kernel.Endpoint{Task: "here", Agent: "a1", Running: true, Ready: true}
	there := kernel.Endpoint{Task: "there", Agent: "a2", Running: true, Ready: true}
	sick := kernel.Endpoint{Task: "sick", Agent: "a1", Running: true}
	if err := e.Change(7, &kernel.EndpointDelta{Full: true, To: 1, Set: []kernel.Endpoint{here, there, sick}}); err != nil {
		t.Fatal(err)
	}
	if got := applied(); got["here"].Ready || !got["there"].Ready {
		t.Errorf("of a task this machine knows nothing of: got %+v, want no connections here and no word on others", got)
	}
	e.SetLocal("here", View{Running: true, Ready: true})
	e.SetLocal("there", View{})
	e.SetLocal("sick", View{Running: true, Ready: true})
	if got := applied(); !got["here"].Ready || !got["there"].Ready || got["sick"].Ready {
		t.Errorf("got %+v, want here and there, and the master's word on sick", got)
	}
	e.SetLocal("here", View{Running: true})
	if got := applied(); got["here"].Ready || !got["here"].Running {
		t.Errorf("unhealthy: got %+v", got["here"])
	}
	e.Drop("here")
	if got := applied(); got["here"].Running {
		t.Errorf("ended: got %+v", got["here"])
	}
}

func TestADeltaContinuesOrTheTableIsUnknown(t *testing.T) {
	e, applied := table(t)
	a, b := kernel.Endpoint{Task: "a", Agent: "a2"}, kernel.Endpoint{Task: "b", Agent: "a2"}
	for _, d := range []kernel.EndpointDelta{
		{Full: true, More: true, To: 3, Set: []kernel.Endpoint{a}},
		{Full: true, To: 3, Set: []kernel.Endpoint{b}},
		{From: 3, To: 4, Remove: []kernel.TaskID{"a"}},
	} {
		if err := e.Change(7, &d); err != nil {
			t.Fatal(err)
		}
	}
	if got := applied(); len(got) != 1 || got["b"].Task != "b" || e.Held(7) != 4 || e.Held(8) != 0 {
		t.Errorf("got %+v at %d, want b at version 4 of this epoch alone", got, e.Held(7))
	}
	for what, d := range map[string]struct {
		epoch int64
		delta kernel.EndpointDelta
	}{"a gap": {7, kernel.EndpointDelta{From: 5, To: 6}}, "another leader": {8, kernel.EndpointDelta{From: 4, To: 5}}} {
		e.epoch, e.version = 7, 4
		if err := e.Change(d.epoch, &d.delta); !errdefs.IsFailedPrecondition(err) || e.Held(7) != 0 {
			t.Errorf("%s: got %v and version %d, want it refused and all asked for", what, err, e.Held(7))
		}
	}
	if err := e.Change(7, &kernel.EndpointDelta{Full: true, More: true, To: 9, Set: []kernel.Endpoint{a}}); err != nil {
		t.Fatal(err)
	}
	e.Restart() // the rest does not come: another session begins
	if err := e.Change(7, &kernel.EndpointDelta{Full: true, To: 9, Set: []kernel.Endpoint{b}}); err != nil {
		t.Fatal(err)
	}
	if got := applied(); len(got) != 1 || got["b"].Task != "b" {
		t.Errorf("parts of two sessions: got %+v, want the second's", got)
	}
}

func TestADamagedTableIsToldAgain(t *testing.T) {
	dir, err := checkpoint.Open(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	e, _ := table(t)
	if err := e.Restore(dir); err != nil || e.Held(0) != 0 {
		t.Errorf("nothing there: got %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir.Path, endpointsFile), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Restore(dir); err != nil {
		t.Errorf("damaged: got %v, want to go on without", err)
	}
}
