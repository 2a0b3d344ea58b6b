package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kernel"
)

// follower is a Network that does nothing but follow endpoints.
type follower struct {
	Network
	apply func([]kernel.Endpoint) error
}

func (f follower) Apply(_ context.Context, e []kernel.Endpoint) error {
	return f.apply(e)
}

func TestTheNextAgentKnowsEveryEndpointThatClientsHaveSeen(t *testing.T) {
	f, err := openFolder(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	ready := kernel.Endpoint{Task: "t1", Agent: "a1", Running: true, Ready: true}

	ctx, kill := context.WithCancel(t.Context())
	onDisk := newEndpoints("a1", nil, f.log)
	killed := newEndpoints("a1", follower{apply: func([]kernel.Endpoint) error { // here an agent that is killed would stop
		if err := onDisk.restore(f); err != nil {
			t.Error(err)
		}
		kill()
		return nil
	}}, f.log)
	killed.seed(map[kernel.TaskID]localView{"t1": {running: true, ready: true}})
	if err := killed.change(7, &kernel.EndpointDelta{Full: true, To: 3, Set: []kernel.Endpoint{ready}}); err != nil {
		t.Fatal(err)
	}
	if err := killed.run(ctx, f); err != nil {
		t.Fatal(err)
	}

	var got []kernel.Endpoint
	ctx, stop := context.WithCancel(t.Context())
	next := newEndpoints("a1", follower{apply: func(e []kernel.Endpoint) error {
		got = slices.Clone(e)
		stop()
		return nil
	}}, f.log)
	next.mu.Lock()
	next.table, next.epoch, next.version = onDisk.table, onDisk.epoch, onDisk.version
	next.mu.Unlock()
	next.seed(map[kernel.TaskID]localView{"t1": {running: true, ready: true}})
	if err := next.run(ctx, f); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || !got[0].Ready || next.held(7) != 3 {
		t.Errorf("the next agent's network: got %+v at version %d, want t1 ready at version 3", got, next.held(7))
	}
}

func TestNetworkThatStaysBrokenIsLoggedOnce(t *testing.T) {
	f, err := openFolder(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var log strings.Builder
		times := 0
		e := newEndpoints("a1", follower{apply: func([]kernel.Endpoint) error {
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
		if err := e.change(7, &kernel.EndpointDelta{Full: true, To: 3}); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- e.run(ctx, f) }()
		e.settle(ctx)
		e.ask() // breaks again, as before
		e.settle(ctx)
		e.ask()
		e.settle(ctx)
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
