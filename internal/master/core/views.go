package core

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/vip"
)

// Views is what readers are shown of machines and reservations. It never changes: State.Views returns another when
// something did.
type Views struct {
	Machines     []*kernel.AgentView                 // those longest known first
	Reservations map[string][]kernel.ReservationView // by framework, each by name
}

// outdated is what the newest views have yet to show, so that a batch pays for what it changed and not for all there
// is.
type outdated struct {
	agents       []*agent
	reservations map[string]struct{} // frameworks
}

// Views shows machines and reservations as they are now.
func (s *State) Views() *Views {
	for id := range s.pool.Altered {
		s.altered(s.agents[id])
	}
	old := &s.outdated
	if len(old.agents) == 0 && len(old.reservations) == 0 {
		return s.views
	}
	now := *s.views
	if len(old.agents) > 0 {
		now.Machines = make([]*kernel.AgentView, len(s.order))
		copy(now.Machines, s.views.Machines)
		for _, a := range old.agents {
			a.altered = false
			v := s.view(a)
			if now.Machines[a.number] = &v; a.broken == "" { // else the view says more than the agent did
				a.info = &v.Agent // kept once
			}
		}
		old.agents = old.agents[:0]
	}
	if len(old.reservations) > 0 {
		now.Reservations = maps.Clone(s.views.Reservations)
		for framework := range old.reservations { // each by itself: the order does not show
			if now.Reservations[framework] = s.Reservations(framework); now.Reservations[framework] == nil {
				delete(now.Reservations, framework)
			}
		}
		clear(old.reservations)
	}
	s.views = &now
	return s.views
}

// altered marks an agent's view as outdated. What the pool counts of a machine is marked by the pool.
func (s *State) altered(a *agent) {
	if !a.altered {
		a.altered = true
		s.outdated.agents = append(s.outdated.agents, a)
	}
}

// view is what readers are shown of a machine.
func (s *State) view(a *agent) kernel.AgentView {
	used, groups := s.pool.Used(a.info.ID)
	v := kernel.AgentView{Agent: *a.info, Subnet: a.subnet, Connected: a.session != 0, Since: a.since, Away: a.away,
		Used: used, Instances: groups, Registered: a.registered, Reserved: a.reserved, Free: s.pool.Free(a.info.ID)}
	if v.Connected {
		v.Epoch = s.cfg.Epoch
	}
	if a.broken != "" {
		v.Warnings = append(append([]string(nil), v.Warnings...), a.broken)
	}
	return v
}

// Agents lists the machines, those longest known first.
func (s *State) Agents() []kernel.AgentView {
	out := make([]kernel.AgentView, len(s.order))
	for k, a := range s.order {
		out[k] = s.view(a)
	}
	return out
}

// Reservations lists the reservations of a framework by name.
func (s *State) Reservations(framework string) []kernel.ReservationView {
	return s.reservations.Views(framework)
}

// Addresses shows what each port with a VIP or a published service port offers.
func (s *State) Addresses() []*vip.View {
	var machines []netip.Addr
	for _, a := range s.order {
		if a.info.Address.IsValid() && a.away.IsZero() {
			machines = append(machines, a.info.Address)
		}
	}
	return vip.Views(func(yield func(*kernel.Endpoint) bool) {
		for _, part := range s.endpoints.All(s.all) {
			for k := range part.Set {
				if !yield(&part.Set[k]) {
					return
				}
			}
		}
	}, machines)
}

// unshow takes a machine that left out of the views.
func (s *State) unshow(a *agent) {
	if a.altered {
		s.outdated.agents = slices.DeleteFunc(s.outdated.agents, func(o *agent) bool { return o == a })
	}
	if now := *s.views; a.number < len(now.Machines) {
		now.Machines = slices.Concat(now.Machines[:a.number], now.Machines[a.number+1:])
		s.views = &now
	}
}
