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

// repairInterval is how often the machine is compared with what it should be.
const repairInterval = 5 * time.Second

// published holds ports on behalf of services, whoever they are.
const published = "a published port"

// Config says where a datacenter's network lives.
type Config struct {
	State   string       // the datacenter's folder; netns and network in it are ours
	ID      string       // instance id: 8 hex digits
	Plugins string       // folder of the CNI plugins bridge and static
	Open    []Port       // ports of the machine that groups may call beside DNS and doors; default none
	Log     *slog.Logger // default: discarded
}

// Network connects groups on one machine. Its methods are safe for concurrent use.
type Network struct {
	cfg   Config
	log   *slog.Logger
	rules Rules
	names Names
	root  string // cfg.State/network

	mu      sync.Mutex
	idle    *sync.Cond // on mu: a group stopped being worked on
	busy    map[kernel.GroupID]bool
	records map[kernel.GroupID]record // as on disk
	layout  Layout                    // zero before Configure
	table   *table
	holds   holds
	blocked map[Door]error // published doors that are closed because somebody else has their port

	applied   bool              // endpoints were given by this process
	endpoints []kernel.Endpoint // the last given
}

// New reads what earlier processes attached. Nothing on the machine changes before Configure.
func New(cfg Config, rules Rules, names Names) (*Network, error) {
	if len(cfg.ID) != 8 {
		return nil, fmt.Errorf("instance id %q: expected 8 hex digits: %w", cfg.ID, errdefs.ErrInvalidArgument)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Network{cfg: cfg, log: cfg.Log, rules: rules, names: names, root: filepath.Join(cfg.State, "network"),
		busy: map[kernel.GroupID]bool{}, table: newTable(), holds: holds{}, blocked: map[Door]error{}}
	n.idle = sync.NewCond(&n.mu)
	var err error
	n.records, err = readRecords(n.groups())
	return n, err
}

func (n *Network) groups() string { return filepath.Join(n.root, "groups") }

// Configure sets the machine up for its subnet: bridge, routes, rules, name server. It can be repeated; another subnet
// than before is refused while groups are attached.
func (n *Network) Configure(ctx context.Context, subnet netip.Prefix, info kernel.NetworkInfo) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, err := n.plan(subnet, info)
	if err != nil {
		return err
	}
	if err := CheckConflicts(l.Bridge, l.Pool, l.VIPs); err != nil {
		return err
	}
	if err := os.MkdirAll(n.groups(), 0o700); err != nil {
		return err
	}
	if err := n.sweep(); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(n.root, "layout.json"), l); err != nil {
		return err
	}
	if err := n.prepare(l); err != nil {
		return err
	}
	if err := n.rules.Configure(l); err != nil {
		return err
	}
	n.layout, n.table.subnet = l, l.Subnet
	if n.table.own, err = ownAddresses(); err != nil {
		return err
	}
	touched := map[Door]bool{}
	for _, r := range n.records {
		maps.Copy(touched, n.admit(r))
	}
	if err := n.change(touched); err != nil {
		return err
	}
	return n.names.Listen(l)
}

// sweep removes files whose writer was cut off. The mutex is held, so nobody writes.
func (n *Network) sweep() error {
	root, err := os.OpenRoot(n.root)
	if err != nil {
		return err
	}
	defer root.Close()
	return errors.Join(durable.In(root).Sweep("."), durable.In(root).Sweep("groups"))
}

// plan checks what the master gave and names what we make of it.
func (n *Network) plan(subnet netip.Prefix, info kernel.NetworkInfo) (Layout, error) {
	subnet, pool, vips := subnet.Masked(), info.Pool.Masked(), info.VIPs.Masked()
	switch {
	case !subnet.IsValid() || !pool.IsValid() || !vips.IsValid() || !subnet.Addr().Is4() || !pool.Addr().Is4() || !vips.Addr().Is4():
		return Layout{}, fmt.Errorf("subnet %s, pool %s, VIPs %s: expected three IPv4 prefixes: %w", subnet, pool, vips, errdefs.ErrInvalidArgument)
	case subnet.Bits() > 29 || pool.Bits() > subnet.Bits() || !pool.Contains(subnet.Addr()):
		return Layout{}, fmt.Errorf("subnet %s is not a part of pool %s with room for groups: %w", subnet, pool, errdefs.ErrInvalidArgument)
	case pool.Overlaps(vips):
		return Layout{}, fmt.Errorf("pool %s and VIPs %s overlap: %w", pool, vips, errdefs.ErrInvalidArgument)
	}
	l := Layout{ID: n.cfg.ID, Bridge: BridgeName(n.cfg.ID), Gateway: subnet.Addr().Next(), Subnet: subnet, Pool: pool, VIPs: vips}
	for _, r := range n.records {
		if r.Mode == kernel.NetworkBridge && !subnet.Contains(r.Address) {
			return Layout{}, fmt.Errorf("group %s has address %s, which is not of the new subnet %s; stop it first: %w",
				r.Group, r.Address, subnet, errdefs.ErrFailedPrecondition)
		}
	}
	return l, nil
}

// prepare makes bridge, route and settings, and puts attached groups back on the bridge if it was lost.
func (n *Network) prepare(l Layout) error {
	if err := n.sysctls().Set("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if err := ensureBridge(l, machineMTU()); err != nil {
		return err
	}
	// Of the bridge's own settings route_localnet lets the machine call host ports at 127.0.0.1; that groups cannot send to
	// or from there is a rule. The others only spare work: without them rules would drop the packets.
	if err := machine.SetSysctl("net/ipv4/conf/"+l.Bridge+"/route_localnet", "1"); err != nil {
		n.log.Error("127.0.0.1 will not lead to groups", "err", err)
	}
	_ = machine.SetSysctl("net/ipv6/conf/"+l.Bridge+"/disable_ipv6", "1")
	_ = machine.SetSysctl("net/ipv4/conf/"+l.Bridge+"/send_redirects", "0")
	for _, r := range n.records {
		if r.Done && r.Link != "" {
			if err := rejoin(r, l.Bridge); err != nil {
				n.log.Error("group lost its network", "group", r.Group, "err", err)
			}
		}
	}
	return nil
}

// sysctls remembers what settings of the machine were before the datacenter was here.
func (n *Network) sysctls() *machine.Sysctls {
	return machine.RecordedIn(filepath.Join(n.root, "sysctls.json"))
}

// admit takes an attached group's doors and ports into account; it returns the doors touched. The mutex is held.
func (n *Network) admit(r record) map[Door]bool {
	touched := map[Door]bool{}
	for d, l := range hostDoors(r.Attachment) {
		n.table.out(d, map[string]bool{l.who: true})
		n.table.doors[d] = append(n.table.doors[d], l)
		touched[d] = true
		if err := n.holds.retake(d.Port, l.who); err != nil {
			n.log.Error("host port was taken while nobody held it; it still leads to its group", "group", r.Group, "err", err)
		}
	}
	return touched
}

// expel is the reverse of admit.
func (n *Network) expel(r record) map[Door]bool {
	touched := map[Door]bool{}
	for d, l := range hostDoors(r.Attachment) {
		n.table.out(d, map[string]bool{l.who: true})
		n.holds.free(d.Port, l.who)
		touched[d] = true
	}
	return touched
}

// change makes the rules those of table, records and holds, as far as the touched doors are concerned. What is published on
// a port of somebody else's is closed and comes back as an error, after all else has been changed.
func (n *Network) change(touched map[Door]bool) error {
	c := Change{Doors: make(map[Door][]netip.AddrPort, len(touched)), Links: map[string]netip.Addr{}, Open: map[Port]bool{}}
	c.Networks, c.Inner = isolation(n.records)
	var errs []error
	for d := range touched {
		c.Doors[d] = n.table.leads(d)
		if d.Addr != Anywhere {
			continue
		}
		delete(n.blocked, d)
		if !n.table.published(d) {
			n.holds.free(d.Port, published)
		} else if err := n.holds.take(d.Port, published); err != nil {
			n.blocked[d] = err
			errs = append(errs, err)
		}
	}
	for d := range n.blocked { // a group's own host port leads on
		if n.holds[d.Port] == nil {
			c.Doors[d], c.Doors[Door{Loopback, d.Port}] = nil, nil
		}
	}
	c.Held = n.holds.ports()
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
	if err := n.rules.Change(c); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// Apply makes VIPs, published ports and names those of endpoints; it returns when connections go that way. Established
// connections are left alone. The slice is the whole table, sorted by task, and is not kept. A published port that
// somebody else has is an errdefs.ErrAlreadyExists that names the owner; all else is applied then, and the port is tried
// again by Run.
func (n *Network) Apply(_ context.Context, endpoints []kernel.Endpoint) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.layout.Subnet.IsValid() {
		return notConfigured()
	}
	removed, added := difference(n.endpoints, endpoints)
	touched := n.table.change(removed, added)
	if !n.applied { // doors of an earlier process that nobody leads anywhere now
		for d := range n.rules.Doors() {
			touched[d] = true
		}
	}
	n.names.Change(removed, added)
	n.endpoints, n.applied = append(n.endpoints[:0], endpoints...), true
	if len(touched) == 0 {
		return nil
	}
	return n.change(touched)
}

func notConfigured() error {
	return fmt.Errorf("network is not configured yet: %w", errdefs.ErrFailedPrecondition)
}

// Resolver is the address tasks on this machine should ask for names; invalid before Configure.
func (n *Network) Resolver() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.layout.Gateway
}

// Run answers for names and keeps the machine as it should be until ctx ends. What it leaves behind goes on serving.
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

// repair puts back what others changed and tries ports again that could not be had.
func (n *Network) repair() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.layout.Subnet.IsValid() {
		return
	}
	if !machineReady(n.layout) {
		n.log.Info("network repaired", "bridge", n.layout.Bridge)
		if err := n.prepare(n.layout); err != nil {
			n.log.Error("network is not as it should be", "bridge", n.layout.Bridge, "err", err)
		}
	}
	switch repaired, err := n.rules.Repair(); {
	case err != nil:
		n.log.Error("packet rules are not as they should be", "err", err)
	case repaired:
		n.log.Info("packet rules repaired")
	}
	touched := map[Door]bool{}
	for d := range n.blocked {
		touched[d], touched[Door{Loopback, d.Port}] = true, true
	}
	for p, h := range n.holds {
		if h.fd < 0 && n.holds.take(p, h.who) == nil {
			touched[Door{Anywhere, p}] = true
		}
	}
	if len(touched) == 0 {
		return
	}
	if err := n.change(touched); err != nil && !errdefs.IsAlreadyExists(err) {
		n.log.Error("packet rules are not as they should be", "err", err)
	}
}

// Close gives back what this process holds: ports and connections to the kernel. The network goes on serving.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p, h := range n.holds {
		n.holds.free(p, h.who)
	}
}
