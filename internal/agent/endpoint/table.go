package endpoint

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

	"github.com/marinaos/marina/internal/agent/checkpoint"
	"github.com/marinaos/marina/internal/agent/retry"
)

const (
	endpointsFile  = "endpoints" + checkpoint.Ext
	writtenAtOnce  = 2000            // endpoints; a larger table is written at most every endpointsDelay
	endpointsDelay = 2 * time.Second //
	applyRetry     = time.Second
)

// Applier has the machine's network follow the table.
type Applier interface {
	// Apply makes the machine's VIPs, published ports and DNS answers those of endpoints; it returns when connections go
	// that way. The slice is the whole table, sorted by task, and is not kept.
	Apply(ctx context.Context, endpoints []kernel.Endpoint) error
}

// Table is the endpoints of the datacenter on one machine. Its methods are safe for concurrent use.
type Table struct {
	self kernel.AgentID
	net  Applier
	log  *slog.Logger

	mu      sync.Mutex
	table   map[kernel.TaskID]kernel.Endpoint // guarded by mu
	epoch   int64                             // under which version counts; guarded by mu
	version uint64                            // zero: nothing was ever told; guarded by mu
	local   map[kernel.TaskID]View            // this machine's tasks; guarded by mu
	asked   uint64                            // rises with each change; guarded by mu
	applied uint64                            // the change up to which the network is right; guarded by mu
	done    chan struct{}                     // closed and replaced when applied rises; guarded by mu
	parts   []kernel.Endpoint                 // of a full set that has not all come; guarded by mu
	stale   bool                              // the file is older than the table; guarded by mu

	wake chan struct{} // something was asked
}

// View is the state of a task of this machine, newer than the master's word.
type View struct{ Running, Ready bool }

// ViewOf derives a View from a task's status.
func ViewOf(s *kernel.Status) View {
	return View{Running: s.State == kernel.Running, Ready: s.Healthy()}
}

// New makes an empty table of the agent self.
func New(self kernel.AgentID, net Applier, log *slog.Logger) *Table {
	return &Table{self: self, net: net, log: log, table: map[kernel.TaskID]kernel.Endpoint{},
		local: map[kernel.TaskID]View{}, done: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// savedEndpoints is the file that lets an agent go on without a master after its own restart.
type savedEndpoints struct {
	Epoch   int64             `json:"epoch"`
	Version uint64            `json:"version"`
	Table   []kernel.Endpoint `json:"table"`
}

// Restart forgets the parts of a full set whose rest will not come.
func (t *Table) Restart() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parts = nil
}

// Restore reads the table of an earlier agent.
func (t *Table) Restore(dir *checkpoint.Dir) error {
	var s savedEndpoints
	err := dir.Load(endpointsFile, &s)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, checkpoint.ErrCorrupt) {
		return nil // the master tells it again
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epoch, t.version = s.Epoch, s.Version
	for _, p := range s.Table {
		t.table[p.Task] = p
	}
	return nil
}

// Held is the version of the table under an epoch, zero if it has none.
func (t *Table) Held(epoch int64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch != epoch {
		return 0
	}
	return t.version
}

// Change applies a delta of the master. One that does not continue from the table is errdefs.ErrFailedPrecondition; the
// table then counts as unknown, so that the next session brings all of it.
func (t *Table) Change(epoch int64, d *kernel.EndpointDelta) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !d.Full && (epoch != t.epoch || d.From != t.version) {
		has := t.version
		t.version = 0
		return fmt.Errorf("endpoints from version %d, the agent has %d: %w", d.From, has, errdefs.ErrFailedPrecondition)
	}
	if d.Full {
		t.parts = append(t.parts, d.Set...)
		if d.More {
			return nil
		}
		clear(t.table)
		d = &kernel.EndpointDelta{To: d.To, Set: t.parts}
	}
	t.parts = nil
	for _, task := range d.Remove {
		delete(t.table, task)
	}
	for _, p := range d.Set {
		t.table[p.Task] = p
	}
	t.epoch, t.version, t.stale = epoch, d.To, true
	t.askLocked()
	return nil
}

// SetLocal says what this machine knows of a task of its own; Drop forgets it.
func (t *Table) SetLocal(task kernel.TaskID, v View) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.local[task] == v {
		return
	}
	t.local[task] = v
	if _, ok := t.table[task]; ok {
		t.askLocked()
	}
}

// Seed says what this machine knows of its tasks after the agent's start, all at once, so that what runs keeps its
// connections. The table of the earlier agent is applied again: packet rules outlived it, names did not.
func (t *Table) Seed(views map[kernel.TaskID]View) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.local = views
	if t.epoch > 0 {
		t.askLocked()
	}
}

// Drop forgets a task of this machine's that ended; not being known counts as not running.
func (t *Table) Drop(task kernel.TaskID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.local, task)
}

// ask has the table applied again, if one was ever told.
func (t *Table) ask() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch > 0 {
		t.askLocked()
	}
}

func (t *Table) askLocked() {
	t.asked++
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// view is the whole table, corrected, sorted by task, and the change it includes.
func (t *Table) view() ([]kernel.Endpoint, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := slices.SortedFunc(maps.Values(t.table), func(a, b kernel.Endpoint) int { return cmp.Compare(a.Task, b.Task) })
	for i := range out {
		if p := &out[i]; p.Agent == t.self {
			v := t.local[p.Task]
			p.Running = p.Running && v.Running
			p.Ready = p.Ready && v.Ready
		}
	}
	return out, t.asked
}

// Settle waits until the network does what was asked so far, or ctx ends.
func (t *Table) Settle(ctx context.Context) {
	t.mu.Lock()
	want := t.asked
	for t.applied < want {
		done := t.done
		t.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
		t.mu.Lock()
	}
	t.mu.Unlock()
}

// Run keeps the network right until ctx ends. A table is on disk before the network follows it, so that the next agent
// does not go back behind what clients have seen; a large one, which costs too much for that, a little later.
func (t *Table) Run(ctx context.Context, dir *checkpoint.Dir) error {
	defer t.write(dir)
	var late <-chan time.Time
	var written time.Time
	var broken string // what was logged last, while the network fails
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-late:
			t.write(dir)
			late, written = nil, time.Now()
			continue
		case <-t.wake:
		}
		table, upTo := t.view()
		if len(table) <= writtenAtOnce || time.Since(written) > endpointsDelay {
			t.write(dir)
			late, written = nil, time.Now()
		} else if late == nil {
			late = time.After(endpointsDelay)
		}
		if err := t.net.Apply(ctx, table); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if text := err.Error(); text != broken { // once each, not once each second
				t.log.Error("endpoints cannot be applied, trying again", "err", err)
				broken = text
			}
			if !retry.Pause(ctx, applyRetry) {
				return nil
			}
			t.ask()
			continue
		}
		if broken != "" {
			t.log.Info("endpoints are applied again")
			broken = ""
		}
		t.mu.Lock()
		t.applied = upTo
		close(t.done)
		t.done = make(chan struct{})
		t.mu.Unlock()
	}
}

func (t *Table) write(dir *checkpoint.Dir) {
	t.mu.Lock()
	if !t.stale {
		t.mu.Unlock()
		return
	}
	s := savedEndpoints{Epoch: t.epoch, Version: t.version, Table: slices.Collect(maps.Values(t.table))}
	t.stale = false
	t.mu.Unlock()
	if err := dir.Save(endpointsFile, s); err != nil {
		t.log.Warn("endpoints not saved", "err", err)
		t.mu.Lock()
		t.stale = true
		t.mu.Unlock()
	}
}
