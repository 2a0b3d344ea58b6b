package core

import (
	"maps"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// Views shows machines and reservations to readers. It never changes: State.Views returns another when something did.
type Views struct {
	Machines     []*kernel.AgentView                 // those longest known first
	Reservations map[string][]kernel.ReservationView // by framework, each by name
}

// views are the newest Views and what they have yet to show, so that a batch pays for what it changed and not for all
// there is.
type views struct {
	shown      *Views
	agents     []*agent
	frameworks map[string]struct{} // whose reservations changed
}

func newViews() *views {
	return &views{shown: &Views{Reservations: map[string][]kernel.ReservationView{}}, frameworks: map[string]struct{}{}}
}

// alter marks an agent's view as outdated. What the pool counts of a machine is marked by the pool.
func (v *views) alter(a *agent) {
	if !a.altered {
		a.altered = true
		v.agents = append(v.agents, a)
	}
}

// outdate marks the view of a framework's reservations as outdated.
func (v *views) outdate(framework string) { v.frameworks[framework] = struct{}{} }

// update returns views in which what was outdated is new: machines by view, of so many, and reservations by list.
func (v *views) update(machines int, view func(*agent) kernel.AgentView,
	list func(framework string) []kernel.ReservationView) *Views {
	if len(v.agents) == 0 && len(v.frameworks) == 0 {
		return v.shown
	}
	now := *v.shown
	if len(v.agents) > 0 {
		now.Machines = make([]*kernel.AgentView, machines)
		copy(now.Machines, v.shown.Machines)
		for _, a := range v.agents {
			a.altered = false
			view := view(a)
			if now.Machines[a.number] = &view; a.broken == "" { // else the view says more than the agent did
				a.info = &view.Agent // kept once
			}
		}
		v.agents = v.agents[:0]
	}
	if len(v.frameworks) > 0 {
		now.Reservations = maps.Clone(v.shown.Reservations)
		for framework := range v.frameworks { // each by itself: the order does not show
			if now.Reservations[framework] = list(framework); now.Reservations[framework] == nil {
				delete(now.Reservations, framework)
			}
		}
		clear(v.frameworks)
	}
	v.shown = &now
	return v.shown
}

// remove takes a machine that left out of the views.
func (v *views) remove(a *agent) {
	if a.altered {
		v.agents = slices.DeleteFunc(v.agents, func(o *agent) bool { return o == a })
	}
	if now := *v.shown; a.number < len(now.Machines) {
		now.Machines = slices.Concat(now.Machines[:a.number], now.Machines[a.number+1:])
		v.shown = &now
	}
}
