package steward

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
)

const (
	retryAfter  = time.Second      // first pause after a failed round; doubled up to
	retryAtMost = 30 * time.Second // this
	readyEvery  = 10 * time.Second // how often the API server is asked whether it is ready
	gather      = 200 * time.Millisecond
	requestRate = 50 // requests a second to the API server, all jobs together
)

// Steward is one cluster's; see the package's comment.
type Steward struct {
	cfg    *Config
	deps   Deps
	state  *state
	board  *board
	tunnel *tunnel

	http   *http.Client
	rest   *rest.Config
	client kubernetes.Interface
	events record.EventRecorder
	seen   stores
	addons *addons
	told   map[string]bool // owned by the loop of balancers: Services with an event about node ports

	statusBell, nodesBell, balancersBell, volumesBell, probeBell, addonsBell bell
}

// New reads the state that an earlier process left and makes clients; it asks nobody anything.
func New(cfg *Config, deps Deps) (*Steward, error) {
	s := &Steward{cfg: cfg, deps: deps, board: newBoard(), told: map[string]bool{},
		statusBell: newBell(), nodesBell: newBell(), balancersBell: newBell(), volumesBell: newBell(), probeBell: newBell(),
		addonsBell: newBell()}
	var err error
	if s.state, err = readState(deps.StateFile); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	s.tunnel = &tunnel{deps: &s.deps, port: cfg.TunnelPort}
	s.rest = &rest.Config{Host: deps.Server, UserAgent: "marina-steward/" + deps.Version,
		QPS: requestRate, Burst: 2 * requestRate,
		TLSClientConfig: rest.TLSClientConfig{CAFile: deps.pki("ca.crt"), CertFile: deps.pki("steward.crt"),
			KeyFile: deps.pki("steward.key"), ServerName: deps.ServerName}}
	if s.http, err = rest.HTTPClientFor(s.rest); err != nil {
		return nil, err
	}
	typed := rest.CopyConfig(s.rest)
	typed.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	typed.ContentType = "application/vnd.kubernetes.protobuf"
	if s.client, err = kubernetes.NewForConfigAndClient(typed, s.http); err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfigAndClient(s.rest, s.http)
	if err != nil {
		return nil, err
	}
	names, err := metadata.NewForConfigAndClient(metadata.ConfigFor(s.rest), s.http)
	if err != nil {
		return nil, err
	}
	s.addons = &addons{cfg: cfg, objects: objects, names: names}
	return s, nil
}

// Run works until ctx ends, which is no error.
func (s *Steward) Run(ctx context.Context) error {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: s.client.CoreV1().Events("")})
	s.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "marina"})

	g, ctx := errgroup.WithContext(ctx)
	synced := s.watch(ctx, g) // first: the others read the stores
	g.Go(func() error { return s.serveAPI(ctx) })
	g.Go(func() error { return s.serveEgress(ctx) })
	g.Go(func() error { s.addons.run(ctx, s); return nil })
	g.Go(func() error { s.askReady(ctx); return nil })
	// What is not seen yet must not be taken for absent: an empty store is no reason to act.
	for _, has := range synced {
		for !has() {
			select {
			case <-ctx.Done():
				return g.Wait()
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	s.deps.Log.Info("steward sees the cluster")
	g.Go(func() error { s.loop(ctx, "status", s.statusBell, gather, s.publish); return nil })
	g.Go(func() error { s.loop(ctx, "nodes", s.nodesBell, 0, s.removeNodes); return nil })
	g.Go(func() error { s.loop(ctx, "loadBalancers", s.balancersBell, 0, s.balance); return nil })
	g.Go(func() error { s.loop(ctx, "volumes", s.volumesBell, 0, s.provision); return nil })
	g.Go(func() error { s.loop(ctx, "probe", s.probeBell, 0, s.probe); return nil })
	return g.Wait()
}

// loop runs round now and whenever the bell rings, pause later so that what happens together is seen together, and
// again after a failure.
func (s *Steward) loop(ctx context.Context, job string, b bell, pause time.Duration,
	round func(context.Context) error) {
	b.ring()
	wait := retryAfter
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-b:
		case <-again:
		}
		if pause > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
		again = nil
		err := round(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			wait = retryAfter
			continue
		}
		s.deps.Log.Info("steward tries again", "job", job, "err", err)
		again = time.After(wait)
		wait = min(2*wait, retryAtMost)
	}
}

// askReady asks again and again for what nobody tells: whether the API server is ready, and what its process says.
func (s *Steward) askReady(ctx context.Context) {
	problem := ""
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		err := s.client.CoreV1().RESTClient().Get().AbsPath("/readyz").Timeout(5 * time.Second).Do(ctx).Error()
		if s.board.setReady(err == nil) {
			s.statusBell.ring()
		}
		if s.deps.Problem != nil {
			if now := s.deps.Problem(); now != problem {
				problem = now
				s.statusBell.ring()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// bell wakes one loop; rung several times before it is heard, it is heard once.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}
