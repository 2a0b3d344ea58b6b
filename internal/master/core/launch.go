package core

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// launch has instances wait, and answers at the end of the step, when it is known which of them are placed.
func (s *State) launch(ev Launch) error {
	r := &ev.LaunchRequest
	if err := s.checkLaunch(r); err != nil {
		return err
	}
	key := entryKey{r.Spec.Framework, r.Key}
	if e := s.entries[key]; e != nil && e.spec.ID != r.Spec.ID {
		s.serveQueue()
	}
	e := s.entries[key]
	if e != nil && e.spec.ID != r.Spec.ID {
		return fmt.Errorf("launch %s: other groups wait under this key with another spec: withdraw them first: %w", r.Key, errdefs.ErrAlreadyExists)
	}
	if err := s.vips.Check(&r.Spec); err != nil {
		return err
	}
	if err := s.reservations.Check(&r.Spec); err != nil {
		return err
	}
	sp, err := s.specs.Add(r.Spec, s.now)
	if err != nil {
		return err
	}
	if e == nil {
		e = &entry{entryKey: key, spec: sp, since: s.now}
	}
	added := 0
	for _, id := range r.Instances {
		if s.instance(id) != nil || s.waiting[id] != nil || s.ended.Has(r.Spec.Framework, id) {
			continue
		}
		s.waiting[id] = e
		e.instances = append(e.instances, id)
		added++
	}
	s.waits[key.framework] += added
	s.specs.Wait(sp, added)
	s.specs.FreeUnused(sp, s.now)
	if added > 0 {
		s.enqueue(e)
	}
	s.step.launched = append(s.step.launched, launched{reply: len(s.step.fx.Replies), instances: r.Instances, entry: e})
	s.reply(Reply{Request: ev.Request})
	return nil
}

// answerLaunches says what became of the instances that were to be launched in this step.
func (s *State) answerLaunches() {
	for _, l := range s.step.launched {
		result := &kernel.LaunchResult{Waiting: len(l.entry.instances)}
		for _, id := range l.instances {
			if i := s.instance(id); i != nil && i.Framework == l.entry.framework {
				result.Placed = append(result.Placed, i.Record)
			}
		}
		if result.Waiting > 0 {
			result.Refusal = new(s.refusal(l.entry))
		}
		s.step.fx.Replies[l.reply].Launch = result
	}
}

func (s *State) checkLaunch(r *kernel.LaunchRequest) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("launch %.64s: "+format+": %w", append(append([]any{r.Key}, args...), errdefs.ErrInvalidArgument)...)
	}
	switch {
	case r.Key == "" || len(r.Key) > MaxKeyBytes:
		return bad("a key has 1 to %d bytes", MaxKeyBytes)
	case r.Spec.ID == "":
		return bad("the spec is not sealed")
	case len(r.Instances) == 0 || len(r.Instances) > kernel.MaxLaunchInstances:
		return bad("%d groups, expected 1 to %d", len(r.Instances), kernel.MaxLaunchInstances)
	}
	for _, id := range r.Instances {
		if id == "" || len(id) > MaxGroupIDBytes {
			return bad("a group's id has 1 to %d bytes", MaxGroupIDBytes)
		}
	}
	if n := s.waits[r.Spec.Framework]; n+len(r.Instances) > s.cfg.MaxWaiting {
		return fmt.Errorf("launch %s: %d groups wait already, at most %d may: %w", r.Key, n, s.cfg.MaxWaiting, errdefs.ErrResourceExhausted)
	}
	return nil
}

func (s *State) stop(framework string, groups []kernel.InstanceID, why string) {
	unqueued := false
	for _, id := range groups {
		if i := s.instance(id); i != nil && i.Framework == framework {
			s.stopInstance(i, why)
		} else if e := s.waiting[id]; e != nil && e.framework == framework {
			s.unqueue(e, []kernel.InstanceID{id})
			unqueued = true
		}
	}
	if unqueued {
		s.compactQueue()
	}
}

// stopInstance turns an instance's goal to stop: durable first, then told to its agent; its endpoints are not ready
// from now on.
func (s *State) stopInstance(i *instance, why string) {
	if i.Goal() == kernel.GoalStop {
		return
	}
	if len(why) > MaxWhyBytes {
		why = strings.ToValidUTF8(why[:MaxWhyBytes], "")
	}
	g := i.Assignment()
	g.Goal, g.Why = kernel.GoalStop, why
	i.Record = i.Reassign(&g)
	s.touch(i)
	s.change(i)
}

// forget gives up instances of agents that are away; all of them or, with an error, none.
func (s *State) forget(framework string, groups []kernel.InstanceID) error {
	var found []*instance
	for _, id := range groups {
		i := s.instance(id)
		if i == nil || i.Framework != framework || slices.Contains(found, i) {
			continue
		}
		if i.agent.away.IsZero() {
			return fmt.Errorf("group %s: its agent %s is not away: stop it instead: %w", id, i.agent.info.ID, errdefs.ErrFailedPrecondition)
		}
		found = append(found, i)
	}
	if len(found) == 0 {
		return nil
	}
	away := 0
	for _, a := range s.order {
		if !a.away.IsZero() {
			away++
		}
	}
	if away*100 > s.cfg.ForgetPercent*len(s.order) {
		return fmt.Errorf("%d of %d agents are away, more than %d%%: nothing is given up until some return: %w",
			away, len(s.order), s.cfg.ForgetPercent, errdefs.ErrFailedPrecondition)
	}
	for _, i := range found {
		s.giveUp(i, "its agent was given up")
	}
	return nil
}

func (s *State) setQuota(ev SetQuota) error {
	if ev.Remove {
		if _, ok := s.quota.Quota(ev.Quota.Role); !ok {
			return fmt.Errorf("quota of %.64s: %w", ev.Quota.Role, errdefs.ErrNotFound)
		}
		s.quota.Remove(ev.Quota.Role)
	} else {
		s.quota.Machines(s.pool.Total())
		if err := s.quota.Check(ev.Quota, ev.Force); err != nil {
			return err
		}
		s.quota.Set(ev.Quota)
	}
	s.dirty(Row{Kind: RowQuota, ID: ev.Quota.Role})
	s.capacityAppeared()
	return nil
}
