package kubernetes

import (
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// leaveLimit is how long a node that is too many may take to be drained before it is stopped all the same.
const leaveLimit = 90 * time.Second

// Decision is what follows from how a cluster stands.
type Decision struct {
	Launch   []string                            // members
	Withdraw []string                            // members: what waits of them is not wanted any more
	Stop     map[string][]kernel.InstanceID      // by reason
	Resize   map[kernel.InstanceID][]kernel.Size //
	Release  []string                            // members: their reservations
	Load     []string                            // nodes that lack images that were loaded into the cluster
	Gone     bool                                // nothing is left: the rows go
	Wake     time.Time                           // look again then; zero: when something changes
}

// later notes when to look again.
func (d *Decision) later(t time.Time) {
	if d.Wake.IsZero() || t.Before(d.Wake) {
		d.Wake = t
	}
}

func (d *Decision) stop(m *member, why string) {
	if m.instance.Goal == kernel.GoalStop {
		return
	}
	if d.Stop == nil {
		d.Stop = map[string][]kernel.InstanceID{}
	}
	d.Stop[why] = append(d.Stop[why], m.instance.ID)
}

// mark notes since when members are too many, and forgets those that neither exist nor should.
func (c *cluster) mark(now time.Time) {
	for _, m := range c.members {
		switch {
		case c.wanted(m.name):
			m.leaving = time.Time{}
		case m.reservation == nil && m.instance == nil && m.waiting == nil && m.asked == "":
			c.forget(m)
		case m.leaving.IsZero():
			m.leaving = now
		}
	}
}

// pending reports whether something of the cluster changes without telling.
func (c *cluster) pending() bool {
	for _, m := range c.members {
		if m.waiting != nil || m.asked != "" || m.reservation != nil && m.reservation.Released {
			return true
		}
	}
	return false
}

// decide says what to do now. complete is kernel.Changes.Complete: until it is true nothing is started because it
// seems missing.
func decide(c *cluster, complete bool, now time.Time) Decision {
	d := Decision{}
	if !c.Deleted.IsZero() {
		c.decideEnd(&d, now)
		return d
	}
	c.member(controlPlane)
	for n := range *c.Nodes.Count {
		c.member(nodeName(n + 1))
	}
	plane := c.members[controlPlane]
	c.decideMember(plane, &d, complete, now)
	c.decideSize(plane, c.PlaneSize(), &d)
	_, up := plane.running()
	for _, m := range c.nodes() {
		switch {
		case !c.wanted(m.name):
			c.decideLeave(m, &d, now)
		case plane.moves(c.ReadyAt.IsZero()): // those that were started know it where it will not be
			if m.waiting != nil {
				d.Withdraw = append(d.Withdraw, m.name)
			}
			if m.instance != nil {
				d.stop(m, "the control plane gets another port")
			}
		case plane.reservation != nil && (up || m.reservation != nil): // nodes are told where it is, and it has its port once it runs
			c.decideMember(m, &d, complete, now)
			c.decideSize(m, c.NodeSize(), &d)
		}
	}
	for _, m := range c.nodes() {
		state, _ := c.memberState(m)
		if state != "ready" || m.supplying == m.instance.ID || len(c.lacks(m)) == 0 {
			continue
		}
		if c.may(m.name, supplyStep, &d, now) {
			d.Load = append(d.Load, m.name)
		}
	}
	return d
}

// may reports whether a step may be tried now, and otherwise notes when.
func (c *cluster) may(member, what string, d *Decision, now time.Time) bool {
	at := c.again(member, what)
	if now.Before(at) {
		d.later(at)
		return false
	}
	return true
}

// release gives up a member's claim.
func (c *cluster) release(m *member, d *Decision, now time.Time) {
	if c.may(m.name, releaseStep, d, now) {
		d.Release = append(d.Release, m.name)
	}
}

// decideMember starts what should run and does not.
func (c *cluster) decideMember(m *member, d *Decision, complete bool, now time.Time) {
	if m.instance != nil {
		if unhealthy(m.instance) {
			d.stop(m, "it does not answer its health check")
		}
		return
	}
	if m.reservation != nil && m.reservation.Lost && m.name != controlPlane {
		c.release(m, d, now) // a node begins anew elsewhere; what a control plane kept was the cluster
		return
	}
	if m.asked != "" || m.waiting != nil || !complete {
		return
	}
	if m.reservation != nil && m.reservation.Released {
		return // a node of that number was removed a moment ago
	}
	if m.moves(c.ReadyAt.IsZero()) { // nobody knows its port yet: the next claim has another one
		c.release(m, d, now)
		return
	}
	if at := m.after(); now.Before(at) {
		d.later(at)
		return
	}
	d.Launch = append(d.Launch, m.name)
}

// moves reports whether a member gives up its reservation for another, since its port was somebody else's from the
// start, or has.
func (m *member) moves(fresh bool) bool {
	return m.reservation != nil && (m.reservation.Released || fresh && m.taken && m.instance == nil)
}

// unhealthy reports whether a running instance fails its checks for good.
func unhealthy(i *kernel.Instance) bool {
	if i.State() != kernel.Running || !i.Away.IsZero() || i.Goal != kernel.GoalRun {
		return false
	}
	for k := range i.Statuses {
		if slices.ContainsFunc(i.Statuses[k].Health, func(h kernel.Health) bool { return h.Known && !h.Alive }) {
			return true
		}
	}
	return false
}

// decideSize resizes a member that has another size than it should.
func (c *cluster) decideSize(m *member, want kernel.Size, d *Decision) {
	if m.instance == nil || m.instance.Goal == kernel.GoalStop || m.problem != "" {
		return
	}
	if m.has != nil && *m.has == want {
		return
	}
	if d.Resize == nil {
		d.Resize = map[kernel.InstanceID][]kernel.Size{}
	}
	d.Resize[m.instance.ID] = []kernel.Size{want}
}

// decideLeave takes a node out that is too many: the steward drains it, then it is stopped, then its reservation
// released.
func (c *cluster) decideLeave(m *member, d *Decision, now time.Time) {
	if m.waiting != nil {
		d.Withdraw = append(d.Withdraw, m.name)
	}
	switch {
	case m.instance != nil:
		drained := c.told != nil && c.silent == "" && c.statusOf(m.name) == nil && c.told.Desired == c.desired().Revision()
		if limit := m.leaving.Add(leaveLimit); !drained && now.Before(limit) {
			d.later(limit)
			return
		}
		d.stop(m, "the cluster has fewer nodes now")
	case m.asked != "":
	case m.reservation != nil && !m.reservation.Released:
		c.release(m, d, now)
	}
}

// decideEnd takes a deleted cluster apart.
func (c *cluster) decideEnd(d *Decision, now time.Time) {
	left := false
	for _, name := range sortedKeys(c.members) {
		m := c.members[name]
		switch {
		case m.waiting != nil:
			d.Withdraw = append(d.Withdraw, name)
			left = true
		case m.instance != nil:
			d.stop(m, "the cluster is deleted")
			left = true
		case m.asked != "":
			left = true
		case m.reservation != nil:
			left = true
			if !m.reservation.Released {
				c.release(m, d, now)
			}
		}
	}
	d.Gone = !left && c.may("", buryStep, d, now)
}

// desired is what the steward is told.
func (c *cluster) desired() *wire.Desired {
	out := &wire.Desired{Nodes: []string{}, LoadBalancers: []wire.Balancer{}}
	for n := range *c.Nodes.Count {
		out.Nodes = append(out.Nodes, nodeName(n+1))
	}
	for _, b := range c.balancers() {
		if len(b.ingress) > 0 {
			out.LoadBalancers = append(out.LoadBalancers,
				wire.Balancer{Namespace: b.Namespace, Name: b.Name, Ingress: b.ingress, Published: b.published})
		}
	}
	return out
}
