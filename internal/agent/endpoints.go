package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/marinaos/marina/internal/kernel"
)

const (
	endpointsFile  = "endpoints" + checkpointExt
	writtenAtOnce  = 2000            // endpoints; a larger table is written at most every endpointsDelay
	endpointsDelay = 2 * time.Second //
	applyRetry     = time.Second
)

// endpoints is the table of the datacenter's endpoints as the master tells it, corrected by what this machine knows better:
// a task of its own that ended, is unhealthy or about to stop gets no new connections from here from that moment on, with
// or without a master. The other way round the master's word counts.
type endpoints struct {
	self kernel.AgentID
	net  Network
	log  *slog.Logger

	mu      sync.Mutex
	table   map[kernel.TaskID]kernel.Endpoint // guarded by mu
	epoch   int64                             // under which version counts; guarded by mu
	version uint64                            // zero: nothing was ever told; guarded by mu
	local   map[kernel.TaskID]localView       // this machine's tasks; guarded by mu
	asked   uint64                            // rises with each change; guarded by mu
	applied uint64                            // the change up to which the network is right; guarded by mu
	done    chan struct{}                     // closed and replaced when applied rises; guarded by mu
	parts   []kernel.Endpoint                 // of a full set that has not all come; guarded by mu
	stale   bool                              // the file is older than the table; guarded by mu

	wake chan struct{} // something was asked
}

// localView is what this machine knows of a task of its own.
type localView struct{ running, ready bool }

func viewOf(s *kernel.Status) localView {
	return localView{running: s.State == kernel.Running, ready: s.Healthy()}
}

func newEndpoints(self kernel.AgentID, net Network, log *slog.Logger) *endpoints {
	return &endpoints{self: self, net: net, log: log, table: map[kernel.TaskID]kernel.Endpoint{},
		local: map[kernel.TaskID]localView{}, done: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// savedEndpoints is the file that lets an agent go on without a master after its own restart.
type savedEndpoints struct {
	Epoch   int64             `json:"epoch"`
	Version uint64            `json:"version"`
	Table   []kernel.Endpoint `json:"table"`
}

// restart forgets the parts of a full set whose rest will not come.
func (e *endpoints) restart() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.parts = nil
}

// restore reads the table of an earlier agent.
func (e *endpoints) restore(f *folder) error {
	var s savedEndpoints
	err := f.load(endpointsFile, &s)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errCorrupt) {
		return nil // the master tells it again
	}
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.epoch, e.version = s.Epoch, s.Version
	for _, p := range s.Table {
		e.table[p.Task] = p
	}
	return nil
}

// held is the version of the table under an epoch, zero if it has none.
func (e *endpoints) held(epoch int64) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.epoch != epoch {
		return 0
	}
	return e.version
}

// change applies a delta of the master. One that does not continue from the table is errdefs.ErrFailedPrecondition; the
// table then counts as unknown, so that the next session brings all of it.
func (e *endpoints) change(epoch int64, d *kernel.EndpointDelta) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !d.Full && (epoch != e.epoch || d.From != e.version) {
		has := e.version
		e.version = 0
		return fmt.Errorf("endpoints from version %d, the agent has %d: %w", d.From, has, errdefs.ErrFailedPrecondition)
	}
	if d.Full {
		e.parts = append(e.parts, d.Set...)
		if d.More {
			return nil
		}
		clear(e.table)
		d = &kernel.EndpointDelta{To: d.To, Set: e.parts}
	}
	e.parts = nil
	for _, t := range d.Remove {
		delete(e.table, t)
	}
	for _, p := range d.Set {
		e.table[p.Task] = p
	}
	e.epoch, e.version, e.stale = epoch, d.To, true
	e.askLocked()
	return nil
}

// setLocal says what this machine knows of a task of its own; drop forgets it.
func (e *endpoints) setLocal(t kernel.TaskID, v localView) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.local[t] == v {
		return
	}
	e.local[t] = v
	if _, ok := e.table[t]; ok {
		e.askLocked()
	}
}

// seed says what this machine knows of its tasks after the agent's start, all at once, so that what runs keeps its
// connections. The table of the earlier agent is applied again: packet rules outlived it, names did not.
func (e *endpoints) seed(views map[kernel.TaskID]localView) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.local = views
	if e.epoch > 0 {
		e.askLocked()
	}
}

// drop forgets a task of this machine's that ended; not being known counts as not running.
func (e *endpoints) drop(t kernel.TaskID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.local, t)
}

// ask has the table applied again, if one was ever told.
func (e *endpoints) ask() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.epoch > 0 {
		e.askLocked()
	}
}

func (e *endpoints) askLocked() {
	e.asked++
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// view is the whole table, corrected, sorted by task, and the change it includes.
func (e *endpoints) view() ([]kernel.Endpoint, uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := slices.SortedFunc(maps.Values(e.table), func(a, b kernel.Endpoint) int { return cmp.Compare(a.Task, b.Task) })
	for i := range out {
		if p := &out[i]; p.Agent == e.self {
			v := e.local[p.Task]
			p.Running = p.Running && v.running
			p.Ready = p.Ready && v.ready
		}
	}
	return out, e.asked
}

// settle waits until the network does what was asked so far, or ctx ends.
func (e *endpoints) settle(ctx context.Context) {
	e.mu.Lock()
	want := e.asked
	for e.applied < want {
		done := e.done
		e.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
		e.mu.Lock()
	}
	e.mu.Unlock()
}

// run keeps the network right until ctx ends. A table is on disk before the network follows it, so that the next agent does
// not go back behind what clients have seen; a large one, which costs too much for that, a little later.
func (e *endpoints) run(ctx context.Context, f *folder) error {
	defer e.write(f)
	var late <-chan time.Time
	var written time.Time
	var broken string // what was logged last, while the network fails
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-late:
			e.write(f)
			late, written = nil, time.Now()
			continue
		case <-e.wake:
		}
		table, upTo := e.view()
		if len(table) <= writtenAtOnce || time.Since(written) > endpointsDelay {
			e.write(f)
			late, written = nil, time.Now()
		} else if late == nil {
			late = time.After(endpointsDelay)
		}
		if err := e.net.Apply(ctx, table); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if text := err.Error(); text != broken { // once each, not once each second
				e.log.Error("endpoints cannot be applied, trying again", "err", err)
				broken = text
			}
			if !pause(ctx, applyRetry) {
				return nil
			}
			e.ask()
			continue
		}
		if broken != "" {
			e.log.Info("endpoints are applied again")
			broken = ""
		}
		e.mu.Lock()
		e.applied = upTo
		close(e.done)
		e.done = make(chan struct{})
		e.mu.Unlock()
	}
}

func (e *endpoints) write(f *folder) {
	e.mu.Lock()
	if !e.stale {
		e.mu.Unlock()
		return
	}
	s := savedEndpoints{Epoch: e.epoch, Version: e.version, Table: slices.Collect(maps.Values(e.table))}
	e.stale = false
	e.mu.Unlock()
	if err := f.save(endpointsFile, s); err != nil {
		e.log.Warn("endpoints not saved", "err", err)
		e.mu.Lock()
		e.stale = true
		e.mu.Unlock()
	}
}

// pause waits for d and reports whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
