package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/archive"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/kubernetes/steward"
	"github.com/marinaos/marina/internal/kubernetes/supply"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/store"
)

// Config configures Clusters. Fields without a default are required.
type Config struct {
	Store  store.Store
	Kernel kernel.Kernel
	Fence  store.Guard // of this process's leadership; every write carries it
	Root   *identity.RootKey
	Log    *slog.Logger

	Metrics *metrics.Registry // nil: nothing is measured
	Admit   func() error      // refuses requests' rows while the store is full; nil: it has room

	Pool, VIPs netip.Prefix     // of the datacenter: clusters use other addresses
	Publish    kernel.PortRange // of the machines, for load balancers; default 20001 to 21000
	Images     string           // directory for images loaded into clusters
	Machine    []string         // further names and addresses of machines, for API servers' certificates

	// Quotas tells the quota tree; nil: nothing is judged when a cluster is asked for.
	Quotas func() []kernel.QuotaView
	// Exec runs a program in a task, and Usage tells what a task uses.
	Exec  supply.Exec
	Usage func(ctx context.Context, agent kernel.AgentID, task kernel.TaskID) (Cost, error)
	Dial  func(ctx context.Context, network, address string) (net.Conn, error) // default: net.Dialer's
	Now   func() time.Time                                                     // default time.Now
	NewID func() string                                                        // default uuid.NewString

	// Tell bounds how long machines may take to tell of programs that were built a moment ago; default 5 s.
	Tell time.Duration
}

// Clusters runs clusters while this process leads. One is made for each leadership and is not used after it.
type Clusters struct {
	cfg Config
	guarded
	loop     *scheduler.Loop
	archives *archive.Store
	supplier *supply.Supplier
	keys     *keyring

	actuator actuator // the owner goroutine's own, as all below
	stewards *steward.Followers
	stale    bool // the kernel's reservations or queue may have changed since they were read
}

// publishedPorts are the machines' ports that load balancers are published on, unless Config says otherwise: those
// behind Marathon's service ports.
var publishedPorts = kernel.PortRange{First: 20001, Last: 21000}

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
		Store: cfg.Store, Kernel: cfg.Kernel, Fence: cfg.Fence, Log: cfg.Log, Metrics: cfg.Metrics,
		Admit: cfg.Admit})
	k := &Clusters{cfg: cfg, loop: loop, archives: archive.New(cfg.Images),
		keys:    &keyring{cfg.Store, cfg.Root, cfg.Now, cfg.Log},
		guarded: guarded{agents: cfg.Kernel.Agents, state: core.NewState(cfg.Publish), moved: make(chan struct{})}}
	k.actuator = actuator{cfg.Kernel, &k.guarded, cfg.Now, cfg.NewID}
	k.supplier = supply.New(supply.Config{Archives: k.archives, Exec: cfg.Exec, Log: cfg.Log, Go: loop.Go,
		Done: func(ctx context.Context, name, id string, s core.Supply) {
			k.report(ctx, name, id, func(c *core.Cluster, now time.Time) { c.EndSupply(s, now) })
		}})
	k.stewards = steward.New(steward.Config{Dial: cfg.Dial, Now: cfg.Now, Log: cfg.Log, Go: loop.Go,
		Keys: k.keys.authorities, Hear: k.hear})
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
		k.state.Touch(name)
		return k.fenced(name, func() error { return plan(ctx, c) })
	})
}

// report has the owner goroutine take in something about the cluster of a name and an id, if it is still there, and
// settle it.
func (k *Clusters) report(ctx context.Context, name, id string, f func(c *core.Cluster, now time.Time)) {
	_ = k.loop.Tell(ctx, func() { // or nobody leads any more
		c := k.state.Get(name)
		if c == nil || c.ID != id {
			return
		}
		k.state.Touch(name)
		_ = k.fenced(name, func() error { k.write(func() { f(c, k.cfg.Now()) }); return nil })
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

// park sets a cluster aside. A name that is none's is ignored.
func (k *Clusters) park(name, problem string) {
	if c := k.state.Get(name); c != nil {
		k.write(func() { c.Park(problem, k.cfg.Now()) })
		k.stewards.End(c.ID)
	}
}
