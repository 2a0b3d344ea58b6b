package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/store"
)

// Config is what clusters need. Fields without a default are required.
type Config struct {
	Store  store.Store
	Kernel kernel.Kernel
	Fence  store.Guard // of this process's leadership; every write carries it
	Root   *identity.RootKey
	Log    *slog.Logger

	Pool, VIPs netip.Prefix     // of the datacenter: clusters use other addresses
	Publish    kernel.PortRange // of the machines, for load balancers; default 20001 to 21000
	Images     string           // folder for images loaded into clusters
	Machine    []string         // further names and addresses of machines, for API servers' certificates

	// Quotas tells the quota tree; nil: nothing is judged when a cluster is asked for.
	Quotas func() []kernel.QuotaView
	// Exec runs a program in a task, and Usage tells what a task uses.
	Exec  func(ctx context.Context, agent kernel.AgentID, task kernel.TaskID, argv []string, in io.Reader, out io.Writer) (int, error)
	Usage func(ctx context.Context, agent kernel.AgentID, task kernel.TaskID) (Cost, error)
	Dial  func(ctx context.Context, network, address string) (net.Conn, error) // default: net.Dialer's
	Now   func() time.Time                                                     // default time.Now
	NewID func() string                                                        // default uuid.NewString

	// Tell is how long machines may take to tell of programs that were built a moment ago; default 5 s.
	Tell time.Duration
}

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// lookAgain is how often the kernel's queue and claims are looked at while something waits.
const lookAgain = time.Second

// Clusters runs clusters while this process leads. One is made for each leadership and is not used after it.
type Clusters struct {
	cfg      Config
	requests chan request
	words    chan word
	ready    chan struct{} // closed once everything is loaded
	ended    chan struct{} // closed when Run returns

	mu       sync.RWMutex
	clusters map[string]*cluster // written by Run's goroutine, under mu; read by anyone under mu.RLock
	moved    chan struct{}       // closed and replaced when something changed; guarded by mu
	alarms   []kernel.Alarm      // what was set aside; written by Run's goroutine, guarded by mu

	complete bool                  // Run's goroutine's own, as all below
	follows  map[string]*following // by Row.ID
	group    *errgroup.Group
	ctx      context.Context // of the followers; the one place where it is kept, as they start and end with clusters
}

// request is a change that somebody asked for; plan is called by Run's goroutine.
type request struct {
	plan func(context.Context) error
	done chan error // holds one
}

// word is what a follower heard from a steward, or why it hears nothing.
type word struct {
	id     string // Row.ID
	status *Status
	err    error
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
	return &Clusters{cfg: cfg, requests: make(chan request), words: make(chan word), ready: make(chan struct{}), ended: make(chan struct{}),
		clusters: map[string]*cluster{}, moved: make(chan struct{}), follows: map[string]*following{}}
}

// Run loads what the store holds and works until ctx ends, leadership is lost or the outcome of a write is unknown. It is called
// once.
func (k *Clusters) Run(ctx context.Context) error {
	defer close(k.ended)
	all, err := rows.Read(ctx, k.cfg.Store)
	if err != nil {
		return fmt.Errorf("clusters: load: %w", err)
	}
	for _, b := range all.Broken {
		k.cfg.Log.Error("row left alone", "err", b)
	}
	for name, r := range all.All() {
		k.clusters[name] = newCluster(r)
	}
	watch := k.cfg.Kernel.Watch(Framework)
	defer watch.Close()
	changes := make(chan kernel.Changes)
	k.group, k.ctx = errgroup.WithContext(ctx)
	k.group.Go(func() error { return kernel.Follow(k.ctx, watch, changes) })
	k.group.Go(func() error { return k.loop(k.ctx, changes) })
	return k.group.Wait()
}

// loop is the owner of all writing.
func (k *Clusters) loop(ctx context.Context, changes <-chan kernel.Changes) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var requests <-chan request // nil until the kernel's instances are known
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-changes:
			k.observe(c)
			if requests == nil {
				requests = k.requests
				close(k.ready)
			}
		case r := <-requests:
			err := r.plan(ctx)
			r.done <- err
			if fatal(err) {
				return err
			}
		case w := <-k.words:
			k.hear(w)
		case <-timer.C:
		}
		if requests == nil {
			continue
		}
		wake, err := k.settle(ctx)
		if err != nil {
			return err
		}
		timer.Reset(max(time.Until(wake), 10*time.Millisecond))
	}
}

// fatal reports whether an error means that this leadership's work is over.
func fatal(err error) bool {
	return errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, store.ErrConflict) || errors.Is(err, context.Canceled)
}

// observe takes in what the kernel tells.
func (k *Clusters) observe(c kernel.Changes) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Now()
	k.complete = c.Complete
	for _, r := range c.Instances {
		i := r.Instance()
		name, member, ok := ownerOf(i)
		if !ok {
			continue
		}
		if c := k.clusters[name]; c != nil {
			c.observe(member, i, now)
		} else if !i.Removed && i.Goal == kernel.GoalRun { // of a cluster that is none: its row was lost
			k.cfg.Log.Error("instance of an unknown cluster", "cluster", name, "group", i.ID)
		}
	}
	if c.Room {
		for _, c := range k.clusters {
			for _, m := range c.members {
				m.problem = ""
			}
		}
	}
}

// hear takes in a steward's word.
func (k *Clusters) hear(w word) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.clusters {
		if c.ID != w.id {
			continue
		}
		if w.err != nil {
			c.silent = w.err.Error()
			return
		}
		c.told, c.toldAt, c.silent = w.status, k.cfg.Now(), ""
		for _, n := range c.told.Nodes {
			if m := c.members[n.Name]; n.Ready && m != nil && m.instance != nil {
				m.joined = m.instance.ID
			}
		}
	}
}

// settle decides and carries out until there is nothing more to do now, and returns when to look again.
func (k *Clusters) settle(ctx context.Context) (time.Time, error) {
	now := k.cfg.Now()
	k.look()
	wake := now.Add(time.Hour)
	for _, name := range k.names() {
		at, err := k.settleOne(ctx, name)
		if err != nil {
			return wake, err
		}
		if !at.IsZero() && at.Before(wake) {
			wake = at
		}
	}
	k.mu.Lock()
	close(k.moved)
	k.moved = make(chan struct{})
	k.mu.Unlock()
	return wake, nil
}

func (k *Clusters) names() []string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return sortedKeys(k.clusters)
}

// look reads the kernel's claims and queue.
func (k *Clusters) look() {
	claims, queue, agents := k.cfg.Kernel.Claims(Framework), k.cfg.Kernel.Queue(Framework), k.cfg.Kernel.Agents()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.clusters {
		for _, m := range c.members {
			m.claim, m.waiting = nil, nil
		}
	}
	for _, view := range claims {
		if name, member, ok := memberOf(view.Name); ok && k.clusters[name] != nil {
			k.clusters[name].member(member).claim = &view
		}
	}
	for _, w := range queue {
		name, member, ok := memberOf(w.Key)
		if c := k.clusters[name]; ok && c != nil {
			m := c.member(member)
			m.waiting = &w
			if slices.Contains(w.Groups, m.asked) {
				m.asked = ""
			}
		}
	}
	for _, c := range k.clusters {
		if plane := c.members[controlPlane]; plane != nil && plane.claim != nil {
			for _, a := range agents {
				if a.ID == plane.claim.Agent && a.Address.IsValid() {
					c.machine = a.Address.String()
				}
			}
		}
	}
}

// settleOne brings one cluster as far as it comes now.
func (k *Clusters) settleOne(ctx context.Context, name string) (time.Time, error) {
	k.mu.Lock()
	c := k.clusters[name]
	now := k.cfg.Now()
	for _, m := range c.members { // forget members that neither exist nor should
		if m.claim == nil && m.instance == nil && m.waiting == nil && m.asked == "" && !c.wanted(m.name) {
			delete(c.members, m.name)
		} else if !c.wanted(m.name) && m.leaving.IsZero() {
			m.leaving = now
		} else if c.wanted(m.name) {
			m.leaving = time.Time{}
		}
	}
	d := decide(c, k.complete, now)
	pending := false // something of it changes without telling
	for _, m := range c.members {
		pending = pending || m.waiting != nil || m.claim != nil && m.claim.Released || m.asked != ""
	}
	k.mu.Unlock()
	if err := k.carryOut(ctx, c, d); err != nil {
		return time.Time{}, err
	}
	if d.Gone {
		return time.Time{}, nil
	}
	if err := k.balance(ctx, c); err != nil {
		return time.Time{}, err
	}
	k.attend(c)
	if err := k.note(ctx, c); err != nil {
		return time.Time{}, err
	}
	wake := d.Wake
	if len(d.Launch)+len(d.Stop)+len(d.Release)+len(d.Withdraw) > 0 || pending {
		if at := now.Add(lookAgain); wake.IsZero() || at.Before(wake) {
			wake = at
		}
	}
	return wake, nil
}

// carryOut makes a decision real.
func (k *Clusters) carryOut(ctx context.Context, c *cluster, d Decision) error {
	for _, m := range d.Withdraw {
		if _, err := k.cfg.Kernel.Withdraw(ctx, Framework, claimName(c.Name, m), nil); err != nil {
			return fmt.Errorf("cluster %s: withdraw %s: %w", c.Name, m, err)
		}
	}
	for _, why := range sortedKeys(d.Stop) {
		if err := k.cfg.Kernel.Stop(ctx, Framework, d.Stop[why], why); err != nil {
			return fmt.Errorf("cluster %s: stop: %w", c.Name, err)
		}
		for _, g := range d.Stop[why] {
			k.event(c, fmt.Sprintf("%s is stopped: %s", c.memberNamed(g), why))
		}
	}
	for _, m := range d.Launch {
		if err := k.launch(ctx, c, m); err != nil {
			return err
		}
	}
	for g, sizes := range d.Resize {
		if err := k.resize(ctx, c, g, sizes); err != nil {
			return err
		}
	}
	for _, claim := range d.Release {
		err := k.cfg.Kernel.Release(ctx, Framework, []string{claim})
		if err != nil && fatal(err) {
			return fmt.Errorf("cluster %s: release %s: %w", c.Name, claim, err)
		}
	}
	for _, m := range d.Load {
		k.supply(c, c.members[m])
	}
	if d.Gone {
		return k.bury(ctx, c)
	}
	return nil
}

func (c *cluster) memberNamed(g kernel.GroupID) string {
	for name, m := range c.members {
		if m.instance != nil && m.instance.ID == g {
			return name
		}
	}
	return string(g)
}

// launch starts a member. What the kernel refuses is the cluster's problem, and is tried again when something changes.
func (k *Clusters) launch(ctx context.Context, c *cluster, name string) error {
	m := c.members[name]
	var spec kernel.Spec
	var err error
	size := c.planeSize()
	if name == controlPlane {
		spec, err = c.controlPlaneSpec()
	} else {
		size = c.nodeSize()
		spec, err = c.nodeSpec(name, c.members[controlPlane].claim.Address)
	}
	if err != nil {
		return fmt.Errorf("cluster %s: %s: %w", c.Name, name, err)
	}
	id := kernel.GroupID(groupPrefix(c.Name, name) + k.cfg.NewID())
	result, err := k.cfg.Kernel.Launch(ctx, kernel.LaunchRequest{Key: claimName(c.Name, name), Spec: spec, Groups: []kernel.GroupID{id}})
	if err != nil && fatal(err) {
		return fmt.Errorf("cluster %s: launch %s: %w", c.Name, name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err != nil:
		m.problem = err.Error()
		m.failures++
		m.ended = k.cfg.Now()
	case result.Waiting > 0:
		m.problem = ""
		c.add(k.cfg.Now(), fmt.Sprintf("%s waits: %s", name, result.Refusal))
	default:
		m.asked, m.has, m.problem, m.taken = id, &size, "", false
		c.add(k.cfg.Now(), fmt.Sprintf("%s starts on %s", name, result.Placed[0].Hostname))
	}
	return nil
}

func (k *Clusters) resize(ctx context.Context, c *cluster, g kernel.GroupID, sizes []kernel.Size) error {
	err := k.cfg.Kernel.Resize(ctx, Framework, g, sizes)
	if err != nil && fatal(err) {
		return fmt.Errorf("cluster %s: resize: %w", c.Name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	m := c.members[c.memberNamed(g)]
	if m == nil {
		return nil
	}
	if err != nil {
		if m.problem != err.Error() {
			c.add(k.cfg.Now(), fmt.Sprintf("%s keeps its size: %v", m.name, err))
		}
		m.problem = err.Error()
		return nil
	}
	m.has = &sizes[0]
	c.add(k.cfg.Now(), fmt.Sprintf("%s has %s now", m.name, kernel.Resources{MilliCPU: sizes[0].Guarantee.MilliCPU, Mem: sizes[0].Guarantee.Mem}))
	return nil
}

// commit writes operations under the fence. An error ends this leadership's work, unless the store refused what was written.
func (k *Clusters) commit(ctx context.Context, ops ...store.Op) error {
	_, err := k.cfg.Store.Commit(ctx, store.Txn{Guards: []store.Guard{k.cfg.Fence}, Ops: ops})
	if err != nil {
		return fmt.Errorf("clusters: %w", err)
	}
	return nil
}

// bury removes what is left of a deleted cluster: its rows and loaded images.
func (k *Clusters) bury(ctx context.Context, c *cluster) error {
	if _, err := k.cfg.Kernel.Expose(ctx, Framework, owner(c.Name, "nodes"), nil); err != nil && fatal(err) {
		return fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	if err := k.removeImages(c); err != nil {
		k.cfg.Log.Error("images of a deleted cluster not removed", "cluster", c.Name, "err", err)
	}
	sealed, err := leaves.Read(ctx, k.cfg.Store)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	ops := []store.Op{rows.Delete(c.Name), keys.Delete(c.ID)}
	for _, r := range sealed.List {
		if id, _, ok := cutLeaf(r.ID); ok && id == c.ID {
			ops = append(ops, leaves.Delete(r.ID))
		}
	}
	if err := k.commit(ctx, ops...); err != nil {
		return err
	}
	k.unfollow(c.ID)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.clusters, c.Name)
	k.cfg.Log.Info("cluster is gone", "cluster", c.Name)
	return nil
}

// balance exposes what the cluster's load balancers ask for.
func (k *Clusters) balance(ctx context.Context, c *cluster) error {
	k.mu.RLock()
	taken := map[uint16]bool{}
	for _, o := range k.clusters {
		for _, p := range o.Published {
			taken[p] = true
		}
	}
	published, refused := c.publish(taken, k.cfg.Publish)
	want := c.ports(published)
	known := c.told != nil && c.Deleted.IsZero()
	k.mu.RUnlock()
	if !known {
		return nil
	}
	if !maps.Equal(published, c.Published) {
		row := c.Row
		row.Published = published
		if err := k.save(ctx, c, row); err != nil {
			return err
		}
	}
	exposed, err := k.cfg.Kernel.Expose(ctx, Framework, owner(c.Name, "nodes"), want)
	if err != nil {
		if fatal(err) {
			return fmt.Errorf("cluster %s: expose: %w", c.Name, err)
		}
		for key := range published {
			refused[key] = err.Error()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		c.exposed = exposed
	}
	c.refused = refused
	return nil
}

// save writes a cluster's row and then takes it over.
func (k *Clusters) save(ctx context.Context, c *cluster, row Row) error {
	op, err := rows.Put(row.Name, row)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", row.Name, err)
	}
	if err := k.commit(ctx, op); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c.Row = row
	return nil
}

// note writes down when a cluster is ready for the first time, and tells changes of its state.
func (k *Clusters) note(ctx context.Context, c *cluster) error {
	k.mu.Lock()
	now := k.cfg.Now()
	state, _ := c.stand()
	if state != c.state {
		if c.state != "" {
			c.add(now, "is "+string(state))
			k.cfg.Log.Info("cluster changed", "cluster", c.Name, "state", string(state))
		}
		c.state = state
	}
	row := c.Row
	k.mu.Unlock()
	if state == Ready && row.ReadyAt.IsZero() {
		row.ReadyAt = now.UTC().Round(time.Millisecond)
		return k.save(ctx, c, row)
	}
	return nil
}

func (k *Clusters) event(c *cluster, message string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.add(k.cfg.Now(), message)
}

// add notes an event.
func (c *cluster) add(now time.Time, message string) {
	if n := len(c.events); n > 0 && c.events[n-1].Message == message {
		return
	}
	c.events = append(c.events, Event{Time: now.UTC().Round(time.Millisecond), Cluster: c.Name, Message: message})
	if len(c.events) > MaxEvents {
		c.events = slices.Clone(c.events[len(c.events)-MaxEvents:])
	}
}

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
