package placement

import (
	"fmt"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// Request is a spec prepared for placing on the machines of one Pool.
type Request struct {
	need     kernel.Resources
	fixed    []uint16 // distinct host ports asked for by number
	any      int      // host ports asked for without one
	hosts    []int    // of each port of the spec: its number, AnyHostPort or NoHostPort
	address  bool
	pack     bool
	role     string
	reserved kernel.Reserved
	rules    []rule // constraints in their order, then programs that the machine must have
	owner    *owner
	series   *series // nil unless a constraint looks at other instances
}

// rule is one constraint on the machine: a filter or a tally.
type rule interface {
	narrow(*search)    // to machines that it allows now
	allows(int32) bool // of one machine
	String() string
	detail() string // of a refusal
}

// Prepare compiles a spec; Drop ends that. The error is an errdefs.ErrInvalidArgument that names the constraint.
func (p *Pool) Prepare(s *kernel.Spec) (*Request, error) {
	strategy := s.Strategy
	if strategy == "" {
		strategy = p.usual
	}
	r := &Request{need: s.Guarantee(), address: s.Network.Mode == kernel.NetworkBridge, pack: strategy == kernel.StrategyBinpack,
		role: s.Role, reserved: s.Reserved}
	for _, port := range s.Ports() {
		r.hosts = append(r.hosts, port.Host)
		switch {
		case port.Host == kernel.AnyHostPort:
			r.any++
		case port.Host > 0 && !slices.Contains(r.fixed, uint16(port.Host)):
			r.fixed = append(r.fixed, uint16(port.Host))
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
	r.owner = p.ownerOf(key)
	for k := range constraints {
		c := &constraints[k]
		if !c.counted() {
			r.rules = append(r.rules, p.filter(*c))
			continue
		}
		if r.series == nil {
			r.series = p.seriesOf(key + "\x00" + s.Version)
		}
		r.rules = append(r.rules, r.series.tally(p, c))
	}
	return r, nil
}

// Drop forgets what was prepared for a request of which no instance is placed.
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
			p.leave(f.field)
		}
	}
	if r.series == nil {
		return
	}
	if r.series.requests--; r.series.requests == 0 {
		delete(p.series, r.series.key)
		for _, t := range r.series.tallies {
			t.field.tallies = slices.DeleteFunc(t.field.tallies, func(o *tally) bool { return o == t })
			p.leave(t.field)
		}
	}
}

// Place finds machines for up to k instances and takes what they need. With fewer than k placements no machine takes another, and
// Explain says why.
func (p *Pool) Place(r *Request, k int) (out []Placement) { return p.place(r, k) }

// PlaceFreed is Place for a request of which no machine could take an instance at the last Settled, or since. It looks only at what can
// have changed that.
func (p *Pool) PlaceFreed(r *Request, k int) (out []Placement) {
	if r.series != nil { // an instance less somewhere allows others elsewhere
		return p.place(r, k)
	}
	if p.freed.n == 0 {
		return nil
	}
	return p.place(r, k, &p.freed)
}

// Settled tells that everything that waits was tried.
func (p *Pool) Settled() { p.freed.clear() }

func (p *Pool) place(r *Request, k int, within ...*set) (out []Placement) {
	for len(out) < k {
		i := p.find(r, within...)
		if i < 0 {
			break
		}
		out = append(out, p.put(r, i))
	}
	return out
}

func (m *machine) hasPorts(r *Request) bool {
	want := r.any
	for _, port := range r.fixed {
		if m.hasTaken(port) {
			return false
		}
		if inside(m.Ports, port) {
			want++
		}
	}
	return r.any == 0 || m.freePorts() >= want
}

// put takes what one instance needs on machine i, where it fits.
func (p *Pool) put(r *Request, i int32) Placement {
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
	p.charge(r, i, 1)
	return at
}
