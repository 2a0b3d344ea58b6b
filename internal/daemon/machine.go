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
	"github.com/marinaos/marina/internal/network"
	"github.com/marinaos/marina/internal/network/dns"
	"github.com/marinaos/marina/internal/network/vip"
	"github.com/marinaos/marina/internal/runtime/containerd"
	"github.com/marinaos/marina/internal/settings"
)

// machine is what one machine runs tasks with: its agent, runtime and network. The agent's process keeps it running; Down and
// Clean build it once more to take everything back.
type machine struct {
	agent   *agent.Agent
	runtime *containerd.Runtime
	network *network.Network
}

// sysctls remembers what the machine's limits were before an agent raised them.
func (s *site) sysctls() *host.Sysctls { return host.RecordedIn(s.path("agent", "sysctls.json")) }

// RunAgent is the agent's process: it runs until ctx ends and leaves the tasks running.
func RunAgent(ctx context.Context, cfg settings.Datacenter) error {
	s, err := complete(cfg)
	if err != nil {
		return err
	}
	log := s.logger()
	host.RaiseOpenFiles(log)
	release, err := s.writePID(ctx, s.agentPID())
	if err != nil {
		return err
	}
	defer release()
	if err := s.sysctls().RaiseLimits(log); err != nil {
		log.Warn("kernel limits could not be raised", "err", err)
	}
	m, err := s.machine(ctx, log)
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
func (s *site) machine(ctx context.Context, log *slog.Logger) (*machine, error) {
	dc, pool, err := s.readDatacenter()
	if err != nil {
		return nil, err
	}
	id, err := s.agentID()
	if err != nil {
		return nil, err
	}
	source := ca.NewSource(log, s.askCertificate)
	conf := ca.ClientTLS(source, pool, dc)
	master, client := "https://"+s.master(), &http.Client{Transport: &http.Transport{TLSClientConfig: conf.Clone(), ForceAttemptHTTP2: true}}
	rt, err := containerd.New(ctx, s.containerd(&containerd.Store{URL: master, Client: client}), log)
	if err != nil {
		return nil, err
	}
	nw, err := s.newNetwork(log)
	if err != nil {
		return nil, err
	}
	ag, err := agent.New(agent.Config{
		State: s.path("agent"), Bundles: s.bundle, BundleVersions: s.bundles, ID: kernel.AgentID(id), Hostname: s.Hostname, Address: s.address, Attributes: s.attributes, HostVolumes: s.HostVolume,
		Ports: s.hostPorts(), Masters: []string{s.master()}, TLS: conf, Version: Version,
	}, agent.Deps{Runtime: rt, Network: nw, Log: log, Secrets: secrets{master, client}})
	if err != nil {
		return nil, err
	}
	return &machine{agent: ag, runtime: rt, network: nw}, nil
}

// Version is the release, told by agents when they register.
var Version = "dev"

func (s *site) containerd(store *containerd.Store) containerd.Config {
	return containerd.Config{Instance: s.id, State: s.path("runtime"), Bin: s.Runtime, Store: store, NoUserNamespaces: s.SharedIDs}
}

// hostPorts is the range that tasks' ports on this machine come from. Each of sixteen instances has a range of its own.
func (s *site) hostPorts() kernel.PortRange {
	if s.State == settings.State {
		return kernel.PortRange{First: 31000, Last: 32000}
	}
	first := uint16(20000 + 700*(int(s.seed)%16)) // below the kernel's ephemeral ports
	return kernel.PortRange{First: first, Last: first + 699}
}

// published is the range that load balancers of clusters get on this machine, nothing for the default. Instances beside the
// first have fewer, and sixteen of them each its own.
func (s *site) published() kernel.PortRange {
	if s.State == settings.State {
		return kernel.PortRange{}
	}
	first := uint16(7100 + 50*(int(s.seed)%16))
	return kernel.PortRange{First: first, Last: first + 49}
}

func (s *site) newNetwork(log *slog.Logger) (*network.Network, error) {
	rules, err := vip.New()
	if err != nil {
		return nil, err
	}
	_, door := split(s.HTTPS)
	names := dns.New(dns.Config{Log: log, Leader: func() netip.AddrPort { return netip.AddrPortFrom(s.address, door) }})
	return network.New(network.Config{State: s.State, ID: s.id, Plugins: s.Runtime, Log: log}, rules, names)
}
