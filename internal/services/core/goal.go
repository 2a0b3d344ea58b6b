package core

import (
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// goal is an app's desired state at this moment, also in the middle of a deployment.
type goal struct {
	def     *marathon.App // of which instances are launched; nil: all are to end
	n       int
	roll    bool // instances of other versions are to be replaced
	hold    bool // leave it as it is
	victims []kernel.InstanceID
	policy  marathon.UnreachableStrategy
}

// goal finds the app's goal: what the current step of its deployment says, or the one before or after it; without a
// deployment what the API shows.
func (s *State) goal(id string) goal {
	for _, d := range s.Deployments {
		c := d.Change(id)
		if c == nil {
			continue
		}
		if d.Unreadable { // what it does to its apps is not known, and they are not to lose by that: see aside.go
			if s.Apps[id] == nil {
				return goal{hold: true}
			}
			continue
		}
		now, later := d.actions(id)
		switch {
		case now == marathon.StopApplication && c.From == nil: // it could not be read when it was removed
			return goal{}
		case now == marathon.StopApplication:
			return goal{policy: c.From.UnreachableStrategy}
		case now == marathon.StartApplication, now == "" && later && c.From == nil:
			return goal{hold: true}
		case now == marathon.ScaleApplication:
			return goal{def: c.To, n: c.To.Instances, victims: c.Victims, policy: c.To.UnreachableStrategy}
		case now == marathon.RestartApplication:
			return goal{def: c.To, n: c.To.Instances, roll: true, victims: c.Victims, policy: c.To.UnreachableStrategy}
		case later:
			return goal{def: c.From, n: c.From.Instances, policy: c.From.UnreachableStrategy}
		}
	}
	a := s.Apps[id]
	if a == nil {
		_, hold := s.broken[id]
		return goal{hold: hold}
	}
	return goal{def: a, n: a.Instances, policy: a.UnreachableStrategy}
}
