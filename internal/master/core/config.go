package core

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Config is the policy of a master. The zero value of every field means its default.
type Config struct {
	// Epoch of the leadership under which this state decides. Frames carry it. No default: 0 is for tests.
	Epoch int64

	Suspect     time.Duration // silence after which an agent gets no new instances; 2 s
	Unreachable time.Duration // silence after which an agent is away; 5 s
	Grace       time.Duration // after a change of leader, how long known agents have to report before they are away; 10 s

	// ForgetPercent is the brake: the largest share of all agents, in percent, that may be away while Forget is allowed;
	// 34.
	ForgetPercent int

	Pool       netip.Prefix // container addresses of the datacenter; 10.64.0.0/12
	SubnetBits int          // length of the prefix that each agent gets out of Pool; 24
	VIPs       netip.Prefix // addresses of named VIPs; 198.18.0.0/16

	Strategy kernel.Strategy // of specs that name none; spread

	VIPKeep    time.Duration // how long a named VIP that nothing uses keeps its address; 10 min
	MaxWaiting int           // instances that may wait, of one framework; 1,000,000

	// EndpointsEvery is the shortest time between two deltas of endpoints, a Stop's excepted; 20 ms, to which 0.1 ms per
	// agent are added, and up to a second after many.
	EndpointsEvery time.Duration
	EndpointLog    int // changed endpoints remembered for agents that resume; 50,000

	BackfillAfter   time.Duration // how long something waits before a machine is kept for it; 30 s
	BackfillFor     time.Duration // how long it is kept, and how long it is not before it is again; 1 min
	BackfillPercent int           // the largest share of all agents that may be kept so, in percent, but always one; 5
}

// WithDefaults fills in what is not set.
func (c Config) WithDefaults() Config {
	c.Suspect = cmp.Or(c.Suspect, 2*time.Second)
	c.Unreachable = cmp.Or(c.Unreachable, 5*time.Second)
	c.Grace = cmp.Or(c.Grace, 10*time.Second)
	c.ForgetPercent = cmp.Or(c.ForgetPercent, 34)
	c.Pool = cmp.Or(c.Pool, netip.MustParsePrefix("10.64.0.0/12"))
	c.SubnetBits = cmp.Or(c.SubnetBits, 24)
	c.VIPs = cmp.Or(c.VIPs, netip.MustParsePrefix("198.18.0.0/16"))
	c.Strategy = cmp.Or(c.Strategy, kernel.StrategySpread)
	c.VIPKeep = cmp.Or(c.VIPKeep, 10*time.Minute)
	c.EndpointsEvery = cmp.Or(c.EndpointsEvery, 20*time.Millisecond)
	c.EndpointLog = cmp.Or(c.EndpointLog, 50_000)
	c.MaxWaiting = cmp.Or(c.MaxWaiting, 1_000_000)
	c.BackfillAfter = cmp.Or(c.BackfillAfter, 30*time.Second)
	c.BackfillFor = cmp.Or(c.BackfillFor, time.Minute)
	c.BackfillPercent = cmp.Or(c.BackfillPercent, 5)
	return c
}

// Limits that no flag changes.
const (
	MaxInstanceIDBytes = 256
	MaxKeyBytes        = 512      // of one queue key
	MaxWhyBytes        = 256      // of the reason kept with a stop
	instancesPerChunk  = 16       // packed into one row, which a launch rewrites; under 32 KiB with every port mapped
	replacedKept       = 8        // incarnations of one agent remembered as replaced
	maxAgentBytes      = 64 << 10 // of an agent's description of itself, encoded
	maxReserved        = 64       // parts reserved on one machine

	attendEvery  = time.Second // between two looks for instances to preempt for the same entry
	attendMost   = 8           // such looks in one step
	attendAgents = 2048        // agents looked at in one
	victimsMost  = 64          // instances that make way for one

	lateTick          = 250 * time.Millisecond // a Tick later than that means that this process did not run
	endpointsPerAgent = 100 * time.Microsecond
	endpointsEach     = 100 * time.Nanosecond // for each agent: the time to send one
	endpointsMost     = time.Second           // the longest pause after many
	specBytesFrame    = 1 << 20
)
