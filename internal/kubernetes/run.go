package kubernetes

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/archive"
	"github.com/marinaos/marina/internal/kubernetes/steward"
	"github.com/marinaos/marina/internal/kubernetes/wire"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/store"
)

// Config is what clusters need. Fields without a default are required.
type Config struct {
	Store  store.Store
	Kernel kernel.Kernel
	Fence  store.Guard // of this process's leadership; every write carries it
	Root   *identity.RootKey
	Log    *slog.Logger

	Metrics *metrics.Registry // nil: nothing is measured

	Pool, VIPs netip.Prefix     // of the datacenter: clusters use other addresses
	Publish    kernel.PortRange // of the machines, for load balancers; default 20001 to 21000
	Images     string           // directory for images loaded into clusters
	Machine    []string         // further names and addresses of machines, for API servers' certificates

	// Quotas tells the quota tree; nil: nothing is judged when a cluster is asked for.
	Quotas func() []kernel.QuotaView
	// Exec runs a program in a task, and Usage tells what a task uses.
	Exec  Exec
	Usage func(ctx context.Context, agent kernel.AgentID, task kernel.TaskID) (Cost, error)
	Dial  func(ctx context.Context, network, address string) (net.Conn, error) // default: net.Dialer's
	Now   func() time.Time                                                     // default time.Now
	NewID func() string                                                        // default uuid.NewString

	// Tell is how long machines may take to tell of programs that were built a moment ago; default 5 s.
	Tell time.Duration
}

// Exec runs a program in a task and returns its exit code; what it says on either stream goes to out.
type Exec = func(ctx context.Context, agent kernel.AgentID, task kernel.TaskID, argv []string,
	in io.Reader, out io.Writer) (int, error)

// Clusters runs clusters while this process leads. One is made for each leadership and is not used after it.
type Clusters struct {
	cfg       Config
	loop      *scheduler.Loop
	archives  *archive.Store
	importer  importer
	supplying chan struct{} // holds one for each node that is given images

	mu       sync.RWMutex
	clusters table         // written by the owner goroutine, under mu; read by anyone under mu.RLock
	moved    chan struct{} // closed and replaced when something changed; guarded by mu

	complete bool   // the owner goroutine's own, as all below
	agenda   agenda // which clusters are to be settled
	stale    bool   // the kernel's reservations or queue may have changed since they were read
	stewards *steward.Followers
}

// New returns clusters that do nothing until Run.
func New(cfg Config) *Clusters {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.NewID == nil {
		cfg.NewID = uuid.NewString
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	}
	if cfg.Publish == (kernel.PortRange{}) {
		cfg.Publish = publishedPorts
	}
	if cfg.Tell == 0 {
		cfg.Tell = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	loop := scheduler.New(scheduler.Config{Name: "clusters", Framework: Framework,
		Store: cfg.Store, Kernel: cfg.Kernel, Fence: cfg.Fence, Log: cfg.Log, Metrics: cfg.Metrics})
	k := &Clusters{cfg: cfg, loop: loop,
		archives: archive.New(cfg.Images), importer: importer{cfg.Exec, cfg.Log}, supplying: make(chan struct{}, maxSupply),
		clusters: table{}, moved: make(chan struct{}), agenda: agenda{now: map[string]bool{}, later: map[string]time.Time{}}}
	k.stewards = steward.New(steward.Config{Dial: cfg.Dial, Now: cfg.Now, Log: cfg.Log, Go: loop.Go, Keys: k.authorities,
		Hear: func(ctx context.Context, name, id string, status *wire.Status, err error) {
			k.tell(ctx, name, func() { k.hear(name, id, status, err) })
		}})
	return k
}

// Run loads what the store holds and works until ctx ends, leadership is lost or the outcome of a write is unknown.
// It is called once.
func (k *Clusters) Run(ctx context.Context) error {
	return k.loop.Run(ctx, scheduler.Work{Load: k.restore, Observe: k.observe, Settle: k.settle})
}

// change has the owner goroutine plan a change of one cluster and make it durable. What it says of errors is
// scheduler.Loop.Do's.
func (k *Clusters) change(ctx context.Context, name string, plan scheduler.Plan) error {
	return k.loop.Do(ctx, func(ctx context.Context, c *scheduler.Change) error {
		k.agenda.touch(name)
		return k.fenced(name, func() error { return plan(ctx, c) })
	})
}

// tell has the owner goroutine take in something about one cluster, and settle it.
func (k *Clusters) tell(ctx context.Context, name string, f func()) {
	_ = k.loop.Tell(ctx, func() { // or nobody leads any more
		k.agenda.touch(name)
		_ = k.fenced(name, func() error { f(); return nil })
	})
}

// fenced calls what concerns one cluster. If it panics, that cluster is parked and no other is kept from going on; f
// must hold no lock that it does not release then. The owner goroutine calls it.
func (k *Clusters) fenced(name string, f func() error) (err error) {
	if p := scheduler.Catch(func() { err = f() }); p != nil {
		k.cfg.Log.Error("cluster is parked after a panic", "cluster", name, "panic", p.Value, "stack", string(p.Stack))
		k.park(name, fmt.Sprintf("working on it panicked (%.100v)", p.Value))
		return scheduler.ErrPanic
	}
	return err
}

// observe takes in what the kernel tells.
func (k *Clusters) observe(c kernel.Changes) {
	if c.Complete != k.complete {
		k.agenda.touchAll(k.clusters)
	}
	k.complete, k.stale = c.Complete, true
	for _, r := range c.Instances {
		i := r.Instance()
		if name, member, ok := ownerOf(i); ok {
			_ = k.fenced(name, func() error { k.observeOne(name, member, i); return nil })
		}
	}
	if !c.Room {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, c := range k.clusters {
		for _, m := range c.members {
			if m.problem != "" { // what was refused may fit now; what waits is the kernel's to place
				m.problem = ""
				k.agenda.touch(name)
			}
		}
	}
}

func (k *Clusters) observeOne(name, member string, i kernel.Instance) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.clusters[name]; c != nil {
		c.observe(member, i, k.cfg.Now())
		k.agenda.touch(name)
	} else if !i.Removed && i.Goal == kernel.GoalRun { // of a cluster that is none: its row was lost
		k.cfg.Log.Error("instance of an unknown cluster", "cluster", name, "group", i.ID)
	}
}

// hear takes in a steward's word, or why there is none. The owner goroutine calls it.
func (k *Clusters) hear(name, id string, status *wire.Status, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.clusters[name]
	if c == nil || c.ID != id || c.parked != nil {
		return
	}
	if err != nil {
		c.silent = err.Error()
		return
	}
	c.told, c.toldAt, c.silent = status, k.cfg.Now(), ""
	for _, n := range c.told.Nodes {
		if m := c.members[n.Name]; n.Ready && m != nil && m.instance != nil {
			m.joined = m.instance.ID
		}
	}
}
