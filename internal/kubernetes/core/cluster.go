package core

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// Cluster is one cluster: its row, what the kernel has of it, the last word of its steward, and what was asked of the
// kernel since this leader began.
type Cluster struct {
	Row
	members  map[string]*member // by name, all that exist or should
	steward  steward
	machine  string // address of the control plane's machine
	exposed  exposed
	archives []string // files of the images loaded into it, oldest first
	troubles troubles
	parked   *kernel.Alarm // set aside: nothing of it is changed; nil: it is not
	lost     bool          // its row cannot be read: Row is what could be
	events   []Event
	state    Standing // as of the last event
}

// New returns the cluster of a row, of which nothing else is known yet; archives are those of its loaded images.
func New(r Row, archives []string) *Cluster {
	return &Cluster{Row: r, archives: archives, members: map[string]*member{}, troubles: troubles{},
		exposed: exposed{refused: map[string]string{}}}
}

// Parked returns the alarm of a cluster that is set aside; nil: it is not.
func (c *Cluster) Parked() *kernel.Alarm { return c.parked }

// Lost reports whether the cluster's row cannot be read.
func (c *Cluster) Lost() bool { return c.lost }

// AddEvent notes that something happened.
func (c *Cluster) AddEvent(now time.Time, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if n := len(c.events); n > 0 && c.events[n-1].Message == message {
		return
	}
	c.events = append(c.events, Event{Time: now.UTC().Round(time.Millisecond), Cluster: c.Name, Message: message})
	if len(c.events) > MaxEvents {
		c.events = slices.Clone(c.events[len(c.events)-MaxEvents:])
	}
}

// Park sets the cluster aside: what runs of it is left alone, nothing of it is changed but its end, and its name stays
// taken.
func (c *Cluster) Park(problem string, now time.Time) {
	c.parked = &kernel.Alarm{Subject: "cluster " + c.Name, Since: now,
		Problem: problem + ": what runs of it is left alone",
		Do:      "report it with the daemon's log; the next leader tries again: `marina down` and `marina up`"}
	c.AddEvent(now, "is parked: %s", problem)
}

// NewLost returns a parked cluster of a row from which nothing can be decided: r is what could be read of it, with an
// ID, and key names it in the store.
func NewLost(name string, r Row, key string, archives []string, now time.Time) *Cluster {
	r.Name, r.Nodes.Count, r.Encryption, r.Privileged = name, new(0), new(true), new(false)
	c := New(r, archives)
	c.lost = true
	c.parked = &kernel.Alarm{Subject: "cluster " + name, Since: now,
		Problem: "its row cannot be read: what runs of it is left alone",
		Do: "run the version of Marina that wrote it, or restore its row (" + key + ") from a backup; " +
			"or give the cluster up with all that is in it: `marina cluster delete " + name + "`"}
	c.AddEvent(now, "is parked: its row cannot be read")
	return c
}

// Changed takes in that the row has another definition: what was refused is asked for again.
func (c *Cluster) Changed(now time.Time) {
	for _, m := range c.members {
		m.problem = ""
	}
	c.AddEvent(now, "should have %d nodes of %g cpus and %g MiB", *c.Nodes.Count, c.Nodes.CPUs, c.Nodes.Mem)
}

// End takes in that the row asks for the cluster's end.
func (c *Cluster) End(now time.Time) {
	c.parked = nil
	c.AddEvent(now, "is being deleted")
}

// steward keeps what a steward said.
type steward struct {
	told   *wire.Status // its last word; nil: none yet
	at     time.Time    // when that came
	silent string       // why it does not answer now; empty: it does
}

// node is the steward's word on a node; nil: there is none.
func (s *steward) node(name string) *wire.NodeStatus {
	if s.told != nil {
		for k := range s.told.Nodes {
			if s.told.Nodes[k].Name == name {
				return &s.told.Nodes[k]
			}
		}
	}
	return nil
}

// Hear takes in the steward's word, or why there is none. A parked cluster hears nothing.
func (c *Cluster) Hear(status *wire.Status, err error, now time.Time) {
	if c.parked != nil {
		return
	}
	if err != nil {
		c.steward.silent = err.Error()
		return
	}
	c.steward = steward{told: status, at: now}
	for _, n := range status.Nodes {
		if m := c.members[n.Name]; n.Ready && m != nil && m.instance != nil {
			m.joined = m.instance.ID
		}
	}
}

// Plane is the address of the control plane that runs; the zero Addr: none does.
func (c *Cluster) Plane() netip.Addr {
	if plane := c.members[ControlPlane]; plane != nil && c.Deleted.IsZero() {
		if _, ok := plane.running(); ok {
			return plane.instance.Address
		}
	}
	return netip.Addr{}
}

// Desired returns the decisions that the steward is told.
func (c *Cluster) Desired() *wire.Desired {
	out := &wire.Desired{Nodes: []string{}, LoadBalancers: []wire.Balancer{}}
	for n := range *c.Nodes.Count {
		out.Nodes = append(out.Nodes, NodeName(n+1))
	}
	for _, b := range c.balancers() {
		if len(b.ingress) > 0 {
			out.LoadBalancers = append(out.LoadBalancers,
				wire.Balancer{Namespace: b.Namespace, Name: b.Name, Ingress: b.ingress, Published: b.published})
		}
	}
	return out
}

// Place is the address for which a member's certificates are good.
type Place struct {
	Address, Plane netip.Addr // of the member and of the control plane
	Machine        string     // address of the control plane's machine
}

// PlaceOf finds a member that an agent has, as far as the kernel's reservations tell; ok is false for everybody else.
func (c *Cluster) PlaceOf(member string, agent kernel.AgentID) (p Place, ok bool) {
	m, plane := c.members[member], c.members[ControlPlane]
	if m == nil || m.reservation == nil || m.reservation.Agent != agent || m.reservation.Released ||
		plane == nil || plane.reservation == nil {
		return Place{}, false
	}
	return Place{Address: m.reservation.Address, Plane: plane.reservation.Address, Machine: c.machine}, true
}

// Agents tells where the members run that do.
func (c *Cluster) Agents() map[string]kernel.AgentID {
	out := map[string]kernel.AgentID{}
	for name, m := range c.members {
		if m.instance != nil {
			out[name] = m.instance.Agent
		}
	}
	return out
}

// member finds a member, and makes it if there is none of that name.
func (c *Cluster) member(name string) *member {
	m := c.members[name]
	if m == nil {
		m = &member{of: c, name: name}
		c.members[name] = m
	}
	return m
}

// nodes lists the nodes that exist or should, by number.
func (c *Cluster) nodes() []*member {
	var out []*member
	for name, m := range c.members {
		if _, ok := nodeNumber(name); ok {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *member) int {
		x, _ := nodeNumber(a.name)
		y, _ := nodeNumber(b.name)
		return x - y
	})
	return out
}

// memberWith names the member that has an instance.
func (c *Cluster) memberWith(id kernel.InstanceID) string {
	for name, m := range c.members {
		if m.instance != nil && m.instance.ID == id {
			return name
		}
	}
	return string(id)
}

// forget removes a member of which nothing exists.
func (c *Cluster) forget(m *member) {
	delete(c.members, m.name)
	c.troubles.forget(m.name)
}
