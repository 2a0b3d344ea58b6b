package network

import (
	"net/netip"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// table maps each frontend of this machine (VIP, published or host port) to its backends.
type table struct {
	subnet   netip.Prefix
	ownAddrs map[netip.Addr]bool // the machine's own addresses
	backends map[Frontend][]backend
}

// backend is one address that a frontend leads to. Its owner is a task, or an instance for its host ports.
type backend struct {
	owner string
	addr  netip.AddrPort
	ready bool
	fixed bool // an instance's host port: it shuts out all other backends of its frontend
}

func newTable() *table { return &table{backends: map[Frontend][]backend{}} }

// difference compares two endpoint lists, both sorted by task. A changed endpoint is in both results.
func difference(old, now []kernel.Endpoint) (removed, added []kernel.Endpoint) {
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(old) > 0 && old[0].Task < now[0].Task:
			removed, old = append(removed, old[0]), old[1:]
		case len(old) == 0 || now[0].Task < old[0].Task:
			added, now = append(added, now[0]), now[1:]
		default:
			if !equalEndpoint(&old[0], &now[0]) {
				removed, added = append(removed, old[0]), append(added, now[0])
			}
			old, now = old[1:], now[1:]
		}
	}
	return removed, added
}

func equalEndpoint(a, b *kernel.Endpoint) bool {
	return a.Task == b.Task && a.Instance == b.Instance &&
		a.Framework == b.Framework && a.Owner == b.Owner && a.Discovery == b.Discovery &&
		a.Agent == b.Agent && a.Machine == b.Machine && a.Address == b.Address &&
		a.Running == b.Running && a.Ready == b.Ready &&
		slices.EqualFunc(a.Ports, b.Ports, equalEndpointPort)
}

func equalEndpointPort(a, b kernel.EndpointPort) bool {
	return a.Name == b.Name && a.Protocol == b.Protocol &&
		a.Container == b.Container && a.Host == b.Host && a.Publish == b.Publish &&
		slices.Equal(a.VIPs, b.VIPs)
}

// applyEndpoints removes and adds the endpoints' backends and returns the frontends whose backends may have changed.
func (t *table) applyEndpoints(removed, added []kernel.Endpoint) map[Frontend]bool {
	touched := map[Frontend]bool{}
	removedFrom := map[Frontend]map[string]bool{} // one pass over each frontend, however many leave it
	for i := range removed {
		for f := range t.backendsOf(&removed[i]) {
			if removedFrom[f] == nil {
				removedFrom[f] = map[string]bool{}
			}
			removedFrom[f][string(removed[i].Task)] = true
			touched[f] = true
		}
	}
	for f, owners := range removedFrom {
		t.removeBackends(f, owners)
	}
	for i := range added {
		for f, backends := range t.backendsOf(&added[i]) {
			t.backends[f] = append(t.backends[f], backends...)
			touched[f] = true
		}
	}
	return touched
}

// removeBackends removes the owners' backends from a frontend, and the frontend with its last one.
func (t *table) removeBackends(f Frontend, owners map[string]bool) {
	t.backends[f] = slices.DeleteFunc(t.backends[f], func(b backend) bool { return owners[b.owner] })
	if len(t.backends[f]) == 0 {
		delete(t.backends, f)
	}
}

// backendsOf returns the backends of one endpoint, by frontend.
func (t *table) backendsOf(e *kernel.Endpoint) map[Frontend][]backend {
	out := map[Frontend][]backend{}
	for _, p := range e.Ports {
		to, ok := t.backendAddr(e, p)
		if !ok {
			continue
		}
		b := backend{owner: string(e.Task), addr: to, ready: e.Ready}
		for _, v := range p.VIPs {
			if v.Addr.Is4() && v.Port != 0 {
				f := Frontend{v.Addr, Port{p.Protocol, v.Port}}
				out[f] = append(out[f], b)
			}
		}
		if p.Publish != 0 {
			f := Frontend{Anywhere, Port{p.Protocol, p.Publish}}
			out[f] = append(out[f], b)
			f.Addr = Loopback
			if !t.isLocal(to.Addr()) {
				b.ready = false // the kernel sends nothing from 127.0.0.1 to other machines
			}
			out[f] = append(out[f], b)
		}
	}
	return out
}

// backendAddr returns the address and port by which this machine reaches a port of an endpoint: the instance's own if
// the instance is here or has no host port, else the host port of its machine. It reports false if there is neither.
func (t *table) backendAddr(e *kernel.Endpoint, p kernel.EndpointPort) (netip.AddrPort, bool) {
	switch {
	case e.Address.Is4() && p.Container != 0 && (t.subnet.Contains(e.Address) || p.Host == 0):
		return netip.AddrPortFrom(e.Address, p.Container), true
	case e.Machine.Is4() && p.Host != 0:
		return netip.AddrPortFrom(e.Machine, p.Host), true
	}
	return netip.AddrPort{}, false
}

// isLocal reports whether an address is an instance's on this machine or the machine's own.
func (t *table) isLocal(a netip.Addr) bool { return t.subnet.Contains(a) || t.ownAddrs[a] }

// hostBackends returns the frontends of an attachment's host ports, each with its fixed backend. They serve as long
// as the instance is attached.
func hostBackends(a kernel.Attachment) map[Frontend]backend {
	out := map[Frontend]backend{}
	if a.Mode != kernel.NetworkBridge {
		return out
	}
	for _, m := range a.Ports {
		if m.Host == 0 {
			continue
		}
		b := backend{owner: "group " + string(a.Instance), addr: netip.AddrPortFrom(a.Address, m.Container), ready: true,
			fixed: true}
		out[Frontend{Anywhere, Port{m.Protocol, m.Host}}] = b
		out[Frontend{Loopback, Port{m.Protocol, m.Host}}] = b
	}
	return out
}

// isPublished reports whether an endpoint publishes the frontend's port.
func (t *table) isPublished(f Frontend) bool {
	return f.Addr == Anywhere && slices.ContainsFunc(t.backends[f], func(b backend) bool { return !b.fixed })
}

// readyAddrs returns the addresses of the ready backends, sorted, each once: nil if the frontend has no backend at
// all, empty if none is ready.
func (t *table) readyAddrs(f Frontend) []netip.AddrPort {
	all, ok := t.backends[f]
	if !ok {
		return nil
	}
	fixed := slices.ContainsFunc(all, func(b backend) bool { return b.fixed })
	out := make([]netip.AddrPort, 0, len(all))
	for _, b := range all {
		if b.ready && b.fixed == fixed {
			out = append(out, b.addr)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// networkNumber returns the number of a named network on this machine: the one its instances here have, or the lowest
// free one. Records keep it, so that later processes find the same. The datacenter's own network has zero.
func networkNumber(records map[kernel.InstanceID]record, network string) uint32 {
	if network == "" {
		return 0
	}
	used := map[uint32]bool{}
	for _, r := range records {
		if r.Network == network {
			return r.Number
		}
		used[r.Number] = true
	}
	n := uint32(1)
	for used[n] {
		n++
	}
	return n
}

// isolation returns the network numbers of instances in named networks, by address, and those of their host ports.
// Groups that are half attached count.
func isolation(records map[kernel.InstanceID]record) (networks map[netip.Addr]uint32, inner map[Port]uint32) {
	networks, inner = map[netip.Addr]uint32{}, map[Port]uint32{}
	for _, r := range records {
		if r.Number == 0 || r.Mode != kernel.NetworkBridge {
			continue
		}
		networks[r.Address] = r.Number
		for _, m := range r.Ports {
			if m.Host != 0 {
				inner[Port{m.Protocol, m.Host}] = r.Number
			}
		}
	}
	return networks, inner
}
