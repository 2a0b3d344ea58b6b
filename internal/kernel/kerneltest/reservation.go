package kerneltest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// claim keeps a reservation and its holder.
type reservation struct {
	kernel.ReservationView
	holder kernel.InstanceID // empty: none
}

// RemoveAgent takes an agent out of the datacenter for good: its instances have ended, its reservations with volumes
// are lost.
func (k *Kernel) RemoveAgent(id kernel.AgentID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range k.sorted() {
		if g.inst.Agent == id {
			g.inst.Statuses = slices.Clone(g.inst.Statuses)
			g.inst.Statuses[0].State, g.inst.Statuses[0].Reason = kernel.Gone, kernel.ReasonAgentGone
			k.remove(g)
		}
	}
	for name, c := range k.reservations {
		switch {
		case c.Agent != id:
		case len(c.Volumes) == 0:
			delete(k.reservations, name)
		default:
			c.Lost = true
		}
	}
	delete(k.agents, id)
	k.drain()
}

// Resize implements kernel.Kernel.
func (k *Kernel) Resize(ctx context.Context, framework string, id kernel.InstanceID, sizes []kernel.Size) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[id]
	if g == nil {
		return fmt.Errorf("group %s: %w", id, errdefs.ErrNotFound)
	}
	if k.full != nil {
		return k.full
	}
	g.inst.Sizes = slices.Clone(sizes)
	k.touch(g)
	return nil
}

// RefuseSizes has Resize refuse everything with err, until nil.
func (k *Kernel) RefuseSizes(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.full = err
}

// Release implements kernel.Kernel. The claim is gone at once.
func (k *Kernel) Release(ctx context.Context, framework string, names []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range names {
		if c := k.reservations[key(framework, name)]; c != nil && c.holder != "" {
			return fmt.Errorf("claim %s: group %s holds it: %w", name, c.holder, errdefs.ErrFailedPrecondition)
		}
	}
	for _, name := range names {
		delete(k.reservations, key(framework, name))
	}
	k.drain()
	return nil
}

// Claims implements kernel.Kernel.
func (k *Kernel) Reservations(framework string) []kernel.ReservationView {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []kernel.ReservationView
	for _, id := range slices.Sorted(maps.Keys(k.reservations)) {
		if c := k.reservations[id]; c.Framework == framework {
			out = append(out, c.ReservationView)
		}
	}
	return out
}

// Expose implements kernel.Kernel. VIPs get addresses of 198.18.0.0/16.
func (k *Kernel) Expose(ctx context.Context, framework, owner string, ports []kernel.Port) ([]kernel.EndpointPort,
	error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []kernel.EndpointPort
	for _, p := range ports {
		e := kernel.EndpointPort{Name: p.Name, Protocol: p.Protocol, Container: p.Container}
		for other, taken := range k.exposed {
			if p.Publish && other != key(framework, owner) && slices.Contains(taken, p.Service) {
				return nil, fmt.Errorf("port %d: %w", p.Service, errdefs.ErrAlreadyExists)
			}
		}
		if p.Publish {
			e.Publish = p.Service
		}
		for _, v := range p.VIPs {
			name := v.Name + "." + framework
			if !k.vips[name].IsValid() {
				k.vips[name] = netip.AddrFrom4([4]byte{198, 18, 0, byte(len(k.vips) + 1)})
			}
			e.VIPs = append(e.VIPs, kernel.EndpointVIP{Name: name, Addr: k.vips[name], Port: v.Port})
		}
		out = append(out, e)
	}
	delete(k.exposed, key(framework, owner))
	for _, e := range out {
		k.exposed[key(framework, owner)] = append(k.exposed[key(framework, owner)], e.Publish)
	}
	return out, nil
}

// Bundle says which programs an agent has.
func (k *Kernel) Bundle(id kernel.AgentID, bundles map[string]string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.agents[id].view.Bundles = bundles
}
