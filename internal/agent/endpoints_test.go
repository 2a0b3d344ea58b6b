package agent

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"github.com/marinaos/marina/internal/kernel"
)

// follower is a Network that does nothing but follow endpoints.
type follower struct {
	Network
	apply func([]kernel.Endpoint)
}

func (f follower) Apply(_ context.Context, e []kernel.Endpoint) error {
	f.apply(e)
	return nil
}

func TestTheNextAgentKnowsEveryEndpointThatClientsHaveSeen(t *testing.T) {
	f, err := openFolder(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	ready := kernel.Endpoint{Task: "t1", Agent: "a1", Running: true, Ready: true}

	ctx, kill := context.WithCancel(t.Context())
	onDisk := newEndpoints("a1", nil, f.log)
	killed := newEndpoints("a1", follower{apply: func([]kernel.Endpoint) { // here an agent that is killed would stop
		if err := onDisk.restore(f); err != nil {
			t.Error(err)
		}
		kill()
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
	next := newEndpoints("a1", follower{apply: func(e []kernel.Endpoint) {
		got = slices.Clone(e)
		stop()
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
