package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/knftables"
)

// retryAfter is the time after something could not be set up.
const retryAfter = time.Second

// sysctls are the node's, in its own network namespace. Strict reverse paths for links to come hold pods to the address
// that they were given; on the overlay they would be no more than a second opinion.
var sysctls = []struct{ file, value string }{
	{"/proc/sys/net/ipv4/ip_forward", "1"},
	{"/proc/sys/net/ipv4/conf/default/rp_filter", "1"},
}

var overlaySysctls = []struct{ file, value string }{
	{"/proc/sys/net/ipv4/conf/" + Device + "/rp_filter", "0"},
}

// Config configures Routes. All fields are required.
type Config struct {
	// Node is this node's name in the API, Address its own address on the machines' network.
	Node    string
	Address netip.Addr
	// Cluster is the range of all pods, Services that of Services.
	Cluster, Services netip.Prefix
	// VNI is the cluster's number in VXLAN.
	VNI int
	// Informers is a factory that knows Nodes. The caller starts it after New.
	Informers informers.SharedInformerFactory
	NFT       knftables.Interface
	// CNIConfig is the file to write, GateSocket what it tells the plugin gate.
	CNIConfig, GateSocket string
	// AfterCNI is closed by the caller when the configuration may be written.
	AfterCNI <-chan struct{}
	Log      *slog.Logger
}

// Routes keeps a node's network.
type Routes struct {
	cfg    Config
	nodes  corelisters.NodeLister
	synced cache.InformerSynced
	dirty  chan struct{}
	seen   chan struct{}
	ready  chan struct{}

	once struct{ seen, ready sync.Once }
	// Run's:
	overlay *overlay
	peers   []peer
	written bool // whether peers stands in the tables
}

// New returns what does nothing before Run.
func New(cfg Config) (*Routes, error) {
	r := &Routes{
		cfg: cfg, nodes: cfg.Informers.Core().V1().Nodes().Lister(),
		dirty: make(chan struct{}, 1), seen: make(chan struct{}), ready: make(chan struct{}),
	}
	tell := func() {
		select {
		case r.dirty <- struct{}{}:
		default:
		}
	}
	registered, err := cfg.Informers.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { tell() },
		UpdateFunc: func(old, now any) {
			if !sameNode(old.(*corev1.Node), now.(*corev1.Node)) {
				tell()
			}
		},
		DeleteFunc: func(any) { tell() },
	})
	if err != nil {
		return nil, err
	}
	r.synced = registered.HasSynced
	return r, nil
}

// sameNode says whether two versions of a node mean the same to routes: kubelets write one every few seconds.
func sameNode(a, b *corev1.Node) bool {
	x, okX := internalAddress(a)
	y, okY := internalAddress(b)
	return x == y && okX == okY && a.Spec.PodCIDR == b.Spec.PodCIDR && slices.Equal(a.Spec.PodCIDRs, b.Spec.PodCIDRs)
}

// Seen is closed when the API has this node with an address.
func (r *Routes) Seen() <-chan struct{} { return r.seen }

// Ready is closed when the CNI configuration is written.
func (r *Routes) Ready() <-chan struct{} { return r.ready }

// Run keeps the network until ctx ends, and returns nil then. What cannot be set up is logged and tried again.
func (r *Routes) Run(ctx context.Context) error {
	if err := set(sysctls); err != nil {
		return err
	}
	if !cache.WaitForCacheSync(ctx.Done(), r.synced) {
		return nil
	}
	var retry <-chan time.Time
	afterCNI := r.cfg.AfterCNI
	for {
		if err := r.sync(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("node's network not set up", "err", err)
			retry = time.After(retryAfter)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.dirty:
		case <-retry:
		case <-afterCNI:
			afterCNI = nil // the next sync writes it
		}
		retry = nil
	}
}

var errNoRange = errors.New("no podCIDR yet")

// sync brings everything from the Nodes. Without a range for its own pods a node waits.
func (r *Routes) sync(ctx context.Context) error {
	nodes, err := r.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	self, err := r.self(nodes)
	if errors.Is(err, errNoRange) {
		return nil
	}
	if err != nil {
		return err
	}
	peers := peersOf(r.cfg.Node, r.cfg.Cluster, nodes)
	if r.overlay == nil || r.overlay.self != self {
		if err := r.open(ctx, self, peers); err != nil {
			return err
		}
	}
	if !r.written || !slices.Equal(peers, r.peers) {
		r.written = false
		if err := writeNodes(ctx, r.cfg.NFT, peers); err != nil {
			return err
		}
		if err := r.overlay.keep(peers); err != nil {
			return err
		}
		r.peers, r.written = peers, true
		r.cfg.Log.Info("overlay follows", "nodes", len(peers))
	}
	return r.announce(self)
}

// self is this node as the API has it.
func (r *Routes) self(nodes []*corev1.Node) (peer, error) {
	i := slices.IndexFunc(nodes, func(n *corev1.Node) bool { return n.Name == r.cfg.Node })
	if i < 0 {
		return peer{}, errNoRange
	}
	if _, ok := internalAddress(nodes[i]); ok {
		r.once.seen.Do(func() { close(r.seen) })
	}
	if nodes[i].Spec.PodCIDR == "" {
		return peer{}, errNoRange
	}
	pods, err := podRange(r.cfg.Cluster, nodes[i])
	return peer{r.cfg.Address, pods}, err
}

func (r *Routes) open(ctx context.Context, self peer, peers []peer) error {
	under, err := linkOf(self.node)
	if err != nil {
		return err
	}
	if err := writeTable(ctx, r.cfg.NFT, r.cfg.Cluster, r.cfg.Services, under.Attrs().Name, peers); err != nil {
		return err
	}
	o, err := openOverlay(self, r.cfg.VNI, under)
	if err != nil {
		return err
	}
	if err := set(overlaySysctls); err != nil {
		return err
	}
	r.overlay, r.written = o, false
	return nil
}

// announce writes the CNI configuration once it may.
func (r *Routes) announce(self peer) error {
	select {
	case <-r.cfg.AfterCNI:
	default:
		return nil
	}
	content, err := cniConfig(self.pods, r.overlay.mtu(), r.cfg.GateSocket)
	if err != nil {
		return err
	}
	if err := writeCNI(r.cfg.CNIConfig, content); err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	r.once.ready.Do(func() { close(r.ready) })
	return nil
}

// set writes sysctls that do not have their value yet.
func set(list []struct{ file, value string }) error {
	for _, s := range list {
		if have, err := os.ReadFile(s.file); err == nil && string(have) == s.value+"\n" {
			continue
		}
		if err := os.WriteFile(s.file, []byte(s.value), 0o644); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	return nil
}
