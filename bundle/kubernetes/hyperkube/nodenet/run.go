package nodenet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/logs"
	"sigs.k8s.io/knftables"

	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/nodenet/policy"
	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/nodenet/routes"
	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/nodenet/tunnel"
)

// rebind is the time between tries to listen on the node's address.
const rebind = time.Second

// Main runs the component with the program's arguments and returns the exit status.
func Main() int {
	c, err := parse(os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "node-network:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // a second signal finds nobody who catches it
	err = run(ctx, c, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	logs.FlushLogs()
	if err != nil {
		fmt.Fprintln(os.Stderr, "node-network:", err)
		return 1
	}
	return 0
}

// run runs all parts until ctx ends, which is no error, or one of them does, which is.
func run(ctx context.Context, c *config, log *slog.Logger) error {
	node, err := readNode(c.node)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.run, 0o755); err != nil {
		return err
	}
	for _, stale := range []string{readyFile, gateSocket} {
		if err := os.Remove(c.inRun(stale)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	proxyOptions, err := newProxy(c.proxyKubeconfig, node)
	if err != nil {
		return err
	}
	factory, err := newInformers(c.kubeconfig)
	if err != nil {
		return err
	}
	engine, err := newEngine(c, node, factory, log)
	if err != nil {
		return err
	}
	ways, err := newRoutes(c, node, factory, engine.Ready(), log)
	if err != nil {
		return err
	}
	door, err := tunnel.New(tunnel.Config{
		PKI: c.pki, Targets: []netip.Prefix{node.ServiceCIDR, node.ClusterCIDR}, Volumes: c.volumes, Log: log,
	})
	if err != nil {
		return err
	}

	parts, ctx := errgroup.WithContext(ctx)
	factory.Start(ctx.Done())
	parts.Go(func() error { return engine.Run(ctx) })
	parts.Go(func() error { return serveGate(ctx, engine, c.inRun(gateSocket)) })
	parts.Go(func() error { return ways.Run(ctx) })
	parts.Go(func() error { return serveTunnel(ctx, door, netip.AddrPortFrom(node.Address, TunnelPort), log) })
	parts.Go(func() error { return runProxy(ctx, proxyOptions, ways.Seen()) })
	parts.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-ways.Ready(): // after the engine's first writing
			log.Info("ready", "node", node.Name)
			return os.WriteFile(c.inRun(readyFile), nil, 0o644)
		}
	})
	err = parts.Wait()
	_ = os.Remove(c.inRun(readyFile))
	return err
}

// newInformers returns informers that hold what policy.Trim leaves of things.
func newInformers(kubeconfig string) (informers.SharedInformerFactory, error) {
	conf, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	conf.UserAgent = "marina-node-network"
	conf.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	conf.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(policy.Trim)), nil
}

func newEngine(c *config, node *Node, factory informers.SharedInformerFactory, log *slog.Logger) (*policy.Engine, error) {
	nft, err := knftables.New(knftables.IPv4Family, policy.Table)
	if err != nil {
		return nil, err
	}
	return policy.New(policy.Config{Node: node.Name, Informers: factory, NFT: nft, ClaimsFile: c.inRun(claimsFile), Log: log})
}

func newRoutes(c *config, node *Node, factory informers.SharedInformerFactory, rules <-chan struct{}, log *slog.Logger) (*routes.Routes, error) {
	nft, err := knftables.New(knftables.IPv4Family, routes.Table)
	if err != nil {
		return nil, err
	}
	return routes.New(routes.Config{
		Node: node.Name, Address: node.Address, Cluster: node.ClusterCIDR, Services: node.ServiceCIDR, VNI: node.VNI,
		Informers: factory, NFT: nft, CNIConfig: c.cni, GateSocket: c.inRun(gateSocket), AfterCNI: rules, Log: log,
	})
}

// serveGate listens for CNI plugins once answers can be given.
func serveGate(ctx context.Context, e *policy.Engine, socket string) error {
	select {
	case <-ctx.Done():
		return nil
	case <-e.Ready():
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return e.ServeGate(ctx, l)
}

// serveTunnel listens on the node's address, which may come a moment later than the process.
func serveTunnel(ctx context.Context, t *tunnel.Tunnel, at netip.AddrPort, log *slog.Logger) error {
	for {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", at.String())
		if err == nil {
			return t.Serve(ctx, l)
		}
		log.Error("tunnel does not listen", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rebind):
		}
	}
}
