package endpoint

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

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
