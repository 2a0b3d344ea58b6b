package policy

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/knftables"
)

// After a writing the engine rests this many times as long as compiling and writing took, within bounds: changes
// gather, and it costs at most a tenth of a core however busy the cluster is. The gate does not wait for it.
const (
	restFactor = 10
	restMin    = 10 * time.Millisecond
	restMax    = time.Second
	retryAfter = time.Second // after a writing that failed
)

// Config configures an Engine. All fields are required.
type Config struct {
	// Node is this node's name in the API.
	Node string
	// Informers is a factory whose transform is Trim. The caller starts it after New.
	Informers informers.SharedInformerFactory
	NFT       knftables.Interface
	// ClaimsFile keeps what the gate was told, for a process after this one. Its directory exists.
	ClaimsFile string
	Log        *slog.Logger
}

// Engine keeps the node's rules in step with the API and the gate. Its methods are safe for concurrent use.
type Engine struct {
	cfg        Config
	writer     *Writer // Run's
	claims     *claims
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
	synced     []cache.InformerSynced

	dirty  chan struct{} // something changed
	urgent chan struct{} // somebody waits for it
	first  chan struct{} // closed after the first writing

	mu      sync.Mutex
	stands  map[netip.Addr]podID // guarded by mu: whose rules each local address has, by the last writing
	changed chan struct{}        // guarded by mu: closed at the next writing
}

// podID tells pods apart, those of one name after each other too.
type podID struct{ namespace, name, uid string }

// New returns an engine that does nothing before Run.
func New(cfg Config) (*Engine, error) {
	held, err := openClaims(cfg.ClaimsFile)
	if err != nil {
		return nil, err
	}
	core, networking := cfg.Informers.Core().V1(), cfg.Informers.Networking().V1()
	e := &Engine{
		cfg: cfg, writer: NewWriter(cfg.NFT), claims: held,
		pods: core.Pods().Lister(), namespaces: core.Namespaces().Lister(), policies: networking.NetworkPolicies().Lister(),
		dirty: make(chan struct{}, 1), urgent: make(chan struct{}, 1), first: make(chan struct{}), changed: make(chan struct{}),
	}
	for _, informer := range []cache.SharedIndexInformer{core.Pods().Informer(), core.Namespaces().Informer(), networking.NetworkPolicies().Informer()} {
		registered, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { signal(e.dirty) },
			UpdateFunc: func(old, now any) {
				if a, ok := old.(*corev1.Pod); ok && same(a, now.(*corev1.Pod)) {
					return
				}
				signal(e.dirty)
			},
			DeleteFunc: func(any) { signal(e.dirty) },
		})
		if err != nil {
			return nil, err
		}
		e.synced = append(e.synced, registered.HasSynced)
	}
	return e, nil
}

// signal tells ch's reader, who is told once however often it happens before it looks.
func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Ready is closed once the rules stand for the first time.
func (e *Engine) Ready() <-chan struct{} { return e.first }

// Run keeps the rules until ctx ends, and returns nil then. The rules stay.
func (e *Engine) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), e.synced...) {
		return nil
	}
	signal(e.dirty)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.dirty:
		case <-e.urgent:
		}
		begun := time.Now()
		err := e.sync(ctx)
		rest := min(max(restFactor*time.Since(begun), restMin), restMax)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			e.cfg.Log.Error("rules not written", "err", err)
			signal(e.dirty)
			rest = retryAfter
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		case <-e.urgent:
			signal(e.dirty)
		}
	}
}

// sync compiles and writes what holds now, and tells who waits for it.
func (e *Engine) sync(ctx context.Context) error {
	in, stands, err := e.input()
	if err != nil {
		return err
	}
	if err := e.writer.Write(ctx, Compile(in)); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stands = stands
	close(e.changed)
	e.changed = make(chan struct{})
	select {
	case <-e.first:
	default:
		close(e.first)
		e.cfg.Log.Info("rules stand", "policies", len(in.Policies), "pods", len(in.Pods))
	}
	return nil
}

// input takes a snapshot of what the rules follow from, and of the pod behind each local address.
func (e *Engine) input() (Input, map[netip.Addr]podID, error) {
	in := Input{Epoch: e.writer.Epoch(), Namespaces: map[string]map[string]string{}}
	namespaces, err := e.namespaces.List(labels.Everything())
	if err != nil {
		return in, nil, err
	}
	for _, n := range namespaces {
		in.Namespaces[n.Name] = n.Labels
	}
	if in.Policies, err = e.policies.List(labels.Everything()); err != nil {
		return in, nil, err
	}
	pods, err := e.pods.List(labels.Everything())
	if err != nil {
		return in, nil, err
	}
	var stands map[netip.Addr]podID
	in.Pods, stands = resolve(e.cfg.Node, pods, e.claims.all())
	return in, stands, nil
}

// resolve gives every pod its addresses, and sorts pods. What a sandbox of this node claims is the pod's at once,
// whatever the API says; and no other local pod's, whose address the API has not forgotten yet.
func resolve(node string, pods []*corev1.Pod, held map[string]claim) ([]Pod, map[netip.Addr]podID) {
	byPod := map[[2]string][]claim{}
	claimed := map[netip.Addr]claim{}
	for _, c := range held {
		key := [2]string{c.Namespace, c.Name}
		byPod[key] = append(byPod[key], c)
		for _, a := range c.Addresses {
			claimed[a] = c
		}
	}
	// In order, so that of two pods that the API gives one address it is always the same that counts.
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	stands := map[netip.Addr]podID{}
	out := make([]Pod, 0, len(pods))
	for _, p := range pods {
		if p.Spec.HostNetwork || finished(p) {
			continue
		}
		one := Pod{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Labels: p.Labels, Local: p.Spec.NodeName == node}
		for _, a := range apiAddresses(p) {
			if c, ok := claimed[a]; !ok || c.of(p) {
				one.Addresses = append(one.Addresses, a)
			}
		}
		for _, c := range byPod[[2]string{p.Namespace, p.Name}] {
			if one.Local && c.of(p) {
				one.Addresses = append(one.Addresses, c.Addresses...)
			}
		}
		if len(one.Addresses) == 0 {
			continue
		}
		one.Ports = namedPorts(p)
		out = append(out, one)
		if one.Local {
			for _, a := range one.Addresses {
				stands[a] = podID{p.Namespace, p.Name, one.UID}
			}
		}
	}
	return out, stands
}

// of says whether the claim is p's, and not that of a pod of the same name before it.
func (c claim) of(p *corev1.Pod) bool {
	return c.Namespace == p.Namespace && c.Name == p.Name &&
		(c.UID == "" || c.UID == string(p.UID) || c.UID == p.Annotations[mirrorAnnotation])
}
