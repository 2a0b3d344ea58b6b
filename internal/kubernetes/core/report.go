package core

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Launched takes in what became of launching a member as an instance. What was refused is tried again with growing
// pauses.
func (c *Cluster) Launched(name string, id kernel.InstanceID, result kernel.LaunchResult, err error, now time.Time) {
	m := c.members[name]
	switch {
	case err != nil:
		if m.problem != err.Error() {
			c.AddEvent(now, "%s cannot start: %.*s", name, maxWhy, err.Error())
		}
		m.problem = err.Error()
		m.failures++
		m.ended = now
	case result.Waiting > 0:
		m.problem = ""
		c.AddEvent(now, "%s waits: %s", name, result.Refusal)
	default:
		size := m.size()
		m.asked, m.has, m.problem, m.taken = id, &size, "", false
		c.AddEvent(now, "%s starts on %s", name, result.Placed[0].Hostname)
	}
}

// Resized takes in what became of resizing an instance.
func (c *Cluster) Resized(id kernel.InstanceID, size kernel.Size, err error, now time.Time) {
	m := c.members[c.memberWith(id)]
	if m == nil {
		return
	}
	if err != nil {
		if m.problem != err.Error() {
			c.AddEvent(now, "%s keeps its size: %v", m.name, err)
		}
		m.problem = err.Error()
		return
	}
	m.has = &size
	has := kernel.Resources{MilliCPU: size.Guarantee.MilliCPU, Mem: size.Guarantee.Mem}
	c.AddEvent(now, "%s has %s now", m.name, has)
}

// Stopped takes in that instances were asked to end.
func (c *Cluster) Stopped(ids []kernel.InstanceID, why string, now time.Time) {
	for _, id := range ids {
		c.AddEvent(now, "%s is stopped: %s", c.memberWith(id), why)
	}
}

// Exposed takes in what the kernel exposes for load balancers, or why it refused.
func (c *Cluster) Exposed(x *Exposure, ports []kernel.EndpointPort, err error, now time.Time) {
	c.Settle("", ExposeStep, err, now)
	if err != nil {
		for key := range x.Published {
			x.refused[key] = err.Error()
		}
	} else {
		c.exposed.ports = ports
	}
	c.exposed.asked, c.exposed.refused = &x.Ports, x.refused
}

// Stand says where the cluster stands, and notes it when that is otherwise than before.
func (c *Cluster) Stand(now time.Time) (state Standing, changed bool) {
	state, _ = c.stand()
	if changed = state != c.state && c.state != ""; changed {
		c.AddEvent(now, "is %s", state)
	}
	c.state = state
	return state, changed
}
