package placement

import (
	"fmt"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// Request is a spec prepared for placing. It is immutable and may be kept as long as the spec.
type Request struct {
	need    kernel.Resources
	fixed   []uint16 // distinct host ports asked for by number
	any     int      // host ports asked for without one
	hosts   []int    // of each port of the spec: its number, AnyHostPort or NoHostPort
	address bool
	bundles []string // programs that the machine must have
	static  []constraint
	counted []constraint
	owner   string
	set     string
}

// Prepare compiles a spec. The error is an errdefs.ErrInvalidArgument that names the constraint.
func Prepare(s *kernel.Spec) (*Request, error) {
	r := &Request{need: s.Guarantee(), address: s.Network.Mode == kernel.NetworkBridge,
		owner: s.Framework + "\x00" + s.Owner, set: s.Framework + "\x00" + s.Owner + "\x00" + s.Version}
	for _, port := range s.Ports() {
		r.hosts = append(r.hosts, port.Host)
		switch {
		case port.Host == kernel.AnyHostPort:
			r.any++
		case port.Host > 0 && !slices.Contains(r.fixed, uint16(port.Host)):
			r.fixed = append(r.fixed, uint16(port.Host))
		}
	}
	for i := range s.Tasks {
		r.bundles = append(r.bundles, s.Tasks[i].Bundles...)
	}
	for _, c := range s.Constraints {
		k, err := compile(c)
		if err != nil {
			return nil, fmt.Errorf("spec of %s: %w", s.Owner, err)
		}
		r.static = append(r.static, k)
		if k.counted() {
			r.counted = append(r.counted, k)
		}
	}
	return r, nil
}

// machinesPerFew is the share of machines, one in so many, up to which instances are placed one by one; for more, sorting all
// machines into a heap is cheaper.
const machinesPerFew = 16

// Place finds machines for up to k instances and takes what they need. With fewer than k placements the refusal says why.
func (p *Pool) Place(r *Request, k int) ([]Placement, kernel.Refusal) {
	if k <= 0 {
		return nil, kernel.Refusal{}
	}
	tallies := p.tallies(r)
	var out []Placement
	if k <= max(1, len(p.machines)/machinesPerFew) || slices.ContainsFunc(r.counted, func(c constraint) bool { return c.Operator == "GROUP_BY" }) {
		out = p.placeOneByOne(r, k, tallies)
	} else {
		p.countOwner(r)
		out = p.placeByHeap(r, k, tallies)
	}
	if len(out) == k {
		return out, kernel.Refusal{}
	}
	return out, p.explain(r, tallies)
}

// countOwner fills the scratch column with the instances of the request's owner.
func (p *Pool) countOwner(r *Request) {
	if len(p.count) < len(p.machines) {
		p.count = make([]int32, len(p.machines)+len(p.machines)/2)
	}
	clear(p.count[:len(p.machines)])
	if c := p.owners[r.owner]; c != nil {
		for i, n := range c.by {
			p.count[i] = n
		}
	}
}

// tallies counts the instances of the request's set for each counted constraint.
func (p *Pool) tallies(r *Request) []tally {
	if len(r.counted) == 0 {
		return nil
	}
	out := make([]tally, len(r.counted))
	for k := range r.counted {
		t := tally{constraint: &r.counted[k], by: map[string]int{}}
		if t.Operator == "GROUP_BY" {
			for v := range p.values(t.Field) {
				t.by[v] = 0
			}
		}
		if c := p.sets[r.set]; c != nil {
			for i, n := range c.by {
				if v, ok := p.machines[i].field(t.Field); ok {
					t.by[v] += int(n)
					t.total += int(n)
				}
			}
		}
		t.least = leastOf(t.by)
		out[k] = t
	}
	return out
}

// values counts the machines with each value of a field.
func (p *Pool) values(field string) map[string]int {
	if p.fields[field] == nil {
		p.fields[field] = map[string]int{}
		for i := range p.machines {
			if v, ok := p.machines[i].field(field); ok {
				p.fields[field][v]++
			}
		}
	}
	return p.fields[field]
}

// placeOneByOne finds the best machine for each instance anew.
func (p *Pool) placeOneByOne(r *Request, k int, tallies []tally) []Placement {
	var out []Placement
	for range k {
		best := p.best(r, tallies)
		if best < 0 {
			break
		}
		out = append(out, p.put(r, best, tallies))
	}
	return out
}

// placeByHeap looks at every machine once and keeps those that fit in a heap. A machine that no longer fits, or that a
// constraint no longer allows, leaves it: within one call neither can change back, GROUP_BY excepted, which does not come here.
func (p *Pool) placeByHeap(r *Request, k int, tallies []tally) []Placement {
	h := p.heap[:0]
	for i := range p.machines {
		if i := int32(i); p.open[i] && r.need.Fits(p.free[i]) && p.fits(r, i) && p.allowed(tallies, i) {
			h = append(h, i)
		}
	}
	for i := len(h)/2 - 1; i >= 0; i-- {
		p.down(h, i)
	}
	out := make([]Placement, 0, min(k, 1024))
	for len(out) < k && len(h) > 0 {
		i := h[0]
		if r.need.Fits(p.free[i]) && p.fits(r, i) && p.allowed(tallies, i) {
			out = append(out, p.put(r, i, tallies))
			p.count[i]++
		} else {
			h[0] = h[len(h)-1]
			h = h[:len(h)-1]
		}
		if len(h) > 0 {
			p.down(h, 0)
		}
	}
	p.heap = h[:0]
	return out
}

func (p *Pool) down(h []int32, i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && p.before(h[c+1], h[c]) {
			c++
		}
		if !p.before(h[c], h[i]) {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

// before is the ranking within a heap.
func (p *Pool) before(a, b int32) bool {
	if p.count[a] != p.count[b] {
		return p.count[a] < p.count[b]
	}
	if p.score[a] != p.score[b] {
		return p.score[a] > p.score[b]
	}
	return a < b
}

// fits asks the filters that do not change the ranking: constraints on the machine alone, ports, address.
func (p *Pool) fits(r *Request, i int32) bool {
	if len(r.static) == 0 && len(r.hosts) == 0 && !r.address && len(r.bundles) == 0 {
		return true
	}
	m := &p.machines[i]
	if m.without(r) != "" {
		return false
	}
	for k := range r.static {
		if !r.static[k].holds(&m.Machine) {
			return false
		}
	}
	return m.hasPorts(r) && (!r.address || m.addresses.free() > 0)
}

func (p *Pool) allowed(tallies []tally, i int32) bool {
	for k := range tallies {
		v, _ := p.machines[i].field(tallies[k].Field)
		if !tallies[k].allows(v) {
			return false
		}
	}
	return true
}

// without is the first bundle of the request that the machine does not have.
func (m *machine) without(r *Request) string {
	for _, b := range r.bundles {
		if _, ok := m.Bundles[b]; !ok {
			return b
		}
	}
	return ""
}

func (m *machine) hasPorts(r *Request) bool {
	want := r.any
	for _, port := range r.fixed {
		if _, taken := m.ports[port]; taken {
			return false
		}
		if inside(m.Ports, port) {
			want++
		}
	}
	return r.any == 0 || m.freePorts() >= want
}

// put takes what one instance needs on machine i, where it fits.
func (p *Pool) put(r *Request, i int32, tallies []tally) Placement {
	m := &p.machines[i]
	at := Placement{Agent: m.ID}
	for _, port := range r.fixed {
		m.takePort(port)
	}
	if len(r.hosts) > 0 {
		at.HostPorts = make([]uint16, len(r.hosts))
		for k, host := range r.hosts {
			switch {
			case host > 0:
				at.HostPorts[k] = uint16(host)
			case host == kernel.AnyHostPort:
				at.HostPorts[k] = m.anyPort()
			}
		}
	}
	if r.address {
		at.Address = m.addresses.give()
	}
	for k := range tallies {
		v, _ := m.field(tallies[k].Field)
		tallies[k].add(v)
	}
	p.charge(r, i)
	return at
}
