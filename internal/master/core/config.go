package core

import (
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

	VIPKeep        time.Duration // how long a named VIP that nothing uses keeps its address; 10 min
	EndpointsEvery time.Duration // shortest time between two deltas of endpoints, a Stop's excepted; 20 ms, 0.1 ms per agent, and up to a second after many
	EndpointLog    int           // changed endpoints remembered for agents that resume; 50,000
	MaxWaiting     int           // instances that may wait, of one framework; 1,000,000

	BackfillAfter   time.Duration // how long something waits before a machine's room is kept for it; 30 s
	BackfillFor     time.Duration // how long it is kept, and how long it is not before it is again; 1 min
	BackfillPercent int           // the largest share of all agents on which room may be kept so, in percent, but always one; 5
}

// WithDefaults fills in what is not set.
func (c Config) WithDefaults() Config {
	set(&c.Suspect, 2*time.Second)
	set(&c.Unreachable, 5*time.Second)
	set(&c.Grace, 10*time.Second)
	set(&c.ForgetPercent, 34)
	set(&c.Pool, netip.MustParsePrefix("10.64.0.0/12"))
	set(&c.SubnetBits, 24)
	set(&c.VIPs, netip.MustParsePrefix("198.18.0.0/16"))
	set(&c.Strategy, kernel.StrategySpread)
	set(&c.VIPKeep, 10*time.Minute)
	set(&c.EndpointsEvery, 20*time.Millisecond)
	set(&c.EndpointLog, 50_000)
	set(&c.MaxWaiting, 1_000_000)
	set(&c.BackfillAfter, 30*time.Second)
	set(&c.BackfillFor, time.Minute)
	set(&c.BackfillPercent, 5)
	return c
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Limits that no flag changes.
const (
	MaxGroupIDBytes = 256      // of one instance id
	MaxKeyBytes     = 512      // of one queue key
	MaxWhyBytes     = 256      // of the reason kept with a stop
	groupsPerChunk  = 16       // instances packed into one row: what a launch rewrites on an agent; under 32 KiB even with every port mapped
	replacedKept    = 8        // incarnations of one agent remembered as replaced
	maxAgentBytes   = 64 << 10 // of what an agent says of itself, encoded

	attendEvery  = time.Second // between two looks for what could make way for the same instances
	attendMost   = 8           // such looks in one step
	attendAgents = 2048        // agents looked at in one
	victimsMost  = 64          // instances that make way for one
	maxReserved  = 64          // reservations on one machine

	lateTick          = 250 * time.Millisecond // a Tick later than that means that this process did not run
	endpointsPerAgent = 100 * time.Microsecond
	endpointsEach     = 100 * time.Nanosecond // and agent: what sending one takes
	endpointsMost     = time.Second           // that is waited for what was sent
	specBytesFrame    = 1 << 20
)
