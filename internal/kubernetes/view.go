package kubernetes

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/definition"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// stand is where a cluster stands, and what it waits for.
func (c *cluster) stand() (State, []string) {
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
func (c *cluster) waits() (out []string, changing bool) {
	changing = true
	add := func(change bool, format string, args ...any) {
		out = append(out, fmt.Sprintf(format, args...))
		changing = changing && change
	}
	plane := c.members[controlPlane]
	if plane == nil {
		return []string{"the control plane has yet to start"}, false
	}
	if state, message := c.memberState(plane); state != "ready" {
		add(false, "control-plane %s", sentence(state, message))
	}
	for n := range *c.Nodes.Count {
		m := c.members[nodeName(n+1)]
		if m == nil {
			add(true, "%s has yet to start", nodeName(n+1))
			continue
		}
		if state, message := c.memberState(m); state != "ready" {
			add(m.restarts == 0 && !m.hasJoined(), "%s %s", m.name, sentence(state, message))
		} else if m.problem != "" {
			add(true, "%s keeps its size: %s", m.name, m.problem)
		} else if !tells(c.statusOf(m.name), c.NodeSize()) {
			add(true, "%s has yet to change its size", m.name)
		}
	}
	for _, m := range c.nodes() {
		if !c.wanted(m.name) {
			add(true, "%s is leaving", m.name)
		}
	}
	if len(out) > 0 || c.told == nil {
		return out, changing
	}
	switch {
	case c.told.Addons.Error != "":
		add(false, "add-ons: %s", c.told.Addons.Error)
	case !c.told.Addons.Applied:
		add(false, "add-ons are being applied")
	case *c.Nodes.Count > 0 && !c.told.DNS:
		add(false, "the cluster's name server has yet to answer")
	case *c.Nodes.Count > 0 && !c.told.Probe.Done:
		add(false, "a first pod has yet to run%s", colon(c.told.Probe.Message))
	}
	return out, changing
}

// tells reports whether a node tells a size, which it does in whole KiB; one that does not say counts.
func tells(n *wire.NodeStatus, s kernel.Size) bool {
	return (n.MilliCPU == 0 || n.MilliCPU == s.Guarantee.MilliCPU) && (n.Mem == 0 || n.Mem>>10 == s.Limit.Mem>>10)
}

// hasJoined reports whether a node's instance was ready once.
func (m *member) hasJoined() bool { return m.instance != nil && m.joined == m.instance.ID }

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

// memberState is where a member stands, and why.
func (c *cluster) memberState(m *member) (state, message string) {
	switch {
	case !c.wanted(m.name):
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
	if m.name == controlPlane {
		switch {
		case !m.instance.Healthy():
			return "starting", "its API has yet to answer"
		case c.told == nil:
			return "starting", "its steward has yet to answer"
		case c.silent != "":
			return "down", "its steward does not answer"
		}
		return "ready", ""
	}
	n := c.statusOf(m.name)
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

// view is the cluster as the API shows it. agents are asked for its release until the cluster tells its own.
func (c *cluster) view(agents func() []kernel.AgentView) View {
	v := View{Definition: c.Definition, ID: c.ID, Created: c.Created, ReadyAt: c.ReadyAt, Images: c.Images,
		Members: []Member{}}
	if c.parked != nil {
		v.State, v.WaitsFor = Parked, []string{c.parked.Problem, c.parked.Do}
		for _, name := range sortedKeys(c.members) {
			v.Members = append(v.Members, c.members[name].parkedView())
		}
		return v
	}
	if c.told == nil {
		v.Release = release(agents(), c.Version)
	}
	v.State, v.WaitsFor = c.stand()
	if plane := c.members[controlPlane]; plane != nil && plane.reservation != nil && c.machine != "" &&
		len(plane.reservation.HostPorts) > 0 {
		if a, err := netip.ParseAddr(c.machine); err == nil {
			v.Server = "https://" + netip.AddrPortFrom(a, plane.reservation.HostPorts[0]).String()
		}
	}
	if c.told != nil {
		v.Pods, v.Release = Pods(c.told.Pods), c.told.Version
		if v.State != Deleting {
			v.WaitsFor = append(v.WaitsFor, c.told.Waiting...)
		}
		if c.silent != "" && v.State != Deleting {
			at := c.toldAt.UTC().Format(time.RFC3339)
			v.Warnings = append(v.Warnings, "what is told of pods and nodes is of "+at+": the control plane does not answer")
		}
	}
	switch {
	case c.SharedIDs && *c.Privileged:
		v.Warnings = append(v.Warnings, "its nodes have no user namespaces: whoever may create privileged pods is root on their machines")
	case c.SharedIDs:
		v.Warnings = append(v.Warnings, "its nodes have no user namespaces, since no machine had: privileged pods are refused")
	}
	for _, at := range slices.SortedFunc(maps.Keys(c.troubles), func(a, b step) int {
		return cmp.Or(cmp.Compare(a.member, b.member), cmp.Compare(a.what, b.what))
	}) {
		t := c.troubles[at]
		v.Warnings = append(v.Warnings, t.sentence(at)+"; it is tried again at "+t.again.UTC().Format(time.TimeOnly))
	}
	if *c.Nodes.Count == 0 {
		v.Warnings = append(v.Warnings, "the cluster has no nodes: no pod runs")
	}
	if m := c.members[controlPlane]; m != nil {
		v.Members = append(v.Members, c.memberView(m, c.ControlPlane.CPUs, c.ControlPlane.Mem, c.ControlPlane.Disk))
	}
	for _, m := range c.nodes() {
		size := c.NodeSize()
		if m.has != nil {
			size = *m.has
		}
		cpus, mem := float64(size.Guarantee.MilliCPU)/1000, float64(size.Guarantee.Mem)/float64(kernel.MiB)
		v.Members = append(v.Members, c.memberView(m, cpus, mem, c.Nodes.Disk))
	}
	for _, b := range c.balancers() {
		x := Balanced{Namespace: b.Namespace, Name: b.Name, DNS: b.dns, Message: b.message}
		addrs := []string{}
		for _, a := range b.ingress {
			addrs = append(addrs, a.String())
		}
		x.Address = strings.Join(addrs, ",")
		for _, p := range sortedKeys(b.published) {
			x.Published = append(x.Published, b.published[p])
		}
		v.Balanced = append(v.Balanced, x)
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

func (c *cluster) memberView(m *member, cpus, mem, disk float64) Member {
	v := Member{Name: m.name, Restarts: m.restarts, CPUs: cpus, Mem: mem, Disk: disk}
	v.State, v.Message = c.memberState(m)
	if m.reservation != nil {
		v.Address = m.reservation.Address.String()
	}
	if m.instance != nil {
		v.Machine, v.Task = m.instance.Hostname, string(m.instance.Statuses[0].Task)
		v.Since, _ = m.running()
	}
	if n := c.statusOf(m.name); n != nil {
		v.Pods = n.Pods
	}
	return v
}

// ownerOf reads whose an instance is from its group's id.
func ownerOf(i kernel.Instance) (cluster, member string, ok bool) {
	parts := strings.Split(string(i.ID), "_")
	if len(parts) != 3 || parts[0] != Framework {
		return "", "", false
	}
	member, _, ok = strings.Cut(parts[2], ".instance-")
	return parts[1], member, ok
}

// versions tells which minors there are, and which machines have their programs.
func versions(agents []kernel.AgentView) []VersionView {
	var out []VersionView
	for n, minor := range definition.Minors {
		v := VersionView{Minor: minor, Default: n == 0}
		for _, a := range agents {
			if release, ok := a.Bundles[bundle(minor)]; ok {
				v.Machines++
				v.Release = max(v.Release, release)
			}
		}
		out = append(out, v)
	}
	return out
}

// release is the release of a minor that the machines have; "" if none has it.
func release(agents []kernel.AgentView, minor string) string {
	all := versions(agents)
	if n := slices.IndexFunc(all, func(v VersionView) bool { return v.Minor == minor }); n >= 0 {
		return all[n].Release
	}
	return ""
}
