package invariant

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Placement is an instance on an agent as the store has it.
type Placement struct {
	Instance  kernel.InstanceID
	Agent     kernel.AgentID
	Role      string           // that pays: "/prod/web"
	Guarantee kernel.Resources // of all its tasks
	Ports     []HostPort       // on the machine
	Address   netip.Addr       // its own; invalid in host mode
}

// HostPort is one port of a machine: the same number with another protocol is another port.
type HostPort struct {
	Number   uint16
	Protocol string // "tcp" or "udp"
}

// HostPorts lists what an instance of this spec holds with these host ports: one for each port that has a number, two
// for one of both protocols.
func HostPorts(s *kernel.Spec, numbers []uint16) []HostPort {
	var out []HostPort
	i := 0
	for t := range s.Tasks {
		for p := range s.Tasks[t].Ports {
			if i < len(numbers) && numbers[i] != 0 {
				for protocol := range strings.SplitSeq(s.Tasks[t].Ports[p].Protocol, ",") {
					out = append(out, HostPort{numbers[i], protocol})
				}
			}
			i++
		}
	}
	return out
}

// Ledger judges I13 and I14 over the placements that are durable. It is told what each revision of the store changed
// and judges it with Judge; a revision is judged as a whole, so the order of its changes does not matter.
//
// I13Capacity: a revision that places an instance leaves the guarantees on its agent within what the agent has, and
// those of its role and of all roles above within their quotas, in what the instance has; so does one that gives an
// instance more. What was placed before a quota sank, or a machine shrank, may stay; when one revision does both, the
// larger limit counts.
//
// I14Exclusive: an instance, a host port of an agent, and an address have one holder; a VIP has one address, which it
// keeps, and an address one VIP; no two subnets overlap.
type Ledger struct {
	Totals
	placed map[kernel.InstanceID]Placement
}

// NewLedger returns a ledger of an empty datacenter.
func NewLedger() *Ledger {
	return &Ledger{Totals: *NewTotals(), placed: map[kernel.InstanceID]Placement{}}
}

// Place tells that an instance is durable on an agent. Telling it again changes nothing.
func (l *Ledger) Place(p Placement) {
	if old, ok := l.placed[p.Instance]; ok {
		if old.Agent != p.Agent {
			l.pending = append(l.pending, violated(I14Exclusive, "group %s is on agent %s and on agent %s",
				p.Instance, old.Agent, p.Agent)...)
		}
		return
	}
	l.placed[p.Instance] = p
	l.Take(p)
}

// Resize tells that a durable instance's guarantee is another one.
func (l *Ledger) Resize(group kernel.InstanceID, guarantee kernel.Resources) {
	p, ok := l.placed[group]
	if !ok {
		return
	}
	l.Charge(p.Agent, p.Role, guarantee.Sub(p.Guarantee))
	p.Guarantee = guarantee
	l.placed[group] = p
}

// Remove tells that an instance is not durable on the agent any more.
func (l *Ledger) Remove(group kernel.InstanceID, agent kernel.AgentID) {
	p, ok := l.placed[group]
	if !ok || p.Agent != agent {
		return
	}
	delete(l.placed, group)
	l.GiveBack(p)
}

// On reports whether an instance is durable on an agent now.
func (l *Ledger) On(group kernel.InstanceID, agent kernel.AgentID) bool {
	p, ok := l.placed[group]
	return ok && p.Agent == agent
}

// Get returns a durable placement.
func (l *Ledger) Get(group kernel.InstanceID) (Placement, bool) {
	p, ok := l.placed[group]
	return p, ok
}

// Judge answers with what the changes since the last call broke; revision goes into the facts.
func (l *Ledger) Judge(revision int64) []Violation {
	return l.Totals.Judge(revision, func(holds func(*Placement) bool) (holders []kernel.InstanceID) {
		for id, p := range l.placed {
			if holds(&p) {
				holders = append(holders, id)
			}
		}
		slices.Sort(holders)
		return holders
	})
}
