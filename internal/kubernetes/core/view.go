package core

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// stand says where a cluster stands, and lists what it waits for.
func (c *Cluster) stand() (Standing, []string) {
	if !c.Deleted.IsZero() {
		var left []string
		for _, name := range sortedKeys(c.members) {
			if m := c.members[name]; m.instance != nil {
				left = append(left, name+" is stopping")
			} else if m.reservation != nil {
				left = append(left, "the volume of "+name+" is being removed")
			}
		}
		return Deleting, left
	}
	waits, changing := c.waits()
	switch {
	case c.ReadyAt.IsZero() && len(waits) > 0:
		return Creating, waits
	case len(waits) == 0:
		return Ready, nil
	case changing:
		return Changing, waits
	}
	return Degraded, waits
}

// waits lists what is missing until a cluster is ready; changing says that all of it follows from a change that
// somebody asked for.
func (c *Cluster) waits() (out []string, changing bool) {
	changing = true
	add := func(change bool, format string, args ...any) {
		out = append(out, fmt.Sprintf(format, args...))
		changing = changing && change
	}
	plane := c.members[ControlPlane]
	if plane == nil {
		return []string{"the control plane has yet to start"}, false
	}
	if state, message := plane.state(); state != "ready" {
		add(false, "control-plane %s", sentence(state, message))
	}
	for n := range *c.Nodes.Count {
		m := c.members[NodeName(n+1)]
		if m == nil {
			add(true, "%s has yet to start", NodeName(n+1))
			continue
		}
		if state, message := m.state(); state != "ready" {
			add(m.restarts == 0 && !m.hasJoined(), "%s %s", m.name, sentence(state, message))
		} else if m.problem != "" {
			add(true, "%s keeps its size: %s", m.name, m.problem)
		} else if !tells(c.steward.node(m.name), c.NodeSize()) {
			add(true, "%s has yet to change its size", m.name)
		}
	}
	for _, m := range c.nodes() {
		if !m.wanted() {
			add(true, "%s is leaving", m.name)
		}
	}
	if len(out) > 0 || c.steward.told == nil {
		return out, changing
	}
	switch {
	case c.steward.told.Addons.Error != "":
		add(false, "add-ons: %s", c.steward.told.Addons.Error)
	case !c.steward.told.Addons.Applied:
		add(false, "add-ons are being applied")
	case *c.Nodes.Count > 0 && !c.steward.told.DNS:
		add(false, "the cluster's name server has yet to answer")
	case *c.Nodes.Count > 0 && !c.steward.told.Probe.Done:
		add(false, "a first pod has yet to run%s", colon(c.steward.told.Probe.Message))
	}
	return out, changing
}

// tells reports whether a node tells a size, which it does in whole KiB; one that does not say counts.
func tells(n *wire.NodeStatus, s kernel.Size) bool {
	return (n.MilliCPU == 0 || n.MilliCPU == s.Guarantee.MilliCPU) && (n.Mem == 0 || n.Mem>>10 == s.Limit.Mem>>10)
}

func sentence(state, message string) string {
	if message == "" {
		return "is " + state
	}
	return "is " + state + ": " + message
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// state says where the member stands, and why.
func (m *member) state() (state, message string) {
	switch {
	case !m.wanted():
		return "leaving", ""
	case m.waiting != nil:
		return "waiting", m.waiting.Refusal.String()
	case m.instance == nil && m.problem != "":
		return "waiting", m.problem
	case m.instance == nil && m.failures > 0:
		return "down", fmt.Sprintf("it ended %d times: %s", m.failures, m.because)
	case m.instance == nil:
		return "starting", ""
	case !m.instance.Away.IsZero():
		return "down", "its machine " + m.instance.Hostname + " does not answer"
	}
	if _, ok := m.running(); !ok {
		return "starting", m.instance.Statuses[0].Message
	}
	if m.name == ControlPlane {
		switch {
		case !m.instance.Healthy():
			return "starting", "its API has yet to answer"
		case m.of.steward.told == nil:
			return "starting", "its steward has yet to answer"
		case m.of.steward.silent != "":
			return "down", "its steward does not answer"
		}
		return "ready", ""
	}
	n := m.of.steward.node(m.name)
	switch {
	case n == nil:
		return "starting", "it has yet to join"
	case !n.Ready && !m.hasJoined():
		return "starting", n.Message
	case !n.Ready:
		return "down", n.Message
	}
	return "ready", ""
}

// View is the cluster as the API shows it. agents are asked for its release until the cluster tells its own.
func (c *Cluster) View(agents func() []kernel.AgentView) View {
	v := View{Definition: c.Definition, ID: c.ID, Created: c.Created, ReadyAt: c.ReadyAt, Images: c.Images,
		Members: []Member{}}
	if c.parked != nil {
		v.State, v.WaitsFor = Parked, []string{c.parked.Problem, c.parked.Do}
		for _, name := range sortedKeys(c.members) {
			v.Members = append(v.Members, c.members[name].parkedView())
		}
		return v
	}
	v.State, v.WaitsFor = c.stand()
	if c.steward.told == nil {
		v.Release = Release(agents(), c.Version)
	} else {
		v.Pods, v.Release = Pods(c.steward.told.Pods), c.steward.told.Version
		if v.State != Deleting {
			v.WaitsFor = append(v.WaitsFor, c.steward.told.Waiting...)
		}
	}
	v.Server, v.Warnings = c.server(), c.warnings()
	if m := c.members[ControlPlane]; m != nil {
		v.Members = append(v.Members, m.view(c.ControlPlane.CPUs, c.ControlPlane.Mem, c.ControlPlane.Disk))
	}
	for _, m := range c.nodes() {
		size := c.NodeSize()
		if m.has != nil {
			size = *m.has
		}
		cpus, mem := float64(size.Guarantee.MilliCPU)/1000, float64(size.Guarantee.Mem)/float64(kernel.MiB)
		v.Members = append(v.Members, m.view(cpus, mem, c.Nodes.Disk))
	}
	for _, b := range c.balancers() {
		v.Balanced = append(v.Balanced, b.view())
	}
	return v
}

// Events lists what happened to the cluster, oldest first.
func (c *Cluster) Events() []Event { return append([]Event{}, c.events...) }

// server is the URL of the API for other computers; "": it has no address yet.
func (c *Cluster) server() string {
	plane := c.members[ControlPlane]
	if plane == nil || plane.reservation == nil || len(plane.reservation.HostPorts) == 0 {
		return ""
	}
	a, err := netip.ParseAddr(c.machine)
	if err != nil {
		return ""
	}
	return "https://" + netip.AddrPortFrom(a, plane.reservation.HostPorts[0]).String()
}

// warnings lists what the cluster's owner should know.
func (c *Cluster) warnings() (out []string) {
	if c.steward.told != nil && c.steward.silent != "" && c.Deleted.IsZero() {
		at := c.steward.at.UTC().Format(time.RFC3339)
		out = append(out, "what is told of pods and nodes is of "+at+": the control plane does not answer")
	}
	switch {
	case c.SharedIDs && *c.Privileged:
		out = append(out, "its nodes have no user namespaces: whoever may create privileged pods is root on their machines")
	case c.SharedIDs:
		out = append(out, "its nodes have no user namespaces, since no machine had: privileged pods are refused")
	}
	if c.steward.told != nil && c.steward.told.Problem != "" {
		out = append(out, c.steward.told.Problem)
	}
	out = append(out, c.troubles.warnings()...)
	if *c.Nodes.Count == 0 {
		out = append(out, "the cluster has no nodes: no pod runs")
	}
	return out
}

func (b *balancer) view() Balanced {
	v := Balanced{Namespace: b.Namespace, Name: b.Name, DNS: b.dns, Message: b.message}
	addrs := []string{}
	for _, a := range b.ingress {
		addrs = append(addrs, a.String())
	}
	v.Address = strings.Join(addrs, ",")
	for _, p := range sortedKeys(b.published) {
		v.Published = append(v.Published, b.published[p])
	}
	return v
}

// parkedView is a member of a cluster of which nothing can be told but what the kernel has.
func (m *member) parkedView() Member {
	v := Member{Name: m.name, State: "parked"}
	if m.reservation != nil {
		v.Address = m.reservation.Address.String()
	}
	if m.instance != nil {
		v.Machine, v.Task = m.instance.Hostname, string(m.instance.Statuses[0].Task)
	}
	return v
}

func (m *member) view(cpus, mem, disk float64) Member {
	v := Member{Name: m.name, Restarts: m.restarts, CPUs: cpus, Mem: mem, Disk: disk}
	v.State, v.Message = m.state()
	if m.reservation != nil {
		v.Address = m.reservation.Address.String()
	}
	if m.instance != nil {
		v.Machine, v.Task = m.instance.Hostname, string(m.instance.Statuses[0].Task)
		v.Since, _ = m.running()
	}
	if n := m.of.steward.node(m.name); n != nil {
		v.Pods = n.Pods
	}
	return v
}
