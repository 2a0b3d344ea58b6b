package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/machine"
)

// repairInterval is the time between two repairs by Run.
const repairInterval = 5 * time.Second

// publishedOwner is the owner of all published ports in the port map, whichever services they are of.
const publishedOwner = "a published port"

// Config are the settings of a datacenter's network.
type Config struct {
	State   string       // the datacenter's directory; netns and network in it are ours
	ID      string       // instance id: 8 hex digits
	Plugins string       // directory of the CNI plugins bridge and static
	Open    []Port       // ports of the machine that instances may call beside DNS and frontends; default none
	Log     *slog.Logger // default: discarded
}

// Network connects instances on one machine. Its methods are safe for concurrent use.
type Network struct {
	cfg   Config
	log   *slog.Logger
	rules Rules
	names Names
	root  string // cfg.State/network

	mu      sync.Mutex
	idle    *sync.Cond // on mu: an instance stopped being worked on
	busy    map[kernel.InstanceID]bool
	records map[kernel.InstanceID]record // as on disk
	layout  Layout                       // zero before Configure
	table   *table
	ports   portMap
	pending map[Frontend]bool  // touched by changes of the packet rules that failed
	behind  bool               // the last change of the packet rules failed
	blocked map[Frontend]error // published frontends that are closed because another process has their port

	applied   bool              // endpoints were given by this process
	endpoints []kernel.Endpoint // the last given
}

// New reads the records of instances that earlier processes attached. Nothing on the machine changes before Configure.
func New(cfg Config, rules Rules, names Names) (*Network, error) {
	if len(cfg.ID) != 8 {
		return nil, fmt.Errorf("instance id %q: expected 8 hex digits: %w", cfg.ID, errdefs.ErrInvalidArgument)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Network{cfg: cfg, log: cfg.Log, rules: rules, names: names, root: filepath.Join(cfg.State, "network"),
		busy: map[kernel.InstanceID]bool{}, table: newTable(), ports: portMap{},
		pending: map[Frontend]bool{}, blocked: map[Frontend]error{}}
	n.idle = sync.NewCond(&n.mu)
	var err error
	n.records, err = readRecords(n.recordDir())
	return n, err
}

func (n *Network) recordDir() string { return filepath.Join(n.root, "groups") }

// Configure sets the machine up for its subnet: bridge, routes, rules, name server. It can be repeated; another subnet
// than before is refused while instances are attached.
func (n *Network) Configure(ctx context.Context, subnet netip.Prefix, info kernel.NetworkInfo) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, err := n.newLayout(subnet, info)
	if err != nil {
		return err
	}
	if err := CheckConflicts(l.Bridge, l.Pool, l.VIPs); err != nil {
		return err
	}
	if err := os.MkdirAll(n.recordDir(), 0o700); err != nil {
		return err
	}
	if err := n.sweep(); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(n.root, "layout.json"), l); err != nil {
		return err
	}
	if err := n.prepareMachine(l); err != nil {
		return err
	}
	if err := n.rules.Configure(l); err != nil {
		return err
	}
	n.layout, n.table.subnet = l, l.Subnet
	if n.table.ownAddrs, err = ownAddresses(); err != nil {
		return err
	}
	touched := map[Frontend]bool{}
	for _, r := range n.records {
		maps.Copy(touched, n.addHostPorts(r))
	}
	if err := n.changeRules(touched); err != nil {
		return err
	}
	return n.names.Listen(l)
}

// sweep removes files that a crash left half written. The mutex is held, so nobody writes.
func (n *Network) sweep() error {
	root, err := os.OpenRoot(n.root)
	if err != nil {
		return err
	}
	defer root.Close()
	return errors.Join(durable.In(root).Sweep("."), durable.In(root).Sweep("groups"))
}

// newLayout checks the master's prefixes against each other and the attached instances, and derives the layout.
func (n *Network) newLayout(subnet netip.Prefix, info kernel.NetworkInfo) (Layout, error) {
	subnet, pool, vips := subnet.Masked(), info.Pool.Masked(), info.VIPs.Masked()
	switch {
	case !subnet.IsValid() || !pool.IsValid() || !vips.IsValid() || !subnet.Addr().Is4() || !pool.Addr().Is4() ||
		!vips.Addr().Is4():
		return Layout{}, fmt.Errorf("subnet %s, pool %s, VIPs %s: expected three IPv4 prefixes: %w", subnet, pool, vips,
			errdefs.ErrInvalidArgument)
	case subnet.Bits() > 29 || pool.Bits() > subnet.Bits() || !pool.Contains(subnet.Addr()):
		return Layout{}, fmt.Errorf("subnet %s is not a part of pool %s with room for groups: %w", subnet, pool,
			errdefs.ErrInvalidArgument)
	case pool.Overlaps(vips):
		return Layout{}, fmt.Errorf("pool %s and VIPs %s overlap: %w", pool, vips, errdefs.ErrInvalidArgument)
	}
	l := Layout{ID: n.cfg.ID, Bridge: BridgeName(n.cfg.ID), Gateway: subnet.Addr().Next(), Subnet: subnet, Pool: pool,
		VIPs: vips}
	for _, r := range n.records {
		if r.Mode == kernel.NetworkBridge && !subnet.Contains(r.Address) {
			return Layout{}, fmt.Errorf("group %s has address %s, which is not of the new subnet %s; stop it first: %w",
				r.Instance, r.Address, subnet, errdefs.ErrFailedPrecondition)
		}
	}
	return l, nil
}

// prepareMachine creates bridge and route, changes the settings, and attaches instances to the bridge again if it was
// lost.
func (n *Network) prepareMachine(l Layout) error {
	if err := n.sysctls().Set("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if err := ensureBridge(l, machineMTU()); err != nil {
		return err
	}
	// route_localnet of the bridge lets the machine call host ports at 127.0.0.1; a packet rule keeps instances from
	// sending to or from there. The other two settings only save work: without them rules would drop the packets.
	if err := machine.SetSysctl("net/ipv4/conf/"+l.Bridge+"/route_localnet", "1"); err != nil {
		n.log.Error("127.0.0.1 will not lead to groups", "err", err)
	}
	_ = machine.SetSysctl("net/ipv6/conf/"+l.Bridge+"/disable_ipv6", "1")
	_ = machine.SetSysctl("net/ipv4/conf/"+l.Bridge+"/send_redirects", "0")
	for _, r := range n.records {
		if r.Done && r.Link != "" {
			if err := rejoinBridge(r, l.Bridge); err != nil {
				n.log.Error("group lost its network", "group", r.Instance, "err", err)
			}
		}
	}
	return nil
}

// sysctls returns the record of the machine's settings as they were before this datacenter.
func (n *Network) sysctls() *machine.Sysctls {
	return machine.RecordedIn(filepath.Join(n.root, "sysctls.json"))
}

// addHostPorts adds the frontends of an attached instance's host ports to the table, binds the ports, and returns the
// frontends that changed. The mutex is held.
func (n *Network) addHostPorts(r record) map[Frontend]bool {
	touched := map[Frontend]bool{}
	for f, b := range hostBackends(r.Attachment) {
		n.table.removeBackends(f, map[string]bool{b.owner: true})
		n.table.backends[f] = append(n.table.backends[f], b)
		touched[f] = true
		if err := n.ports.rebind(f.Port, b.owner); err != nil {
			n.log.Error("host port was taken while nobody held it; it still leads to its group", "group", r.Instance, "err", err)
		}
	}
	return touched
}

// removeHostPorts undoes addHostPorts.
func (n *Network) removeHostPorts(r record) map[Frontend]bool {
	touched := map[Frontend]bool{}
	for f, b := range hostBackends(r.Attachment) {
		n.table.removeBackends(f, map[string]bool{b.owner: true})
		n.ports.release(f.Port, b.owner)
		touched[f] = true
	}
	return touched
}

// changeRules brings the packet rules in line with table, records and port map: of the frontends only the touched
// ones, all else whole. A published port that another process has bound is closed and returned as an error, after all
// else was changed.
//
// If the rules refuse the change, the frontends stay pending and the next call includes them.
func (n *Network) changeRules(touched map[Frontend]bool) error {
	maps.Copy(n.pending, touched)
	c := RuleChange{Backends: make(map[Frontend][]netip.AddrPort, len(n.pending)), Links: map[string]netip.Addr{},
		Open: map[Port]bool{}}
	c.Networks, c.Inner = isolation(n.records)
	var errs []error
	for f := range n.pending {
		c.Backends[f] = n.table.readyAddrs(f)
		if f.Addr != Anywhere {
			continue
		}
		delete(n.blocked, f)
		if !n.table.isPublished(f) {
			n.ports.release(f.Port, publishedOwner)
		} else if err := n.ports.bind(f.Port, publishedOwner); err != nil {
			n.blocked[f] = err
			errs = append(errs, err)
		}
	}
	for f := range n.blocked { // an instance's own host port still serves
		if n.ports[f.Port] == nil {
			c.Backends[f], c.Backends[Frontend{Loopback, f.Port}] = nil, nil
		}
	}
	c.Bound = n.ports.bound()
	for _, p := range n.cfg.Open {
		c.Open[p] = true
	}
	for _, r := range n.records {
		switch {
		case !r.Done:
		case r.Mode == kernel.NetworkBridge:
			c.Links[r.Link] = r.Address
		case r.Mode == kernel.NetworkHost:
			for _, m := range r.Ports {
				if m.Host != 0 {
					c.Open[Port{m.Protocol, m.Host}] = true
				}
			}
		}
	}
	if err := n.rules.ChangeRules(c); err != nil {
		n.behind = true
		return err
	}
	clear(n.pending)
	n.behind = false
	return errors.Join(errs...)
}

// retryRules repeats a change of the packet rules that failed, so that repeated calls do not succeed without it.
func (n *Network) retryRules() error {
	if !n.behind {
		return nil
	}
	return n.changeRules(nil)
}

// Apply replaces VIPs, published ports and names by those of endpoints; when it returns, new connections follow them.
// Established connections are left alone. The slice is the whole table, sorted by task, and is not kept. A published
// port that another process has bound is an errdefs.ErrAlreadyExists that names it; all else is applied then, and Run
// tries the port again.
func (n *Network) Apply(_ context.Context, endpoints []kernel.Endpoint) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.layout.Subnet.IsValid() {
		return notConfigured()
	}
	removed, added := difference(n.endpoints, endpoints)
	touched := n.table.applyEndpoints(removed, added)
	if !n.applied { // frontends of an earlier process may have no endpoint any more
		for f := range n.rules.Frontends() {
			touched[f] = true
		}
	}
	n.names.ChangeNames(removed, added)
	n.endpoints, n.applied = append(n.endpoints[:0], endpoints...), true
	if len(touched) == 0 {
		return n.retryRules()
	}
	return n.changeRules(touched)
}

func notConfigured() error {
	return fmt.Errorf("network is not configured yet: %w", errdefs.ErrFailedPrecondition)
}

// Resolver returns the address of the name server for tasks on this machine; invalid before Configure.
func (n *Network) Resolver() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.layout.Gateway
}

// Run answers for names and repairs what others change on the machine, until ctx ends. The network goes on serving
// then.
func (n *Network) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.names.Run(ctx) })
	g.Go(func() error {
		tick := time.NewTicker(repairInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				n.repair()
			}
		}
	})
	return g.Wait()
}

// repair restores bridge and route, and the packet rules.
func (n *Network) repair() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.layout.Subnet.IsValid() {
		return
	}
	if !machineReady(n.layout) {
		n.log.Info("network repaired", "bridge", n.layout.Bridge)
		if err := n.prepareMachine(n.layout); err != nil {
			n.log.Error("network is not as it should be", "bridge", n.layout.Bridge, "err", err)
		}
	}
	n.repairRules()
}

// repairRules restores the packet rules, repeats a change that failed and tries again to bind the ports that others
// had. The mutex is held.
func (n *Network) repairRules() {
	switch repaired, err := n.rules.Repair(); {
	case err != nil:
		n.log.Error("packet rules are not as they should be", "err", err)
	case repaired:
		n.log.Info("packet rules repaired")
	}
	touched := map[Frontend]bool{}
	for f := range n.blocked {
		touched[f], touched[Frontend{Loopback, f.Port}] = true, true
	}
	for p, h := range n.ports {
		if h.fd < 0 && n.ports.bind(p, h.owner) == nil {
			touched[Frontend{Anywhere, p}] = true
		}
	}
	if len(touched) == 0 && !n.behind {
		return
	}
	if err := n.changeRules(touched); err != nil && !errdefs.IsAlreadyExists(err) {
		n.log.Error("packet rules are not as they should be", "err", err)
	}
}

// Close releases the bound ports. The network goes on serving.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p, h := range n.ports {
		n.ports.release(p, h.owner)
	}
}
