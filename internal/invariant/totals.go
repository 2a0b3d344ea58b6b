package invariant

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Totals are the sums and the holders that a Ledger judges by. They know of no instance: whoever takes something for
// one gives the same back. That is small enough for a leader to keep beside a million instances.
type Totals struct {
	machines map[kernel.AgentID]*account
	roles    map[string]*account
	doubts   []port           // of machines, that got a second holder since the last Judge
	v4       holders[[4]byte] // addresses
	v6       holders[[16]byte]
	subnets  []*account // machines that have one, by it
	vips     map[string]netip.Addr
	vipAddrs map[netip.Addr]string
	grown    []*account
	changed  []*account
	pending  []Violation // found while told
	spare    []*recent
	idle     []*account // that were unused and may be so still
}

// account is a machine or a role: what it may give and what is taken.
type account struct {
	name    string
	machine bool // else it is a role
	bounded bool
	limit   kernel.Resources // a machine's has no unlimited component
	used    kernel.Resources
	subnet  netip.Prefix // a machine's
	ports   []uint32     // host ports taken on it, in order: the number, doubled, and one more for UDP
	recent  *recent      // since the last Judge
	idle    bool         // it is among those
}

// recent notes the changes of an account since the last Judge.
type recent struct {
	changed   bool             // its limit
	was       kernel.Resources // limit before that
	unbounded bool             // a role that had no limit before that
	grown     kernel.Resources // by what came, what went not taken off
	listed    bool             // among those that grew
}

type port struct {
	machine *account
	key     uint32 // as in account.ports
}

// spareMost bounds the notes that are kept, and about bounds the unused accounts, for the next Judge.
const spareMost = 1024

// NewTotals returns those of an empty datacenter.
func NewTotals() *Totals {
	return &Totals{machines: map[kernel.AgentID]*account{}, roles: map[string]*account{},
		v4: newHolders[[4]byte](), v6: newHolders[[16]byte](),
		vips: map[string]netip.Addr{}, vipAddrs: map[netip.Addr]string{}}
}

func (a *account) kind() string {
	if a.machine {
		return "agent"
	}
	return "role"
}

// since notes an account until the next Judge.
func (b *Totals) since(a *account) *recent {
	if a.recent == nil {
		if n := len(b.spare); n > 0 {
			a.recent, b.spare = b.spare[n-1], b.spare[:n-1]
		} else {
			a.recent = &recent{}
		}
	}
	return a.recent
}

// bound changes what the account may give. A revision that both lowers a limit and uses it up is within the limit
// that was.
func (b *Totals) bound(a *account, limit kernel.Resources, bounded bool) {
	if a.limit == limit && a.bounded == bounded {
		return
	}
	if r := b.since(a); !r.changed {
		r.changed, r.was, r.unbounded = true, a.limit, !a.bounded && !a.machine
		b.changed = append(b.changed, a)
	}
	a.limit, a.bounded = limit, bounded
	b.rest(a)
}

// unused reports whether the books are as they would be if nobody had ever heard of the account.
func (a *account) unused() bool {
	return !a.bounded && a.used.IsZero() && len(a.ports) == 0 && !a.subnet.IsValid()
}

// rest notes an account that is unused.
func (b *Totals) rest(a *account) {
	if !a.idle && a.unused() {
		a.idle = true
		b.idle = append(b.idle, a)
	}
}

// forgetIdle drops the accounts that nothing is to be judged by any more, once there are many: roles and machines
// come and go for years.
func (b *Totals) forgetIdle() {
	if len(b.idle) < spareMost {
		return
	}
	for _, a := range b.idle {
		a.idle = false
		switch {
		case !a.unused():
		case a.machine:
			delete(b.machines, kernel.AgentID(a.name))
		default:
			delete(b.roles, a.name)
		}
	}
	clear(b.idle)
	b.idle = b.idle[:0]
}

// exceeded lists what the account has given beyond its limit.
func (a *account) exceeded() []string {
	r := a.recent
	if !a.bounded || r.changed && r.unbounded {
		return nil
	}
	before := a.used.Sub(r.grown)
	if lacking := (kernel.Quota{Limit: a.limit}).Within(before, r.grown); lacking == nil || !r.changed {
		return lacking
	}
	return kernel.Quota{Limit: r.was}.Within(before, r.grown)
}

// Agent tells what an agent has, and its subnet if it has one.
func (b *Totals) Agent(id kernel.AgentID, total kernel.Resources, prefix netip.Prefix) {
	a := b.machine(id)
	b.bound(a, total, true)
	if !prefix.IsValid() || a.subnet == prefix {
		return
	}
	b.dropSubnet(a)
	bySubnet := func(other *account, p netip.Prefix) int { return other.subnet.Compare(p) }
	at, _ := slices.BinarySearchFunc(b.subnets, prefix, bySubnet)
	for _, other := range b.subnets[max(0, at-1):min(at+1, len(b.subnets))] { // those that do not overlap lie in a row
		if other.subnet.Overlaps(prefix) {
			b.pending = append(b.pending, violated(I14Exclusive, "agents %s and %s share addresses: subnets %v and %v",
				id, other.name, prefix, other.subnet)...)
		}
	}
	a.subnet = prefix
	b.subnets = slices.Insert(b.subnets, at, a)
}

func (b *Totals) dropSubnet(a *account) {
	if a.subnet.IsValid() {
		b.subnets = slices.DeleteFunc(b.subnets, func(other *account) bool { return other == a })
		a.subnet = netip.Prefix{}
	}
}

// DropAgent tells that an agent is not part of the datacenter any more.
func (b *Totals) DropAgent(id kernel.AgentID) {
	a := b.machine(id)
	b.dropSubnet(a)
	b.bound(a, kernel.Resources{}, false)
	b.rest(a)
}

// Quota tells a role's quota; nil removes it.
func (b *Totals) Quota(role string, limit *kernel.Resources) {
	if limit == nil {
		b.bound(b.role(role), kernel.Resources{}, false)
		return
	}
	b.bound(b.role(role), *limit, true)
}

// Take tells that an instance is durable with all that it holds, GiveBack that it is not any more.
func (b *Totals) Take(p Placement) {
	b.Charge(p.Agent, p.Role, p.Guarantee)
	m := b.machine(p.Agent)
	for _, held := range p.Ports {
		key := held.key()
		at, taken := slices.BinarySearch(m.ports, key)
		if m.ports = slices.Insert(m.ports, at, key); taken {
			b.doubts = append(b.doubts, port{m, key})
		}
	}
	if p.Address.Is4() {
		b.v4.add(p.Address.As4())
	} else if p.Address.IsValid() {
		b.v6.add(p.Address.As16())
	}
}

// GiveBack is the opposite of Take.
func (b *Totals) GiveBack(p Placement) {
	b.Charge(p.Agent, p.Role, kernel.Resources{}.Sub(p.Guarantee))
	m := b.machine(p.Agent)
	for _, held := range p.Ports {
		if at, taken := slices.BinarySearch(m.ports, held.key()); taken {
			m.ports = slices.Delete(m.ports, at, at+1)
		}
	}
	b.rest(m)
	if p.Address.Is4() {
		b.v4.remove(p.Address.As4())
	} else if p.Address.IsValid() {
		b.v6.remove(p.Address.As16())
	}
}

// Charge tells that an instance on an agent is guaranteed more, or less.
func (b *Totals) Charge(agent kernel.AgentID, role string, by kernel.Resources) {
	b.add(b.machine(agent), by)
	for ; role != ""; role = kernel.ParentRole(role) {
		b.add(b.role(role), by)
	}
}

func (b *Totals) add(a *account, by kernel.Resources) {
	a.used = a.used.Add(by)
	more := by.Most(kernel.Resources{})
	if more.IsZero() {
		b.rest(a)
		return
	}
	r := b.since(a)
	if r.grown = r.grown.Add(more); !r.listed {
		r.listed = true
		b.grown = append(b.grown, a)
	}
}

// VIP tells the address of a named VIP; an invalid address means that it has none any more. While it has one it keeps
// it.
func (b *Totals) VIP(name string, addr netip.Addr) {
	if old, ok := b.vips[name]; ok && old != addr {
		if addr.IsValid() {
			b.pending = append(b.pending, violated(I14Exclusive, "VIP %s has address %v and gets %v: who knows it by the one loses it", name, old, addr)...)
		}
		delete(b.vipAddrs, old)
		delete(b.vips, name)
	}
	if !addr.IsValid() {
		return
	}
	if other, ok := b.vipAddrs[addr]; ok && other != name {
		b.pending = append(b.pending, violated(I14Exclusive, "VIPs %s and %s have one address %v", other, name, addr)...)
	}
	b.vips[name], b.vipAddrs[addr] = addr, name
}

// Free returns the resources that an agent has left to promise; nothing if the totals do not know it.
func (b *Totals) Free(agent kernel.AgentID) kernel.Resources {
	if a := b.machines[agent]; a != nil && a.bounded {
		return a.limit.Sub(a.used)
	}
	return kernel.Resources{}
}

// Over reports whether a role uses more than its own quota.
func (b *Totals) Over(role string) bool {
	r := b.roles[role]
	return r != nil && r.bounded && kernel.Quota{Limit: r.limit}.Over(r.used) != nil
}

// Affords reports whether the quotas of a role and of those above leave room for more.
func (b *Totals) Affords(role string, more kernel.Resources) bool {
	for ; role != ""; role = kernel.ParentRole(role) {
		if r := b.roles[role]; r != nil && r.bounded && len(kernel.Quota{Limit: r.limit}.Within(r.used, more)) > 0 {
			return false
		}
	}
	return true
}

// Judge answers with what the changes since the last call broke; revision goes into the facts. who finds the instances
// that hold something.
func (b *Totals) Judge(revision int64, who func(holds func(*Placement) bool) []kernel.InstanceID) []Violation {
	out := b.pending
	b.pending = nil
	for _, a := range b.grown {
		if lacking := a.exceeded(); lacking != nil {
			out = append(out, violated(I13Capacity, "%s %s has %v guaranteed of %v at revision %d: too little %s",
				a.kind(), a.name, a.used, a.limit, revision, strings.Join(lacking, ", "))...)
		}
	}
	for _, list := range [][]*account{b.grown, b.changed} {
		for _, a := range list {
			if a.recent != nil {
				*a.recent = recent{}
				a.recent, b.spare = nil, append(b.spare, a.recent)
			}
		}
	}
	b.grown, b.changed = b.grown[:0], b.changed[:0]
	if len(b.spare) > spareMost { // as after a leader's beginning
		b.grown, b.changed, b.spare = nil, nil, nil
	}
	for _, d := range b.doubts {
		ports := d.machine.ports
		if at, _ := slices.BinarySearch(ports, d.key); at+1 >= len(ports) || ports[at+1] != d.key {
			continue
		}
		agent, held := kernel.AgentID(d.machine.name), HostPort{uint16(d.key >> 1), "tcp"}
		if d.key&1 != 0 {
			held.Protocol = "udp"
		}
		out = append(out, violated(I14Exclusive, "host port %d/%s of agent %s is held by groups %v at revision %d",
			held.Number, held.Protocol, agent,
			who(func(p *Placement) bool { return p.Agent == agent && slices.Contains(p.Ports, held) }), revision)...)
	}
	b.doubts = b.doubts[:0]
	var addrs []netip.Addr
	for _, k := range b.v4.clashes() {
		addrs = append(addrs, netip.AddrFrom4(k))
	}
	for _, k := range b.v6.clashes() {
		addrs = append(addrs, netip.AddrFrom16(k))
	}
	for _, addr := range addrs {
		out = append(out, violated(I14Exclusive, "address %v is held by groups %v at revision %d", addr,
			who(func(p *Placement) bool { return p.Address == addr }), revision)...)
	}
	b.forgetIdle()
	return out
}

func (p HostPort) key() uint32 {
	key := uint32(p.Number) << 1
	if p.Protocol == "udp" {
		key++
	}
	return key
}

func (b *Totals) machine(id kernel.AgentID) *account {
	a := b.machines[id]
	if a == nil {
		a = &account{name: string(id), machine: true}
		b.machines[id] = a
	}
	return a
}

func (b *Totals) role(name string) *account {
	a := b.roles[name]
	if a == nil {
		a = &account{name: name}
		b.roles[name] = a
	}
	return a
}

// holders counts who holds what, for things that have one holder.
type holders[K comparable] struct {
	one   map[K]struct{}
	more  map[K]int // beyond the one; empty while the invariant holds
	doubt []K       // got a second holder since the last Judge
}

func newHolders[K comparable]() holders[K] {
	return holders[K]{one: map[K]struct{}{}, more: map[K]int{}}
}

func (h *holders[K]) add(k K) {
	if _, taken := h.one[k]; taken {
		h.more[k]++
		h.doubt = append(h.doubt, k)
		return
	}
	h.one[k] = struct{}{}
}

func (h *holders[K]) remove(k K) {
	switch h.more[k] {
	case 0:
		delete(h.one, k)
	case 1:
		delete(h.more, k)
	default:
		h.more[k]--
	}
}

// clashes lists what got a second holder and still has two. Doubts are forgotten.
func (h *holders[K]) clashes() (out []K) {
	for _, k := range h.doubt {
		if h.more[k] > 0 {
			out = append(out, k)
		}
	}
	h.doubt = h.doubt[:0]
	return out
}
