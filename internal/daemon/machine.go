package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/agent"
	"github.com/marinaos/marina/internal/identity/ca"
	"github.com/marinaos/marina/internal/kernel"
	host "github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/network"
	"github.com/marinaos/marina/internal/network/dns"
	"github.com/marinaos/marina/internal/network/vip"
	"github.com/marinaos/marina/internal/runtime/containerd"
	"github.com/marinaos/marina/internal/settings"
)

// machine holds the parts with which a machine runs tasks: agent, runtime and network. The agent's process keeps it
// running; Down and Clean build it once more to take everything back.
type machine struct {
	agent   *agent.Agent
	runtime *containerd.Runtime
	network *network.Network
}

// sysctls remembers what the machine's limits were before an agent raised them.
func (c *config) sysctls() *host.Sysctls { return host.RecordedIn(c.path("agent", "sysctls.json")) }

// RunAgent is the agent's process: it runs until ctx ends and leaves the tasks running.
func RunAgent(ctx context.Context, cfg settings.Datacenter) error {
	c, err := complete(cfg)
	if err != nil {
		return err
	}
	log := c.logger()
	host.RaiseOpenFiles(log)
	release, err := c.writePID(ctx, c.agentPID())
	if err != nil {
		return err
	}
	defer release()
	if err := c.sysctls().RaiseLimits(log); err != nil {
		log.Warn("kernel limits could not be raised", "err", err)
	}
	m, err := c.machine(ctx, log)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	m.begin(ctx, g)
	g.Go(func() error { return ended(ctx, m.agent.Run(ctx)) })
	return g.Wait()
}

// begin has the runtime and the network run until ctx ends.
func (m *machine) begin(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return ended(ctx, m.runtime.Run(ctx)) })
	g.Go(func() error { return ended(ctx, m.network.Run(ctx)) })
}

// ended turns the error of a part that was told to end into none.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// machine builds the parts and starts nothing.
func (c *config) machine(ctx context.Context, log *slog.Logger) (*machine, error) {
	dc, pool, err := c.readDatacenter()
	if err != nil {
		return nil, err
	}
	id, err := c.agentID()
	if err != nil {
		return nil, err
	}
	source := ca.NewSource(log, c.askCertificate)
	conf := ca.ClientTLS(source, pool, dc)
	master := "https://" + c.master()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf.Clone(), ForceAttemptHTTP2: true}}
	rt, err := containerd.New(ctx, c.containerd(&containerd.Store{URL: master, Client: client}), log)
	if err != nil {
		return nil, err
	}
	nw, err := c.newNetwork(log)
	if err != nil {
		return nil, err
	}
	ag, err := agent.New(agent.Config{
		State: c.path("agent"), Bundles: c.bundle, BundleVersions: c.bundles, ID: kernel.AgentID(id), Hostname: c.Hostname,
		Address: c.address, Attributes: c.attributes, HostVolumes: c.HostVolume,
		Ports: c.hostPorts(), Masters: []string{c.master()}, TLS: conf, Version: Version,
	}, agent.Deps{Runtime: rt, Network: nw, Log: log, Secrets: secrets{master, client}, Metrics: metrics.New(Version)})
	if err != nil {
		return nil, err
	}
	return &machine{agent: ag, runtime: rt, network: nw}, nil
}

// Version is the release, told by agents when they register.
var Version = "dev"

func (c *config) containerd(store *containerd.Store) containerd.Config {
	return containerd.Config{Instance: c.id, State: c.path("runtime"), Bin: c.Runtime, Store: store,
		NoUserNamespaces: c.SharedIDs}
}

// hostPorts is the range that tasks' ports on this machine come from. Each of sixteen instances has a range of its own.
func (c *config) hostPorts() kernel.PortRange {
	if c.State == settings.State {
		return kernel.PortRange{First: 31000, Last: 32000}
	}
	first := uint16(20000 + 700*(int(c.seed)%16)) // below the kernel's ephemeral ports
	return kernel.PortRange{First: first, Last: first + 699}
}

// published is the range that load balancers of clusters get on this machine, nothing for the default. Instances beside
// the first have fewer, and sixteen of them each its own.
func (c *config) published() kernel.PortRange {
	if c.State == settings.State {
		return kernel.PortRange{}
	}
	first := uint16(7100 + 50*(int(c.seed)%16))
	return kernel.PortRange{First: first, Last: first + 49}
}

func (c *config) newNetwork(log *slog.Logger) (*network.Network, error) {
	rules, err := vip.New()
	if err != nil {
		return nil, err
	}
	_, door := split(c.HTTPS)
	names := dns.New(dns.Config{Log: log, Leader: func() netip.AddrPort { return netip.AddrPortFrom(c.address, door) }})
	return network.New(network.Config{State: c.State, ID: c.id, Plugins: c.Runtime, Log: log}, rules, names)
}
