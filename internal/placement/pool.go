package placement

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// Machine has the facts about an agent that placement uses.
type Machine struct {
	ID         kernel.AgentID
	Hostname   string
	Region     string
	Zone       string
	Attributes map[string]string
	Total      kernel.Resources
	Ports      kernel.PortRange // from which AnyHostPort is served
	Subnet     netip.Prefix     // from which addresses are served; fixed once set
	Bundles    map[string]string
}

// Placement is the machine of one instance, with the address and host ports it gets there.
type Placement struct {
	Agent     kernel.AgentID
	Address   netip.Addr // invalid in host mode
	HostPorts []uint16   // one for each of the spec's Ports, zero for none; nil when the spec has none
}

// Pool keeps the machines and what is taken on them. Searches read columns indexed by machine number: free resources
// are aggregated over blocks of 64 machines, blocks of blocks, and so on, so that no search visits all machines.
type Pool struct {
	ids        map[kernel.AgentID]int32
	machines   []machine
	vacant     []int32 // numbers of machines that were removed
	open       set     // machines that may be given instances
	aggregates [height][]aggregate
	totals     totals
	freed      set // machines that can take more than they could at the last Settled
	altered    set // machines whose used or free resources may have changed since the last Altered

	fields   map[string]*field
	filters  map[kernel.Constraint]*filter
	owners   owners
	series   seriesByKey
	reserved map[string]*set // machines with something reserved, by role

	usual   kernel.Strategy // for specs that name none
	scratch search
}

type machine struct {
	Machine
	used          kernel.Resources
	setAside      kernel.Resources // for waiting instances
	reservedParts []reservedPart
	counted       totals // what of it is in the pool's totals
	instances     int
	ports         []uint16 // host ports taken, in order
	inRange       int      // how many of them are of the machine's range
	nextPort      uint16
	addresses     addresses
}

// NewPool returns a pool without machines. Specs that name no strategy are placed by the usual one.
func NewPool(usual kernel.Strategy) *Pool {
	return &Pool{usual: usual, ids: map[kernel.AgentID]int32{}, fields: map[string]*field{},
		filters: map[kernel.Constraint]*filter{},
		owners:  map[string]*owner{}, series: map[string]*series{}, reserved: map[string]*set{}}
}

// Set adds a machine, closed, or replaces its facts. Taken resources stay taken, also when they are more than the
// machine now has; the subnet changes only while no address of it is taken.
func (p *Pool) Set(m Machine) {
	i, ok := p.ids[m.ID]
	if n := len(p.vacant); !ok && n > 0 {
		i, p.vacant = p.vacant[n-1], p.vacant[:n-1]
		p.ids[m.ID] = i
	} else if !ok {
		i = int32(len(p.machines))
		p.ids[m.ID] = i
		p.machines = append(p.machines, machine{})
	}
	k := &p.machines[i]
	if k.Subnet != m.Subnet && k.addresses.used == 0 {
		k.addresses = newAddresses(m.Subnet)
	}
	k.Machine = m
	p.freed.setMember(i, true)
	for _, f := range p.fields {
		f.updateMachine(i, &k.Machine, p.open.has(i))
	}
	k.inRange = 0
	for _, port := range k.ports {
		if inPortRange(m.Ports, port) {
			k.inRange++
		}
	}
	p.updateAggregates(i)
}

// Remove takes out a machine of which nothing is taken any more. Its number is given to the next that comes.
func (p *Pool) Remove(id kernel.AgentID) {
	i, ok := p.ids[id]
	if !ok {
		return
	}
	p.Open(id, false)
	for _, r := range slices.Clone(p.machines[i].reservedParts) {
		p.Reserve(id, r.role, kernel.Resources{}, kernel.Resources{})
	}
	p.machines[i] = machine{}
	for _, f := range p.fields {
		f.updateMachine(i, &p.machines[i].Machine, false)
	}
	p.updateAggregates(i)
	p.freed.setMember(i, false)
	p.altered.setMember(i, false)
	delete(p.ids, id)
	p.vacant = append(p.vacant, i)
}

// Open sets whether a machine may be given instances. A closed one is "unreachable" in refusals.
func (p *Pool) Open(id kernel.AgentID, open bool) {
	if i, ok := p.ids[id]; ok && p.open.has(i) != open {
		p.open.setMember(i, open)
		p.freed.setMember(i, true)
		p.updateAggregates(i)
		for _, f := range p.fields {
			f.countOpen(i, true, open)
		}
	}
}

// IsOpen reports whether a machine is known and may be given instances.
func (p *Pool) IsOpen(id kernel.AgentID) bool {
	i, ok := p.ids[id]
	return ok && p.open.has(i)
}

// Used returns the resources taken of a machine and the number of its instances.
func (p *Pool) Used(id kernel.AgentID) (kernel.Resources, int) {
	i, ok := p.ids[id]
	if !ok {
		return kernel.Resources{}, 0
	}
	return p.machines[i].used, p.machines[i].instances
}

// Altered yields the machines whose used or free resources may have changed since the last complete call.
func (p *Pool) Altered(yield func(kernel.AgentID) bool) {
	for i := range p.altered.each {
		if !yield(p.machines[i].ID) {
			return
		}
	}
	p.altered.clear()
}

// Take repeats a placement decided earlier. Resources are taken even when the machine has less. A port or address
// that is taken already is an errdefs.ErrAlreadyExists, an unknown machine an errdefs.ErrNotFound; nothing is taken
// then.
func (p *Pool) Take(r *Request, at Placement) error {
	i, ok := p.ids[at.Agent]
	if !ok {
		return fmt.Errorf("machine %s: %w", at.Agent, errdefs.ErrNotFound)
	}
	m := &p.machines[i]
	if err := m.takeNetwork(at); err != nil {
		return err
	}
	p.countInstances(r, i, 1)
	return nil
}

// Release returns what one instance took.
func (p *Pool) Release(r *Request, at Placement) {
	i, ok := p.ids[at.Agent]
	if !ok {
		return
	}
	p.machines[i].releaseNetwork(at)
	p.freed.setMember(i, true)
	p.countInstances(r, i, -1)
}

// countInstances adds n, which may be negative, to the instances of r on machine i.
func (p *Pool) countInstances(r *Request, i, n int32) {
	m := &p.machines[i]
	m.used = m.used.Add(r.need.Times(int64(n)))
	if r.reserved != kernel.ReservedNone {
		m.countReservedUse(r.role, r.need.Times(int64(n)))
	}
	m.instances += int(n)
	r.owner.addInstances(i, n, len(p.machines))
	if r.series != nil {
		r.series.addInstances(i, n)
	}
	p.updateAggregates(i)
}

func inPortRange(r kernel.PortRange, port uint16) bool {
	return port >= r.First && port <= r.Last && port != 0
}

func (m *machine) freePorts() int {
	if m.Ports.Last < m.Ports.First || m.Ports.Last == 0 {
		return 0
	}
	return int(m.Ports.Last) - int(max(m.Ports.First, 1)) + 1 - m.inRange
}

func (m *machine) portTaken(port uint16) bool {
	_, taken := slices.BinarySearch(m.ports, port)
	return taken
}

func (m *machine) takePort(port uint16) {
	at, taken := slices.BinarySearch(m.ports, port)
	if port == 0 || taken {
		return
	}
	m.ports = slices.Insert(m.ports, at, port)
	if inPortRange(m.Ports, port) {
		m.inRange++
	}
}

func (m *machine) releasePort(port uint16) {
	at, taken := slices.BinarySearch(m.ports, port)
	if !taken {
		return
	}
	m.ports = slices.Delete(m.ports, at, at+1)
	if inPortRange(m.Ports, port) {
		m.inRange--
	}
}

// takeNextPort takes the next free port of the machine's range, round robin; zero when there is none.
func (m *machine) takeNextPort() uint16 {
	if m.freePorts() <= 0 {
		return 0
	}
	if !inPortRange(m.Ports, m.nextPort) {
		m.nextPort = max(m.Ports.First, 1)
	}
	for {
		port := m.nextPort
		if m.nextPort == m.Ports.Last {
			m.nextPort = max(m.Ports.First, 1)
		} else {
			m.nextPort++
		}
		if !m.portTaken(port) {
			m.takePort(port)
			return port
		}
	}
}
