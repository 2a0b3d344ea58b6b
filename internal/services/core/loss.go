package core

// judgeAway applies the unreachable strategy to an instance.
func (t *turn) judgeAway(i *Instance) {
	s, f := t.s, t.f
	if t.policy.Disabled || !s.Complete || i.forgotten {
		return
	}
	if !i.Inactive {
		if at := i.Away.Add(seconds(t.policy.Inactive)); at.After(t.now) {
			f.wakeAt(at)
			return
		}
		if 2*s.away > s.wanted() && !t.brake(&s.given) {
			f.why = "most instances are on machines that do not answer: replacements are slowed down"
			return
		}
		i.Inactive = true
	}
	at := i.Away.Add(seconds(t.policy.Expunge))
	if later := s.time(i.forgetAt); i.forgetAt != 0 && later.After(at) {
		at = later
	}
	if at.After(t.now) {
		f.wakeAt(at)
		return
	}
	i.forgotten = true
	t.d.Forget = append(t.d.Forget, Ref{i.Owner, i.ID()})
}

// endLost tells instances that were given up to stop, should their machines return.
func (t *turn) endLost() {
	for _, i := range t.lost {
		if !i.Stopping {
			t.d.end(i, "its machine did not answer and it is not wanted any more")
		}
	}
}
