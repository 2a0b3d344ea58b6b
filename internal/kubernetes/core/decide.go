package core

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

const (
	// leaveLimit bounds how long a node that is too many may take to be drained before it is stopped all the same.
	leaveLimit = 90 * time.Second
	// lookAgain is the pause between looks at the kernel's queue and reservations while something of a cluster changes
	// there.
	lookAgain = time.Second
)

// Decision says what to do for a cluster now, in the order of its fields. Each part that is carried out is reported
// back: see Launched, Resized, Stopped, Exposed, Settle, BeginSupply.
type Decision struct {
	Withdraw []string                            // members: what waits of them is not wanted any more
	Stop     map[string][]kernel.InstanceID      // by reason
	Launch   []string                            // members
	Resize   map[kernel.InstanceID][]kernel.Size //
	Release  []string                            // members: their reservations
	Load     []string                            // nodes that lack images that were loaded into the cluster
	Exposure *Exposure                           // of load balancers; nil: all is as it should be
	Gone     bool                                // nothing is left: the rows go
	Wake     time.Time                           // look again then; zero: when something changes
}

// Later notes when to look again.
func (d *Decision) Later(t time.Time) {
	if d.Wake.IsZero() || t.Before(d.Wake) {
		d.Wake = t
	}
}

// decider decides for one cluster at one time.
type decider struct {
	Decision
	c        *Cluster
	complete bool
	now      time.Time
}

// Decide says what follows for a cluster from how it stands.
func (s *State) Decide(c *Cluster, now time.Time) Decision {
	d := s.decide(c, now)
	acts := len(d.Launch)+len(d.Stop)+len(d.Release)+len(d.Withdraw) > 0
	for _, m := range c.members { // the kernel does not tell of these
		acts = acts || m.waiting != nil || m.asked != "" || m.reservation != nil && m.reservation.Released
	}
	if acts {
		d.Later(now.Add(lookAgain))
	}
	return d
}

func (s *State) decide(c *Cluster, now time.Time) Decision {
	d := &decider{c: c, complete: s.complete, now: now}
	d.mark()
	if c.Deleted.IsZero() {
		d.members()
		d.images()
		d.expose(s)
	} else {
		d.end()
	}
	return d.Decision
}

// mark notes since when members are too many, and forgets those that neither exist nor should.
func (d *decider) mark() {
	for _, m := range d.c.members {
		switch {
		case m.wanted():
			m.leaving = time.Time{}
		case m.reservation == nil && m.instance == nil && m.waiting == nil && m.asked == "":
			d.c.forget(m)
		case m.leaving.IsZero():
			m.leaving = d.now
		}
	}
}

// members starts, resizes and stops what should run, and does not, and the other way round.
func (d *decider) members() {
	c := d.c
	c.member(ControlPlane)
	for n := range *c.Nodes.Count {
		c.member(NodeName(n + 1))
	}
	plane := c.members[ControlPlane]
	d.start(plane)
	d.size(plane)
	_, up := plane.running()
	for _, m := range c.nodes() {
		switch {
		case !m.wanted():
			d.leave(m)
		case plane.moves(): // those that were started know it where it will not be
			if m.waiting != nil {
				d.Withdraw = append(d.Withdraw, m.name)
			}
			if m.instance != nil {
				d.stop(m, "the control plane gets another port")
			}
		case plane.reservation != nil && (up || m.reservation != nil):
			d.start(m) // it is told where the control plane is, which has its port once it runs
			d.size(m)
		}
	}
}

// start starts a member that should run and does not.
func (d *decider) start(m *member) {
	if m.instance != nil {
		if unhealthy(m.instance) {
			d.stop(m, "it does not answer its health check")
		}
		return
	}
	if m.reservation != nil && m.reservation.Lost && m.name != ControlPlane {
		d.release(m) // a node begins anew elsewhere; what a control plane kept was the cluster
		return
	}
	if m.asked != "" || m.waiting != nil || !d.complete {
		return
	}
	if m.reservation != nil && m.reservation.Released {
		return // a node of that number was removed a moment ago
	}
	if m.moves() { // nobody knows its port yet: the next reservation has another one
		d.release(m)
		return
	}
	if at := m.after(); d.now.Before(at) {
		d.Later(at)
		return
	}
	d.Launch = append(d.Launch, m.name)
}

// size resizes a member that has another size than it should.
func (d *decider) size(m *member) {
	if m.instance == nil || m.instance.Goal == kernel.GoalStop || m.problem != "" {
		return
	}
	want := m.size()
	if m.has != nil && *m.has == want {
		return
	}
	if d.Resize == nil {
		d.Resize = map[kernel.InstanceID][]kernel.Size{}
	}
	d.Resize[m.instance.ID] = []kernel.Size{want}
}

// leave takes a node out that is too many: the steward drains it, then it is stopped, then its reservation released.
func (d *decider) leave(m *member) {
	if m.waiting != nil {
		d.Withdraw = append(d.Withdraw, m.name)
	}
	switch {
	case m.instance != nil:
		if limit := m.leaving.Add(leaveLimit); !m.drained() && d.now.Before(limit) {
			d.Later(limit)
			return
		}
		d.stop(m, "the cluster has fewer nodes now")
	case m.asked != "":
	case m.reservation != nil && !m.reservation.Released:
		d.release(m)
	}
}

// end takes a deleted cluster apart.
func (d *decider) end() {
	left := false
	for _, name := range sortedKeys(d.c.members) {
		m := d.c.members[name]
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
				d.release(m)
			}
		}
	}
	d.Gone = !left && d.may("", BuryStep)
}

// images gives nodes that are ready the images that they lack.
func (d *decider) images() {
	for _, m := range d.c.nodes() {
		state, _ := m.state()
		if state != "ready" || m.supplying == m.instance.ID || len(m.lacks()) == 0 {
			continue
		}
		if d.may(m.name, supplyStep) {
			d.Load = append(d.Load, m.name)
		}
	}
}

// expose has the kernel expose what the load balancers ask for, when it was asked for something else last. Their ports
// stand in the row first.
func (d *decider) expose(s *State) {
	c := d.c
	if c.steward.told == nil {
		return
	}
	asked := c.steward.told.LoadBalancers
	x := &Exposure{}
	x.Published, x.refused = publish(asked, c.Published, s.published, s.publish)
	x.Ports = ports(c.Name, asked, x.Published)
	if x.Save = !maps.Equal(x.Published, c.Published); x.Save && !d.may("", RowStep) {
		return
	}
	same := c.exposed.asked != nil && reflect.DeepEqual(*c.exposed.asked, x.Ports)
	x.Expose = !same || !c.Again("", ExposeStep).IsZero() && d.may("", ExposeStep)
	if x.Save || x.Expose {
		d.Exposure = x
	}
}

func (d *decider) stop(m *member, why string) {
	if m.instance.Goal == kernel.GoalStop {
		return
	}
	if d.Stop == nil {
		d.Stop = map[string][]kernel.InstanceID{}
	}
	d.Stop[why] = append(d.Stop[why], m.instance.ID)
}

// release gives up a member's reservation.
func (d *decider) release(m *member) {
	if d.may(m.name, ReleaseStep) {
		d.Release = append(d.Release, m.name)
	}
}

// may reports whether a step may be tried now, and otherwise notes when.
func (d *decider) may(member string, what Step) bool {
	at := d.c.Again(member, what)
	if d.now.Before(at) {
		d.Later(at)
		return false
	}
	return true
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
