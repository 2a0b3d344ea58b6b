package core

import "github.com/marinaos/marina/internal/kernel"

// judgeHealth stops an instance that fails its checks, as the brake allows, or one that does not come to run.
func (t *turn) judgeHealth(i *Instance) {
	s, f := t.s, t.f
	if i.State() < kernel.Running {
		if at := s.time(i.since).Add(s.Policy.LaunchTimeout); at.After(t.now) {
			f.wakeAt(at)
		} else {
			t.d.end(i, "did not run within "+s.Policy.LaunchTimeout.String())
		}
		return
	}
	cause := i.failing(s.definition(i.Owner, i.Version))
	if cause == "" {
		return
	}
	if !t.brake(&s.killed) {
		f.why = "many instances fail their health checks at once: replacing them is slowed down"
		return
	}
	s.emit(unhealthyKill(i, cause, t.now))
	t.d.end(i, cause)
}
