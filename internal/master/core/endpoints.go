package core

import (
	"strings"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/endpoint"
)

// Now is the instance's newest record.
func (i *instance) Now() *kernel.Record { return i.Record }

// Standings are the states of the instance's tasks in the endpoints.
func (i *instance) Standings() *endpoint.Standings { return &i.standings }

// Endpoint is one task's endpoint now. Tasks in a network of their own have no names of their own in the datacenter:
// others reach what they publish, which has names, and are not told what there is besides.
func (i *instance) Endpoint(task int) kernel.Endpoint {
	sp, a := i.spec, i.agent
	g := i.Assignment()
	e := kernel.Endpoint{Task: i.TaskID(task), Instance: g.ID, Framework: sp.Framework, Owner: sp.Owner,
		Discovery: sp.Discovery, Agent: a.info.ID, Machine: a.info.Address, Address: g.Address,
		Running: sp.Network.Name == "", Ready: i.standings.Of(task) == endpoint.Ready}
	host := g.HostPorts
	for k := range task {
		host = host[min(len(host), len(sp.Serves[k])):]
	}
	for k, p := range sp.Serves[task] {
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
	if task == 0 {
		e.Ports = append(e.Ports, sp.More...)
	}
	return e
}

// flushEndpoints makes the next version of the endpoints, if it is time, and queues it for every session. Until all
// agents have been heard after a change of leader nothing is sent: agents go by what they have rather than by half of
// it.
func (s *State) flushEndpoints() {
	if !s.fleet.complete {
		return
	}
	told := s.fleet.joined
	if s.endpoints.Flush(s.now, s.endpointsPause()) {
		told = s.fleet.order
	}
	for _, a := range told {
		if a.session != 0 {
			s.step.outbox(a)
		}
	}
	s.fleet.joined = s.fleet.joined[:0]
}

func (s *State) endpointsWake() time.Time {
	if !s.fleet.complete {
		return time.Time{}
	}
	return s.endpoints.Wake(s.endpointsPause())
}

// endpointsPause is the time between two deltas: the more agents hear of each, the more changes go into it, and the
// more there was in the last one, the longer everything else may have the processor.
func (s *State) endpointsPause() time.Duration {
	agents := time.Duration(len(s.fleet.sessions))
	sending := agents * time.Duration(s.endpoints.Last()) * endpointsEach
	return s.cfg.EndpointsEvery + agents*endpointsPerAgent + min(sending, endpointsMost)
}
