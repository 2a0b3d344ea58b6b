package placement

import (
	"fmt"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// Request is a spec prepared for placing on the machines of one Pool.
type Request struct {
	need       kernel.Resources
	fixedPorts []uint16 // distinct host ports asked for by number
	anyPorts   int      // host ports asked for without one
	hosts      []int    // of each port of the spec: its number, AnyHostPort or NoHostPort
	address    bool
	pack       bool
	role       string
	reserved   kernel.Reserved
	rules      []rule // constraints in their order, then programs that the machine must have
	owner      *owner
	series     *series // nil unless a constraint looks at other instances
}

// rule is a compiled constraint: a filter or a tally.
type rule interface {
	narrowSearch(*search) // to machines that it allows now
	allows(int32) bool    // of one machine
	String() string
	detail() string // of a refusal
}

// Prepare compiles a spec; Drop releases it. The error is an errdefs.ErrInvalidArgument that names the constraint.
func (p *Pool) Prepare(s *kernel.Spec) (*Request, error) {
	strategy := s.Strategy
	if strategy == "" {
		strategy = p.usual
	}
	r := &Request{need: s.Guarantee(), address: s.Network.Mode == kernel.NetworkBridge,
		pack: strategy == kernel.StrategyBinpack,
		role: s.Role, reserved: s.Reserved}
	for _, port := range s.Ports() {
		r.hosts = append(r.hosts, port.Host)
		switch {
		case port.Host == kernel.AnyHostPort:
			r.anyPorts++
		case port.Host > 0 && !slices.Contains(r.fixedPorts, uint16(port.Host)):
			r.fixedPorts = append(r.fixedPorts, uint16(port.Host))
		}
	}
	constraints := make([]constraint, len(s.Constraints))
	for k, c := range s.Constraints {
		var err error
		if constraints[k], err = compile(c); err != nil {
			return nil, fmt.Errorf("spec of %s: %w", s.Owner, err)
		}
	}
	for i := range s.Tasks {
		for _, b := range s.Tasks[i].Bundles {
			constraints = append(constraints, hasBundle(b))
		}
	}
	key := s.Framework + "\x00" + s.Owner
	r.owner = p.owners.of(key)
	for k := range constraints {
		c := &constraints[k]
		if !c.counted() {
			r.rules = append(r.rules, p.filterFor(*c))
			continue
		}
		if r.series == nil {
			r.series = p.series.of(key + "\x00" + s.Version)
		}
		r.rules = append(r.rules, r.series.tallyFor(p, c))
	}
	return r, nil
}

// Drop releases what Prepare made. No instance of the request may be placed.
func (p *Pool) Drop(r *Request) {
	if r.owner.requests--; r.owner.requests == 0 {
		delete(p.owners, r.owner.key)
	}
	for _, rule := range r.rules {
		f, ok := rule.(*filter)
		if !ok {
			continue
		}
		if f.requests--; f.requests == 0 {
			delete(p.filters, f.Constraint)
			f.field.filters = slices.DeleteFunc(f.field.filters, func(o *filter) bool { return o == f })
			p.dropField(f.field)
		}
	}
	if r.series == nil {
		return
	}
	if r.series.requests--; r.series.requests == 0 {
		delete(p.series, r.series.key)
		for _, t := range r.series.tallies {
			t.field.tallies = slices.DeleteFunc(t.field.tallies, func(o *tally) bool { return o == t })
			p.dropField(t.field)
		}
	}
}

// Place places up to k instances and takes what they need. If there are fewer than k placements, no machine takes
// another, and Explain says why.
func (p *Pool) Place(r *Request, k int) (out []Placement) { return p.placeWithin(r, k) }

// PlaceFreed is Place for a request that no machine could take at the last Settled or since: it visits only machines
// that got something free since then.
func (p *Pool) PlaceFreed(r *Request, k int) (out []Placement) {
	if r.series != nil { // an instance that ended somewhere can allow others elsewhere
		return p.placeWithin(r, k)
	}
	if p.freed.n == 0 {
		return nil
	}
	return p.placeWithin(r, k, &p.freed)
}

// Settled begins a new PlaceFreed period: all waiting requests were tried.
func (p *Pool) Settled() { p.freed.clear() }

func (p *Pool) placeWithin(r *Request, k int, within ...*set) (out []Placement) {
	for len(out) < k {
		i := p.findMachine(r, within...)
		if i < 0 {
			break
		}
		out = append(out, p.takeOn(r, i))
	}
	return out
}

func (m *machine) hasPorts(r *Request) bool {
	want := r.anyPorts
	for _, port := range r.fixedPorts {
		if m.portTaken(port) {
			return false
		}
		if inPortRange(m.Ports, port) {
			want++
		}
	}
	return r.anyPorts == 0 || m.freePorts() >= want
}

// hasPortsAndAddress reports whether the machine has the host ports and an address for an instance of r.
func (m *machine) hasPortsAndAddress(r *Request) bool {
	return m.hasPorts(r) && (!r.address || m.addresses.free() > 0)
}

// takeOn takes what one instance needs on machine i, where it fits.
func (p *Pool) takeOn(r *Request, i int32) Placement {
	m := &p.machines[i]
	at := Placement{Agent: m.ID}
	for _, port := range r.fixedPorts {
		m.takePort(port)
	}
	if len(r.hosts) > 0 {
		at.HostPorts = make([]uint16, len(r.hosts))
		for k, host := range r.hosts {
			switch {
			case host > 0:
				at.HostPorts[k] = uint16(host)
			case host == kernel.AnyHostPort:
				at.HostPorts[k] = m.takeNextPort()
			}
		}
	}
	if r.address {
		at.Address = m.addresses.takeNext()
	}
	p.countInstances(r, i, 1)
	return at
}
