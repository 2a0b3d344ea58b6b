package invariant

import (
	"iter"
	"net/netip"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Placement is a group on an agent as the store has it.
type Placement struct {
	Group     kernel.GroupID
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

// HostPorts lists what a group of this spec holds with these host ports: one for each port that has a number, two for one of
// both protocols.
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

// Ledger judges I13 and I14 over the placements that are durable. It is told what each revision of the store changed and
// judges it with Judge; a revision is judged as a whole, so the order of its changes does not matter.
//
// I13: a revision that places a group leaves the guarantees on its agent within what the agent has, and those of its role
// and of all roles above within their quotas, in what the group has; so does one that gives a group more. What was placed before a quota sank, or a machine shrank, may stay; when one
// revision does both, the larger limit counts.
//
// I14: a group, a host port of an agent, and an address have one holder; a VIP has one address, which it keeps, and an address one VIP; no two
// subnets overlap.
type Ledger struct {
	groups   map[kernel.GroupID]Placement
	machines map[kernel.AgentID]*account
	roles    map[string]*account
	ports    holders[portKey]
	addrs    holders[netip.Addr]
	subnets  map[kernel.AgentID]netip.Prefix
	vips     map[string]netip.Addr
	vipAddrs map[netip.Addr]string
	grown    []*account
	changed  []*account
	pending  []Violation // found while told
}

// account is a machine or a role: what it may give and what is taken.
type account struct {
	kind, name string
	quota      kernel.Quota // limit; a machine's has no unlimited component
	bounded    bool
	was        kernel.Resources // limit at the last Judge, if it changed since
	changed    bool
	unbounded  bool // a role that had no limit at the last Judge
	used       kernel.Resources
	grown      kernel.Resources // by what came since the last Judge, what went not taken off
	listed     bool             // among those that grew
}

// limit changes what the account may give. A revision that both lowers a limit and uses it up is within the limit that was.
func (l *Ledger) limit(a *account, limit kernel.Resources, bounded bool) {
	if !a.changed {
		a.changed, a.was, a.unbounded = true, a.quota.Limit, !a.bounded && a.kind == "role"
		l.changed = append(l.changed, a)
	}
	a.quota.Limit, a.bounded = limit, bounded
}

// exceeded lists what the account has given beyond its limit.
func (a *account) exceeded() []string {
	if !a.bounded || a.changed && a.unbounded {
		return nil
	}
	before := a.used.Sub(a.grown)
	if lacking := a.quota.Within(before, a.grown); lacking == nil || !a.changed {
		return lacking
	}
	return kernel.Quota{Limit: a.was}.Within(before, a.grown)
}

type portKey struct {
	agent kernel.AgentID
	port  HostPort
}

// NewLedger returns a ledger of an empty datacenter.
func NewLedger() *Ledger {
	return &Ledger{
		groups: map[kernel.GroupID]Placement{}, machines: map[kernel.AgentID]*account{}, roles: map[string]*account{},
		ports: newHolders[portKey](), addrs: newHolders[netip.Addr](),
		subnets: map[kernel.AgentID]netip.Prefix{}, vips: map[string]netip.Addr{}, vipAddrs: map[netip.Addr]string{},
	}
}

// Agent tells what an agent has, and its subnet if it has one.
func (l *Ledger) Agent(id kernel.AgentID, total kernel.Resources, subnet netip.Prefix) {
	l.limit(l.machine(id), total, true)
	if !subnet.IsValid() || l.subnets[id] == subnet {
		return
	}
	for other, s := range l.subnets {
		if other != id && s.Overlaps(subnet) {
			l.pending = append(l.pending, violated(I14, "agents %s and %s share addresses: subnets %v and %v", id, other, subnet, s)...)
		}
	}
	l.subnets[id] = subnet
}

// DropAgent tells that an agent is not part of the datacenter any more.
func (l *Ledger) DropAgent(id kernel.AgentID) {
	l.limit(l.machine(id), kernel.Resources{}, false)
	delete(l.subnets, id)
}

// Quota tells a role's quota; nil removes it.
func (l *Ledger) Quota(role string, limit *kernel.Resources) {
	if limit == nil {
		l.limit(l.role(role), kernel.Resources{}, false)
		return
	}
	l.limit(l.role(role), *limit, true)
}

// Place tells that a group is durable on an agent. Telling it again changes nothing.
func (l *Ledger) Place(p Placement) {
	if old, ok := l.groups[p.Group]; ok {
		if old.Agent != p.Agent {
			l.pending = append(l.pending, violated(I14, "group %s is on agent %s and on agent %s", p.Group, old.Agent, p.Agent)...)
		}
		return
	}
	l.groups[p.Group] = p
	l.charge(p, p.Guarantee)
	for _, port := range p.Ports {
		l.ports.add(portKey{p.Agent, port}, p.Group)
	}
	if p.Address.IsValid() {
		l.addrs.add(p.Address, p.Group)
	}
}

// Resize tells that a durable group's guarantee is another one.
func (l *Ledger) Resize(group kernel.GroupID, guarantee kernel.Resources) {
	p, ok := l.groups[group]
	if !ok {
		return
	}
	l.charge(p, guarantee.Sub(p.Guarantee))
	p.Guarantee = guarantee
	l.groups[group] = p
}

// Remove tells that a group is not durable on the agent any more.
func (l *Ledger) Remove(group kernel.GroupID, agent kernel.AgentID) {
	p, ok := l.groups[group]
	if !ok || p.Agent != agent {
		return
	}
	delete(l.groups, group)
	l.charge(p, kernel.Resources{}.Sub(p.Guarantee))
	for _, port := range p.Ports {
		l.ports.remove(portKey{p.Agent, port}, group)
	}
	if p.Address.IsValid() {
		l.addrs.remove(p.Address, group)
	}
}

// VIP tells the address of a named VIP; an invalid address means that it has none any more. While it has one it keeps it.
func (l *Ledger) VIP(name string, addr netip.Addr) {
	if old, ok := l.vips[name]; ok && old != addr {
		if addr.IsValid() {
			l.pending = append(l.pending, violated(I14, "VIP %s has address %v and gets %v: who knows it by the one loses it", name, old, addr)...)
		}
		delete(l.vipAddrs, old)
		delete(l.vips, name)
	}
	if !addr.IsValid() {
		return
	}
	if other, ok := l.vipAddrs[addr]; ok && other != name {
		l.pending = append(l.pending, violated(I14, "VIPs %s and %s have one address %v", other, name, addr)...)
	}
	l.vips[name], l.vipAddrs[addr] = addr, name
}

// On reports whether a group is durable on an agent now.
func (l *Ledger) On(group kernel.GroupID, agent kernel.AgentID) bool {
	p, ok := l.groups[group]
	return ok && p.Agent == agent
}

// Get returns a durable placement.
func (l *Ledger) Get(group kernel.GroupID) (Placement, bool) {
	p, ok := l.groups[group]
	return p, ok
}

// Free is what an agent has left to promise; nothing if the ledger does not know it.
func (l *Ledger) Free(agent kernel.AgentID) kernel.Resources {
	if a := l.machines[agent]; a != nil && a.bounded {
		return a.quota.Limit.Sub(a.used)
	}
	return kernel.Resources{}
}

// Over reports whether a role uses more than its own quota.
func (l *Ledger) Over(role string) bool {
	r := l.roles[role]
	return r != nil && r.bounded && r.quota.Over(r.used) != nil
}

// Affords reports whether the quotas of a role and of those above leave room for more.
func (l *Ledger) Affords(role string, more kernel.Resources) bool {
	for ; role != ""; role = kernel.ParentRole(role) {
		if r := l.roles[role]; r != nil && r.bounded && len(r.quota.Within(r.used, more)) > 0 {
			return false
		}
	}
	return true
}

// Judge answers with what the changes since the last call broke; revision goes into the facts.
func (l *Ledger) Judge(revision int64) []Violation {
	out := l.pending
	l.pending = nil
	for _, a := range l.grown {
		if lacking := a.exceeded(); lacking != nil {
			out = append(out, violated(I13, "%s %s has %v guaranteed of %v at revision %d: too little %s",
				a.kind, a.name, a.used, a.quota.Limit, revision, strings.Join(lacking, ", "))...)
		}
	}
	for _, a := range l.grown {
		a.grown, a.listed = kernel.Resources{}, false
	}
	l.grown = l.grown[:0]
	for _, a := range l.changed {
		a.changed = false
	}
	l.changed = l.changed[:0]
	for k, h := range l.ports.clashes() {
		out = append(out, violated(I14, "host port %d/%s of agent %s is held by groups %s and %s at revision %d",
			k.port.Number, k.port.Protocol, k.agent, h[0], h[1], revision)...)
	}
	for k, h := range l.addrs.clashes() {
		out = append(out, violated(I14, "address %v is held by groups %s and %s at revision %d", k, h[0], h[1], revision)...)
	}
	return out
}

func (l *Ledger) charge(p Placement, by kernel.Resources) {
	l.add(l.machine(p.Agent), by)
	for role := p.Role; role != ""; role = kernel.ParentRole(role) {
		l.add(l.role(role), by)
	}
}

func (l *Ledger) add(a *account, by kernel.Resources) {
	a.used = a.used.Add(by)
	more := by.Most(kernel.Resources{})
	if a.grown = a.grown.Add(more); !more.IsZero() && !a.listed {
		a.listed = true
		l.grown = append(l.grown, a)
	}
}

func (l *Ledger) machine(id kernel.AgentID) *account {
	a := l.machines[id]
	if a == nil {
		a = &account{kind: "agent", name: string(id)}
		l.machines[id] = a
	}
	return a
}

func (l *Ledger) role(name string) *account {
	a := l.roles[name]
	if a == nil {
		a = &account{kind: "role", name: name}
		l.roles[name] = a
	}
	return a
}

// holders is who holds what, for things that have one holder.
type holders[K comparable] struct {
	one   map[K]kernel.GroupID
	more  map[K][]kernel.GroupID // beyond the one; empty while the invariant holds
	doubt []K                    // got a second holder since the last Judge
}

func newHolders[K comparable]() holders[K] {
	return holders[K]{one: map[K]kernel.GroupID{}, more: map[K][]kernel.GroupID{}}
}

func (h *holders[K]) add(k K, g kernel.GroupID) {
	if _, taken := h.one[k]; taken {
		h.more[k] = append(h.more[k], g)
		h.doubt = append(h.doubt, k)
		return
	}
	h.one[k] = g
}

func (h *holders[K]) remove(k K, g kernel.GroupID) {
	more := h.more[k]
	if h.one[k] == g {
		if len(more) == 0 {
			delete(h.one, k)
			return
		}
		h.one[k], more = more[0], more[1:]
	} else {
		for i := range more {
			if more[i] == g {
				more = append(more[:i:i], more[i+1:]...)
				break
			}
		}
	}
	if h.more[k] = more; len(more) == 0 {
		delete(h.more, k)
	}
}

// clashes yields what still has two holders of that which got a second one, with the first two, and forgets the doubts.
func (h *holders[K]) clashes() iter.Seq2[K, [2]kernel.GroupID] {
	return func(yield func(K, [2]kernel.GroupID) bool) {
		doubt := h.doubt
		h.doubt = h.doubt[:0]
		for _, k := range doubt {
			if more := h.more[k]; len(more) > 0 && !yield(k, [2]kernel.GroupID{h.one[k], more[0]}) {
				return
			}
		}
	}
}
