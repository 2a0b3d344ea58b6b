package core

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Conflicts lists the running deployments that one of the apps is locked by.
func (s *State) Conflicts(changes []Change) (out []*Deployment) {
	for _, d := range s.Deployments {
		if slices.ContainsFunc(changes, func(c Change) bool { return d.Change(c.App) != nil }) {
			out = append(out, d)
		}
	}
	return out
}

// Begin takes in a deployment that is durable, cancels others, and makes its targets what the API shows.
func (s *State) Begin(d *Deployment, cancelled []*Deployment) {
	for _, c := range cancelled {
		s.Cancel(c)
	}
	for _, c := range d.Changes {
		s.SetApp(c.App, c.To)
		if c.From == nil || c.To == nil || c.From.Config() != c.To.Config() {
			s.ResetBackoff(c.App)
		}
	}
	if len(d.Steps) > 0 {
		s.Deployments = append(s.Deployments, d)
	}
}

// Cancel ends a deployment where it stands: instances stay as they are.
func (s *State) Cancel(d *Deployment) {
	s.Deployments = slices.DeleteFunc(s.Deployments, func(o *Deployment) bool { return o == d })
	s.lift(deploymentSubject(d))
	for _, c := range d.Changes {
		s.Touch(c.App)
	}
}

// Advance takes in a transition that is durable.
func (s *State) Advance(t Transition, now time.Time) {
	d := t.Deployment
	s.emit(StepEvent("deployment_step_success", d, now))
	d.Step = t.Step
	if t.Finished() {
		s.Cancel(d)
		s.emit(DeploymentEnd("deployment_success", d, "", now), GroupChanged(d.Version, now))
		for _, c := range d.Changes {
			if c.To == nil {
				s.emit(appTerminated(c.App, now))
			}
		}
	} else {
		s.emit(StepEvent("deployment_info", d, now))
	}
	for _, c := range d.Changes {
		s.Touch(c.App)
	}
}

// stepDone reports whether every app of the deployment's current step is what the step makes it. Decide has looked at
// them.
func (s *State) stepDone(d *Deployment) bool {
	for _, a := range d.Steps[d.Step].Actions {
		if f := s.fleets[a.App]; f != nil && !f.done {
			return false
		}
	}
	return true
}

// Why tells why a deployment has not come further; waiting adds what the kernel says about an app's queue.
func (s *State) Why(d *Deployment, waiting map[string]string) string {
	if d.Parked != "" {
		return "it was set aside: " + d.Parked
	}
	if !s.Complete {
		return "machines have yet to report to the new leader"
	}
	parts := []string{}
	for _, a := range d.Steps[d.Step].Actions {
		f := s.fleets[a.App]
		if f == nil || f.done {
			continue
		}
		text := fmt.Sprintf("%s: %s", a.App, f.why)
		if w := waiting[a.App]; w != "" {
			text += ": " + w
		}
		if parts = append(parts, text); len(parts) == maxReasons {
			break
		}
	}
	return strings.Join(parts, "; ")
}

// maxReasons bounds the apps whose reasons a deployment tells at once.
const maxReasons = 10

// Mixed reports whether an app has instances of another config version.
func (s *State) Mixed(app, config string) bool {
	for _, i := range s.Instances(app) {
		if !i.Waiting && !i.Stopping && i.Version != config {
			return true
		}
	}
	return false
}
