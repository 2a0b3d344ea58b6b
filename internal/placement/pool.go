package placement

import (
	"fmt"
	"net/netip"

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

// Pool is the machines and what is taken on them. What the hot loop reads is in columns, indexed like machines.
type Pool struct {
	ids      map[kernel.AgentID]int32
	machines []machine
	free     []kernel.Resources
	score    []int64 // larger is more free
	open     []bool  // may be given instances
	index    index

	owners map[string]*counts // instances of an owner, all versions
	sets   map[string]*counts // instances of one version of an owner, only for specs with counted constraints

	fields map[string]map[string]int // of each field that a GROUP_BY asked for: machines with each value

	count []int32 // scratch of Place: instances of the request's owner
	heap  []int32 // scratch of Place
}

type machine struct {
	Machine
	used      kernel.Resources
	instances int
	ports     map[uint16]struct{} // host ports taken
	inRange   int                 // how many of them are of the machine's range
	nextPort  uint16
	addresses addresses
}

// counts is how many instances are on which machine.
type counts struct {
	by     map[int32]int32
	having []int32 // machines with that many, from one on
	total  int
}

// NewPool returns a pool without machines.
func NewPool() *Pool {
	return &Pool{ids: map[kernel.AgentID]int32{}, fields: map[string]map[string]int{}, owners: map[string]*counts{}, sets: map[string]*counts{}}
}

// Set adds a machine, closed, or changes what is known of it. What is taken stays taken, also when it is more than the
// machine now has; the subnet changes only while no address of it is taken.
func (p *Pool) Set(m Machine) {
	i, ok := p.ids[m.ID]
	if !ok {
		i = int32(len(p.machines))
		p.ids[m.ID] = i
		p.machines = append(p.machines, machine{ports: map[uint16]struct{}{}})
		p.free = append(p.free, kernel.Resources{})
		p.score = append(p.score, 0)
		p.open = append(p.open, false)
		p.index.add()
	}
	k := &p.machines[i]
	if k.Subnet != m.Subnet && k.addresses.used == 0 {
		k.addresses = newAddresses(m.Subnet)
	}
	k.Machine = m
	clear(p.fields) // counted anew when they are asked for
	k.inRange = 0
	for port := range k.ports {
		if inside(m.Ports, port) {
			k.inRange++
		}
	}
	p.refresh(i)
}

// Open says whether a machine may be given instances. A closed one is "unreachable" in refusals.
func (p *Pool) Open(id kernel.AgentID, open bool) {
	if i, ok := p.ids[id]; ok {
		p.open[i] = open
		p.index.move(i, p.score[i], open)
	}
}

// IsOpen reports whether a machine is known and may be given instances.
func (p *Pool) IsOpen(id kernel.AgentID) bool {
	i, ok := p.ids[id]
	return ok && p.open[i]
}

// Used is what is taken of a machine and by how many instances.
func (p *Pool) Used(id kernel.AgentID) (kernel.Resources, int) {
	i, ok := p.ids[id]
	if !ok {
		return kernel.Resources{}, 0
	}
	return p.machines[i].used, p.machines[i].instances
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
	p.charge(r, i)
	return nil
}

// Release gives back what one instance took.
func (p *Pool) Release(r *Request, at Placement) {
	i, ok := p.ids[at.Agent]
	if !ok {
		return
	}
	m := &p.machines[i]
	m.unclaim(at)
	m.used = m.used.Sub(r.need)
	m.instances--
	drop(p.owners, r.owner, i)
	if len(r.counted) > 0 {
		drop(p.sets, r.set, i)
	}
	p.refresh(i)
}

// charge counts one instance of r on machine i.
func (p *Pool) charge(r *Request, i int32) {
	m := &p.machines[i]
	m.used = m.used.Add(r.need)
	m.instances++
	bump(p.owners, r.owner, i)
	if len(r.counted) > 0 {
		bump(p.sets, r.set, i)
	}
	p.refresh(i)
}

// refresh brings the columns of machine i up to date.
func (p *Pool) refresh(i int32) {
	m := &p.machines[i]
	p.free[i] = m.Total.Sub(m.used)
	p.score[i] = share(p.free[i].MilliCPU, m.Total.MilliCPU) + share(p.free[i].Mem, m.Total.Mem)
	p.index.move(i, p.score[i], p.open[i])
}

// share is free as a fraction of total in 1/65536, at most one whole.
func share(free, total int64) int64 {
	if free <= 0 || total <= 0 {
		return 0
	}
	for total > 1<<46 { // so that the product below fits
		free, total = free>>8, total>>8
	}
	return min(free<<16/total, 1<<16)
}

func bump(m map[string]*counts, key string, i int32) {
	c := m[key]
	if c == nil {
		c = &counts{by: map[int32]int32{}}
		m[key] = c
	}
	c.change(i, 1)
}

func drop(m map[string]*counts, key string, i int32) {
	c := m[key]
	if c == nil || c.by[i] == 0 {
		return
	}
	if c.change(i, -1); c.total == 0 {
		delete(m, key)
	}
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

func (m *machine) takePort(port uint16) {
	if _, taken := m.ports[port]; port == 0 || taken {
		return
	}
	m.ports[port] = struct{}{}
	if inside(m.Ports, port) {
		m.inRange++
	}
}

func (m *machine) givePort(port uint16) {
	if _, taken := m.ports[port]; !taken {
		return
	}
	delete(m.ports, port)
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
		if _, taken := m.ports[port]; !taken {
			m.takePort(port)
			return port
		}
	}
}
