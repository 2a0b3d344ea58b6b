package placement

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// Machine is what placement needs to know of an agent.
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

// Placement is where one instance goes and what it gets there.
type Placement struct {
	Agent     kernel.AgentID
	Address   netip.Addr // invalid in host mode
	HostPorts []uint16   // one for each of the spec's Ports, zero for none; nil when the spec has none
}

// Pool is the machines and what is taken on them. What a search reads is in columns, by the machines' numbers: what is free is
// summed up in blocks of 64, blocks of blocks, and so on, so that it never looks at all of them.
type Pool struct {
	ids      map[kernel.AgentID]int32
	machines []machine
	open     set // machines that may be given instances
	sums     [height][]sum
	total    kernel.Resources // of open machines
	free     kernel.Resources
	freed    set // machines that can take more than they could at the last Settled
	altered  set // machines of which more or less is used or free than at the last Altered

	fields   map[string]*field
	filters  map[kernel.Constraint]*filter
	owners   map[string]*owner
	series   map[string]*series
	reserved map[string]*set // machines with something reserved, by role

	usual   kernel.Strategy // of specs that name none
	scratch search
}

type machine struct {
	Machine
	used      kernel.Resources
	held      kernel.Resources // for what waits
	reserves  []reserve
	counted   [2]kernel.Resources // in the pool's total and free
	instances int
	ports     []uint16 // host ports taken, in order
	inRange   int      // how many of them are of the machine's range
	nextPort  uint16
	addresses addresses
}

// NewPool returns a pool without machines; specs that name no strategy are placed by the usual one.
func NewPool(usual kernel.Strategy) *Pool {
	return &Pool{usual: usual, ids: map[kernel.AgentID]int32{}, fields: map[string]*field{}, filters: map[kernel.Constraint]*filter{},
		owners: map[string]*owner{}, series: map[string]*series{}, reserved: map[string]*set{}}
}

// Set adds a machine, closed, or changes what is known of it. What is taken stays taken, also when it is more than the
// machine now has; the subnet changes only while no address of it is taken.
func (p *Pool) Set(m Machine) {
	i, ok := p.ids[m.ID]
	if !ok {
		i = int32(len(p.machines))
		p.ids[m.ID] = i
		p.machines = append(p.machines, machine{})
	}
	k := &p.machines[i]
	if k.Subnet != m.Subnet && k.addresses.used == 0 {
		k.addresses = newAddresses(m.Subnet)
	}
	k.Machine = m
	p.freed.put(i, true)
	for _, f := range p.fields {
		f.update(i, &k.Machine, p.open.has(i))
	}
	k.inRange = 0
	for _, port := range k.ports {
		if inside(m.Ports, port) {
			k.inRange++
		}
	}
	p.refresh(i)
}

// Open says whether a machine may be given instances. A closed one is "unreachable" in refusals.
func (p *Pool) Open(id kernel.AgentID, open bool) {
	if i, ok := p.ids[id]; ok && p.open.has(i) != open {
		p.open.put(i, open)
		p.freed.put(i, true)
		p.refresh(i)
		for _, f := range p.fields {
			f.opened(i, true, open)
		}
	}
}

// IsOpen reports whether a machine is known and may be given instances.
func (p *Pool) IsOpen(id kernel.AgentID) bool {
	i, ok := p.ids[id]
	return ok && p.open.has(i)
}

// Used is what is taken of a machine and by how many instances.
func (p *Pool) Used(id kernel.AgentID) (kernel.Resources, int) {
	i, ok := p.ids[id]
	if !ok {
		return kernel.Resources{}, 0
	}
	return p.machines[i].used, p.machines[i].instances
}

// Altered yields the machines of which what is used or free may have changed since it was last asked.
func (p *Pool) Altered(yield func(kernel.AgentID) bool) {
	for i := range p.altered.each {
		if !yield(p.machines[i].ID) {
			return
		}
	}
	p.altered.clear()
}

// Take repeats a placement decided earlier. Resources are taken even when there is less than that; a port or address that is
// taken already, or an unknown machine, is an errdefs.ErrAlreadyExists or errdefs.ErrNotFound and takes nothing.
func (p *Pool) Take(r *Request, at Placement) error {
	i, ok := p.ids[at.Agent]
	if !ok {
		return fmt.Errorf("machine %s: %w", at.Agent, errdefs.ErrNotFound)
	}
	m := &p.machines[i]
	if err := m.claim(at); err != nil {
		return err
	}
	p.charge(r, i, 1)
	return nil
}

// Release gives back what one instance took.
func (p *Pool) Release(r *Request, at Placement) {
	i, ok := p.ids[at.Agent]
	if !ok {
		return
	}
	p.machines[i].unclaim(at)
	p.freed.put(i, true)
	p.charge(r, i, -1)
}

// charge counts n more instances of r on machine i, or fewer.
func (p *Pool) charge(r *Request, i, n int32) {
	m := &p.machines[i]
	m.used = m.used.Add(r.need.Times(int64(n)))
	if r.reserved != kernel.ReservedNone {
		m.fill(r.role, r.need.Times(int64(n)))
	}
	m.instances += int(n)
	r.owner.change(i, n, len(p.machines))
	if r.series != nil {
		r.series.change(i, n)
	}
	p.refresh(i)
}

func inside(r kernel.PortRange, port uint16) bool {
	return port >= r.First && port <= r.Last && port != 0
}

func (m *machine) freePorts() int {
	if m.Ports.Last < m.Ports.First || m.Ports.Last == 0 {
		return 0
	}
	return int(m.Ports.Last) - int(max(m.Ports.First, 1)) + 1 - m.inRange
}

func (m *machine) hasTaken(port uint16) bool {
	_, taken := slices.BinarySearch(m.ports, port)
	return taken
}

func (m *machine) takePort(port uint16) {
	at, taken := slices.BinarySearch(m.ports, port)
	if port == 0 || taken {
		return
	}
	m.ports = slices.Insert(m.ports, at, port)
	if inside(m.Ports, port) {
		m.inRange++
	}
}

func (m *machine) givePort(port uint16) {
	at, taken := slices.BinarySearch(m.ports, port)
	if !taken {
		return
	}
	m.ports = slices.Delete(m.ports, at, at+1)
	if inside(m.Ports, port) {
		m.inRange--
	}
}

// anyPort takes the next free port of the machine's range, going round it, zero when there is none.
func (m *machine) anyPort() uint16 {
	if m.freePorts() <= 0 {
		return 0
	}
	if !inside(m.Ports, m.nextPort) {
		m.nextPort = max(m.Ports.First, 1)
	}
	for {
		port := m.nextPort
		if m.nextPort == m.Ports.Last {
			m.nextPort = max(m.Ports.First, 1)
		} else {
			m.nextPort++
		}
		if !m.hasTaken(port) {
			m.takePort(port)
			return port
		}
	}
}
