package agent

import (
	"context"
	"net/netip"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Network connects instances and keeps names and addresses of the datacenter on this machine. internal/network is the
// real one. What it sets up outlives this process and serves without it; every method can be repeated.
type Network interface {
	// Configure sets the machine up for its subnet of the datacenter: bridge, routes, rules, name server.
	Configure(ctx context.Context, subnet netip.Prefix, info kernel.NetworkInfo) error

	// Attach gives a bridge-mode instance its namespace, address and host ports, and returns the namespace's path. A host
	// port that somebody else listens on is errdefs.ErrAlreadyExists and names the owner if it can be told.
	Attach(ctx context.Context, a kernel.Attachment) (netns string, err error)

	// OpenPorts takes the host ports of a host-mode instance's VIPs and published ports into account; it checks that fixed
	// host ports are free, with the same error as Attach.
	OpenPorts(ctx context.Context, a kernel.Attachment) error

	// Detach takes everything Attach and OpenPorts gave back. Unknown instances are not an error.
	Detach(ctx context.Context, group kernel.InstanceID) error

	// Attached lists the instances that are attached, by this or an earlier process.
	Attached(ctx context.Context) ([]kernel.InstanceID, error)

	// Apply makes the machine's VIPs, published ports and DNS answers those of endpoints; it returns when connections go
	// that way. Established connections are left alone. The slice is the whole table, sorted by task, and is not kept.
	Apply(ctx context.Context, endpoints []kernel.Endpoint) error

	// Resolver is the address tasks on this machine should ask for names.
	Resolver() netip.Addr
}

// bounded is a network whose calls end after a while, but for Apply, which is done again until it works.
type bounded struct {
	Network
	limit time.Duration
}

func (b bounded) Configure(ctx context.Context, subnet netip.Prefix, info kernel.NetworkInfo) error {
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	return b.Network.Configure(ctx, subnet, info)
}

func (b bounded) Attach(ctx context.Context, a kernel.Attachment) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	return b.Network.Attach(ctx, a)
}

func (b bounded) OpenPorts(ctx context.Context, a kernel.Attachment) error {
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	return b.Network.OpenPorts(ctx, a)
}

func (b bounded) Detach(ctx context.Context, g kernel.InstanceID) error {
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	return b.Network.Detach(ctx, g)
}

func (b bounded) Attached(ctx context.Context) ([]kernel.InstanceID, error) {
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	return b.Network.Attached(ctx)
}
