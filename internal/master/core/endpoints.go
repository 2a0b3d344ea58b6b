package core

import (
	"net/netip"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// serving is how a task stands in the endpoints.
type serving uint8

const (
	hidden  serving = iota // not among them
	named                  // running: it has names
	ready                  // and gets new connections
	altered                // must be sent again, as its agent's address changed
)

// serving is how a task stands in the newest endpoints.
func (i *instance) serving(task int) serving { return serving(i.standings >> (2 * task) & 3) }

func (i *instance) serve(task int, as serving) {
	i.standings = i.standings&^(3<<(2*task)) | uint64(as)<<(2*task)
}

// endpoints is the datacenter's endpoints as far as agents have been told, and what changed since. What they are is
// computed from the instances; only changes are kept.
type endpoints struct {
	version uint64
	changes []taskRef // since version
	urgent  bool      // one of them takes an endpoint out
	flushed time.Time
	last    int      // changes that were flushed then
	log     []change // how versions came about, oldest first
	oldest  uint64   // version from which the log leads to version
	logged  int      // tasks in log
	fresh   []*kernel.EndpointDelta
	joined  []*agent // whose session has no baseline yet
}

type taskRef struct {
	instance *instance
	task     int
}

type change struct {
	to    uint64
	tasks []taskRef
}

// serve compares how the tasks of an instance should stand in the endpoints with how they do.
func (s *State) serve(i *instance) {
	ep := &s.endpoints
	for k := range i.Len() {
		want, was := i.standing(k), i.serving(k)
		if was == want {
			continue
		}
		if want == named && was == ready { // about to stop, say: nobody may choose it from the moment its agent is told
			ep.urgent = true
		}
		i.serve(k, want)
		ep.changes = append(ep.changes, taskRef{i, k})
	}
}

// moved makes the next serve send the instance's endpoints again.
func (ep *endpoints) moved(i *instance) {
	for k := range i.Len() {
		if i.serving(k) != hidden {
			i.serve(k, altered)
		}
	}
}

func (i *instance) standing(task int) serving {
	state, healthy := i.Task(task)
	switch {
	case i.Removed() || state != kernel.Running && state != kernel.Killing:
		return hidden
	case healthy && i.Goal() == kernel.GoalRun && i.Away.IsZero():
		return ready
	}
	return named
}

// flushEndpoints makes the next version out of what changed, if it is time, and queues it for every session. Until
// all agents have been heard after a change of leader nothing is sent: agents go by what they have rather than by
// half of it.
func (s *State) flushEndpoints() {
	ep := &s.endpoints
	ep.fresh = nil
	if !s.complete {
		return
	}
	due := len(ep.changes) > 0 && (ep.urgent || !s.now.Before(ep.flushed.Add(s.endpointsPause())))
	if due {
		ep.flushed, ep.urgent, ep.last = s.now, false, len(ep.changes)
		for len(ep.changes) > 0 {
			n := min(len(ep.changes), endpointsFrame)
			tasks := ep.changes[:n:n]
			ep.changes = ep.changes[n:]
			ep.version++
			ep.log = append(ep.log, change{ep.version, tasks})
			ep.logged += n
			ep.fresh = append(ep.fresh, ep.delta(ep.version-1, tasks))
		}
		ep.changes = nil
		for ep.logged > s.cfg.EndpointLog && len(ep.log) > 0 {
			ep.logged -= len(ep.log[0].tasks)
			ep.oldest = ep.log[0].to
			ep.log = ep.log[1:]
		}
	}
	told := ep.joined
	if due {
		told = s.order
	}
	for _, a := range told {
		if a.session != 0 {
			s.outbox(a)
		}
	}
	ep.joined = ep.joined[:0]
}

func (s *State) endpointsWake() time.Time {
	if len(s.endpoints.changes) == 0 || !s.complete {
		return time.Time{}
	}
	return s.endpoints.flushed.Add(s.endpointsPause())
}

// endpointsPause is the time between two deltas: the more agents hear of each, the more changes go into it, and the
// more there was in the last one, the longer everything else may have the processor.
func (s *State) endpointsPause() time.Duration {
	agents := time.Duration(len(s.sessions))
	return s.cfg.EndpointsEvery + agents*endpointsPerAgent + min(agents*time.Duration(s.endpoints.last)*endpointsEach, endpointsMost)
}

// delta is the endpoints of tasks as they are now, each once.
func (ep *endpoints) delta(from uint64, tasks []taskRef) *kernel.EndpointDelta {
	d := &kernel.EndpointDelta{From: from, To: ep.version}
	seen := make(map[taskRef]struct{}, len(tasks))
	for _, t := range tasks {
		if _, twice := seen[t]; twice {
			continue
		}
		seen[t] = struct{}{}
		if t.instance.serving(t.task) == hidden {
			d.Remove = append(d.Remove, t.instance.TaskID(t.task))
		} else {
			d.Set = append(d.Set, t.instance.endpoint(t.task))
		}
	}
	return d
}

// endpointsFor is what a session needs to hold the newest version: the fresh deltas, or what brings it there.
func (s *State) endpointsFor(a *agent) []*kernel.EndpointDelta {
	ep := &s.endpoints
	if !s.complete {
		return nil
	}
	if a.baseline {
		return ep.fresh
	}
	a.baseline = true
	if a.holds == ep.version {
		return nil
	}
	if a.holds >= ep.oldest && a.holds < ep.version {
		var tasks []taskRef
		for _, c := range ep.log {
			if c.to > a.holds {
				tasks = append(tasks, c.tasks...)
			}
		}
		if len(tasks) <= endpointsFrame {
			return []*kernel.EndpointDelta{ep.delta(a.holds, tasks)}
		}
	}
	return s.allEndpoints()
}

// allEndpoints is the whole set in as many parts as frames need. All sessions of a step share it.
func (s *State) allEndpoints() []*kernel.EndpointDelta {
	if s.step.all != nil {
		return s.step.all
	}
	parts := []*kernel.EndpointDelta{{To: s.endpoints.version, Full: true}}
	for i := range s.all {
		for k := range i.Len() {
			if i.serving(k) == hidden {
				continue
			}
			last := parts[len(parts)-1]
			if len(last.Set) == endpointsFrame {
				last.More = true
				last = &kernel.EndpointDelta{To: s.endpoints.version, Full: true}
				parts = append(parts, last)
			}
			last.Set = append(last.Set, i.endpoint(k))
		}
	}
	s.step.all = parts
	return parts
}

// endpointPorts is the ports of each task's endpoints, but for what placement decides. VIPs have their addresses.
func (sp *spec) endpointPorts() [][]kernel.EndpointPort {
	addrs := map[string]netip.Addr{}
	for _, v := range sp.vips {
		addrs[v.Name] = v.Addr
	}
	out := make([][]kernel.EndpointPort, len(sp.Tasks))
	for k := range sp.Tasks {
		for _, p := range sp.Tasks[k].Ports {
			ep := kernel.EndpointPort{Name: p.Name, Container: p.Container}
			if p.Publish {
				ep.Publish = p.Service
			}
			for _, ask := range p.VIPs {
				v := kernel.EndpointVIP{Addr: ask.Addr, Port: ask.Port}
				if ask.Name != "" {
					v.Name = ask.Name + "." + sp.Framework
					v.Addr = addrs[v.Name]
				}
				ep.VIPs = append(ep.VIPs, v)
			}
			ep.Protocol = p.Protocol
			out[k] = append(out[k], ep)
		}
	}
	return out
}

// endpoint is one task's endpoint now. Tasks in a network of their own have no names of their own in the datacenter:
// others reach what they publish, which has names, and are not told what there is besides.
func (i *instance) endpoint(task int) kernel.Endpoint {
	sp, a := i.spec, i.agent
	g := i.Assignment()
	e := kernel.Endpoint{Task: i.TaskID(task), Instance: g.ID, Framework: sp.Framework, Owner: sp.Owner, Discovery: sp.Discovery,
		Agent: a.info.ID, Machine: a.info.Address, Address: g.Address, Running: sp.Network.Name == "", Ready: i.serving(task) == ready}
	host := g.HostPorts
	for k := range task {
		host = host[min(len(host), len(sp.ports[k])):]
	}
	for k, p := range sp.ports[task] {
		if k < len(host) {
			p.Host = host[k]
		}
		if p.Container == 0 {
			p.Container = p.Host
		}
		for protocol := range strings.SplitSeq(p.Protocol, ",") {
			p.Protocol = protocol
			e.Ports = append(e.Ports, p)
		}
	}
	if task == 0 && sp.more != nil {
		e.Ports = append(e.Ports, sp.more.ports...)
	}
	return e
}
