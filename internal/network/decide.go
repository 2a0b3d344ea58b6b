package network

import (
	"net/netip"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// table is the doors of this machine and who leads them where. Who is a task, or a group for its host ports.
type table struct {
	subnet netip.Prefix
	own    map[netip.Addr]bool // the machine's own addresses
	doors  map[Door][]lead
}

// lead is one way behind a door.
type lead struct {
	who   string
	to    netip.AddrPort
	ready bool
	fixed bool // a group's host port: nobody else's leads count behind that door
}

func newTable() *table { return &table{doors: map[Door][]lead{}} }

// difference is what turns the endpoints old into now, both sorted by task.
func difference(old, now []kernel.Endpoint) (removed, added []kernel.Endpoint) {
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(old) > 0 && old[0].Task < now[0].Task:
			removed, old = append(removed, old[0]), old[1:]
		case len(old) == 0 || now[0].Task < old[0].Task:
			added, now = append(added, now[0]), now[1:]
		default:
			if !same(&old[0], &now[0]) {
				removed, added = append(removed, old[0]), append(added, now[0])
			}
			old, now = old[1:], now[1:]
		}
	}
	return removed, added
}

func same(a, b *kernel.Endpoint) bool {
	return a.Task == b.Task && a.Group == b.Group && a.Framework == b.Framework && a.Owner == b.Owner && a.Discovery == b.Discovery &&
		a.Agent == b.Agent && a.Machine == b.Machine && a.Address == b.Address && a.Running == b.Running && a.Ready == b.Ready &&
		slices.EqualFunc(a.Ports, b.Ports, samePort)
}

func samePort(a, b kernel.EndpointPort) bool {
	return a.Name == b.Name && a.Protocol == b.Protocol && a.Container == b.Container && a.Host == b.Host && a.Publish == b.Publish &&
		slices.Equal(a.VIPs, b.VIPs)
}

// change takes some endpoints out and others in and returns the doors that are to be looked at.
func (t *table) change(removed, added []kernel.Endpoint) map[Door]bool {
	touched := map[Door]bool{}
	gone := map[Door]map[string]bool{} // one pass over each door, however many leave it
	for i := range removed {
		for d := range t.of(&removed[i]) {
			if gone[d] == nil {
				gone[d] = map[string]bool{}
			}
			gone[d][string(removed[i].Task)] = true
			touched[d] = true
		}
	}
	for d, who := range gone {
		t.out(d, who)
	}
	for i := range added {
		for d, leads := range t.of(&added[i]) {
			t.doors[d] = append(t.doors[d], leads...)
			touched[d] = true
		}
	}
	return touched
}

// out takes some out of a door.
func (t *table) out(d Door, who map[string]bool) {
	t.doors[d] = slices.DeleteFunc(t.doors[d], func(l lead) bool { return who[l.who] })
	if len(t.doors[d]) == 0 {
		delete(t.doors, d)
	}
}

// of is the doors of one endpoint.
func (t *table) of(e *kernel.Endpoint) map[Door][]lead {
	out := map[Door][]lead{}
	for _, p := range e.Ports {
		to, ok := t.target(e, p)
		if !ok {
			continue
		}
		l := lead{who: string(e.Task), to: to, ready: e.Ready}
		for _, v := range p.VIPs {
			if v.Addr.Is4() && v.Port != 0 {
				d := Door{v.Addr, Port{p.Protocol, v.Port}}
				out[d] = append(out[d], l)
			}
		}
		if p.Publish != 0 {
			d := Door{Anywhere, Port{p.Protocol, p.Publish}}
			out[d] = append(out[d], l)
			d.Addr = Loopback
			if !t.near(to.Addr()) {
				l.ready = false // the kernel sends nothing from 127.0.0.1 to other machines
			}
			out[d] = append(out[d], l)
		}
	}
	return out
}

// target is where a port of an endpoint is reached from this machine: straight in its group if that is here or has no host
// port, else by its machine's host port.
func (t *table) target(e *kernel.Endpoint, p kernel.EndpointPort) (netip.AddrPort, bool) {
	switch {
	case e.Address.Is4() && p.Container != 0 && (t.subnet.Contains(e.Address) || p.Host == 0):
		return netip.AddrPortFrom(e.Address, p.Container), true
	case e.Machine.Is4() && p.Host != 0:
		return netip.AddrPortFrom(e.Machine, p.Host), true
	}
	return netip.AddrPort{}, false
}

// near reports whether an address is a group's on this machine or the machine's own.
func (t *table) near(a netip.Addr) bool { return t.subnet.Contains(a) || t.own[a] }

// hostDoors is the doors of an attachment's host ports; they lead there as long as the group is attached.
func hostDoors(a kernel.Attachment) map[Door]lead {
	out := map[Door]lead{}
	if a.Mode != kernel.NetworkBridge {
		return out
	}
	for _, m := range a.Ports {
		if m.Host == 0 {
			continue
		}
		l := lead{who: "group " + string(a.Group), to: netip.AddrPortFrom(a.Address, m.Container), ready: true, fixed: true}
		out[Door{Anywhere, Port{m.Protocol, m.Host}}] = l
		out[Door{Loopback, Port{m.Protocol, m.Host}}] = l
	}
	return out
}

// published reports whether a door is there because an endpoint publishes a port.
func (t *table) published(d Door) bool {
	return d.Addr == Anywhere && slices.ContainsFunc(t.doors[d], func(l lead) bool { return !l.fixed })
}

// leads is where a door is to lead: nil if it is nobody's, none if nobody behind it is ready.
func (t *table) leads(d Door) []netip.AddrPort {
	all, ok := t.doors[d]
	if !ok {
		return nil
	}
	fixed := slices.ContainsFunc(all, func(l lead) bool { return l.fixed })
	out := make([]netip.AddrPort, 0, len(all))
	for _, l := range all {
		if l.ready && l.fixed == fixed {
			out = append(out, l.to)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// number is a named network's on this machine: that of its groups here, or the lowest that is free. Records keep it, so that
// later processes find the same. The datacenter's own network has zero.
func number(records map[kernel.GroupID]record, network string) uint32 {
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

// isolation is whom groups of named networks are with, and whose their host ports are. Half-made ones count.
func isolation(records map[kernel.GroupID]record) (networks map[netip.Addr]uint32, inner map[Port]uint32) {
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
