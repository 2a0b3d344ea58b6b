package services

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Alarms lists what was set aside, by subject.
func (s *Services) Alarms() []kernel.Alarm { return s.state.aside.List() }

// Park sets a running deployment aside: its apps stay at its current step, which they are kept at as before, until somebody
// cancels it or changes them by force.
func (s *State) Park(d *Deployment, problem string, now time.Time) {
	d.Parked = problem
	s.aside.Raise(kernel.Alarm{Subject: deploymentSubject(d), Problem: problem, Since: now,
		Do: "cancel it with DELETE /v2/deployments/" + d.ID + "?force=true, its apps stay as they are"})
}

func deploymentSubject(d *Deployment) string { return "deployment " + d.ID }
