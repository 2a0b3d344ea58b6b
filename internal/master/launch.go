package master

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/allocator"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/placement"
	"github.com/marinaos/marina/internal/store"
)

type entryKey struct{ framework, key string }

// entry is groups of one spec that wait for room.
type entry struct {
	entryKey
	spec    *spec
	groups  []kernel.GroupID
	since   time.Time
	refusal kernel.Refusal
	unfit   bool      // no machine fits: the refusal is what the pool last said
	asked   time.Time // when it said so
	tries   int
}

// newSpec takes up a spec, with nothing made from it yet. A named VIP that has no address gets one.
func (s *State) newSpec(k kernel.Spec) (*spec, error) {
	if sp := s.specs[k.ID]; sp != nil {
		return sp, nil
	}
	if err := allocator.ValidateRole(k.Role); err != nil {
		return nil, fmt.Errorf("spec of %s: %w", k.Owner, err)
	}
	raw, err := json.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("spec of %s: %w", k.Owner, err)
	}
	if len(raw) > store.RowBytes || len(k.Framework) > maxFramework {
		return nil, fmt.Errorf("spec of %.64s: %d bytes encoded, framework of %d: too large: %w", k.Owner, len(raw), len(k.Framework), errdefs.ErrInvalidArgument)
	}
	request, err := s.pool.Prepare(&k)
	if err != nil {
		return nil, err
	}
	sp := &spec{Spec: k, request: request, need: k.Guarantee(), size: len(raw)}
	if err := s.holdVIPs(sp); err != nil {
		s.pool.Drop(request)
		return nil, err
	}
	sp.ports = sp.endpointPorts()
	sp.more = s.exposed[claimID(k.Framework, k.Owner)]
	s.specs[k.ID] = sp
	return sp, nil
}

// unuse ends one use of a spec.
func (s *State) unuse(sp *spec) {
	if sp.uses--; sp.uses == 0 {
		s.freeSpec(sp)
	}
}

func (s *State) freeSpec(sp *spec) {
	delete(s.specs, sp.ID)
	s.pool.Drop(sp.request)
	if sp.stored {
		s.dirty(Row{Kind: RowSpec, ID: string(sp.ID)})
	}
	s.dropVIPs(sp)
}

// unusedSpecs lists specs that nothing is made from, as after loading.
func (s *State) unusedSpecs() []*spec {
	var out []*spec
	for _, sp := range s.specs {
		if sp.uses == 0 {
			out = append(out, sp)
		}
	}
	slices.SortFunc(out, func(a, b *spec) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

func (s *State) launch(r kernel.LaunchRequest) (*kernel.LaunchResult, error) {
	if err := s.checkLaunch(&r); err != nil {
		return nil, err
	}
	key := entryKey{r.Spec.Framework, r.Key}
	e := s.entries[key]
	if e != nil && e.spec.ID != r.Spec.ID {
		return nil, fmt.Errorf("launch %s: other groups wait under this key with another spec: withdraw them first: %w", r.Key, errdefs.ErrAlreadyExists)
	}
	if err := s.checkLiterals(&r.Spec); err != nil {
		return nil, err
	}
	if err := s.checkClaim(&r.Spec); err != nil {
		return nil, err
	}
	sp, err := s.newSpec(r.Spec)
	if err != nil {
		return nil, err
	}
	if e == nil {
		e = &entry{entryKey: key, spec: sp, since: s.now}
	}
	result := &kernel.LaunchResult{}
	added := 0
	for _, id := range r.Groups {
		if i := s.groups[id]; i != nil {
			if i.spec.Framework == r.Spec.Framework {
				result.Placed = append(result.Placed, i.view())
			}
			continue
		}
		if s.waiting[id] != nil || s.endedOf(r.Spec.Framework).has(id) {
			continue
		}
		s.waiting[id] = e
		e.groups = append(e.groups, id)
		sp.uses++
		added++
	}
	s.waits[key.framework] += added
	if added > 0 {
		for _, i := range s.place(e) {
			result.Placed = append(result.Placed, i.view())
		}
	}
	if sp.uses == 0 {
		s.freeSpec(sp)
	}
	queued := s.entries[key] != nil
	switch {
	case len(e.groups) > 0 && !queued:
		s.entries[key] = e
		s.queue = append(s.queue, e)
	case len(e.groups) == 0 && queued:
		s.compactQueue()
	}
	if result.Waiting = len(e.groups); result.Waiting > 0 {
		result.Refusal = new(s.refusal(e))
	}
	return result, nil
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
	case len(r.Groups) == 0 || len(r.Groups) > kernel.MaxLaunchGroups:
		return bad("%d groups, expected 1 to %d", len(r.Groups), kernel.MaxLaunchGroups)
	}
	for _, id := range r.Groups {
		if id == "" || len(id) > MaxGroupIDBytes {
			return bad("a group's id has 1 to %d bytes", MaxGroupIDBytes)
		}
	}
	if n := s.waits[r.Spec.Framework]; n+len(r.Groups) > s.cfg.MaxWaiting {
		return fmt.Errorf("launch %s: %d groups wait already, at most %d may: %w", r.Key, n, s.cfg.MaxWaiting, errdefs.ErrResourceExhausted)
	}
	return nil
}

// place tries to place what waits in an entry, under the quota first, then on machines.
func (s *State) place(e *entry) []*instance {
	sp := e.spec
	e.tries++
	if sp.Claim != nil {
		return s.placeClaimed(e)
	}
	k, why := s.quota.Room(sp.Role, sp.need, len(e.groups))
	places := s.pool.Place(sp.request, k)
	if e.unfit = len(places) < k; !e.unfit {
		e.refuse(kernel.Refusal{Quota: why})
	}
	if len(places) == 0 {
		return nil
	}
	return s.settle(e, places)
}

// refuse notes why the groups of an entry wait, where the pool need not be asked.
func (e *entry) refuse(r kernel.Refusal) { e.refusal, e.unfit, e.asked = r, false, time.Time{} }

// refusal is why the groups of an entry wait. The pool looks at every machine to say so, and is asked again only after a while,
// about a few entries in one step.
func (s *State) refusal(e *entry) kernel.Refusal {
	stale := e.asked.IsZero() || s.now.Sub(e.asked) >= explainEvery && s.step.explained < explainMost
	if e.unfit && stale {
		e.refusal, e.asked = s.pool.Explain(e.spec.request), s.now
		s.step.explained++
	}
	return e.refusal
}

// settle makes instances of the first groups of an entry, where places say.
func (s *State) settle(e *entry, places []placement.Placement) []*instance {
	sp := e.spec
	if !sp.stored {
		sp.stored = true
		s.dirty(Row{Kind: RowSpec, ID: string(sp.ID)})
	}
	placed := make([]*instance, len(places))
	stamp := s.now.UTC().Round(0)
	for n, at := range places {
		a := s.agents[at.Agent]
		g := kernel.Group{ID: e.groups[n], Spec: sp.ID, Address: at.Address, HostPorts: at.HostPorts, Placed: stamp, Goal: kernel.GoalRun}
		delete(s.waiting, g.ID)
		i := s.newInstance(g, sp, a, a.room())
		i.known = true
		s.touch(i)
		s.change(i)
		placed[n] = i
	}
	sp.uses -= len(places) // they were counted as waiting
	s.waits[e.framework] -= len(places)
	e.groups = slices.Clone(e.groups[len(places):])
	return placed
}

// retryQueue tries every entry once, longest waiting first: none is in another's way.
func (s *State) retryQueue() {
	if len(s.queue) == 0 {
		return
	}
	for _, e := range s.queue {
		if len(e.groups) > 0 {
			s.place(e)
		}
	}
	s.compactQueue()
}

// compactQueue takes out entries in which nothing waits any more.
func (s *State) compactQueue() {
	s.queue = slices.DeleteFunc(s.queue, func(e *entry) bool {
		if len(e.groups) == 0 {
			delete(s.entries, e.entryKey)
		}
		return len(e.groups) == 0
	})
}

func (s *State) withdraw(framework, key string, groups []kernel.GroupID) {
	e := s.entries[entryKey{framework, key}]
	if e == nil {
		return
	}
	if groups == nil {
		groups = slices.Clone(e.groups)
	}
	s.unqueue(e, groups)
	s.compactQueue()
}

// unqueue takes groups out of an entry; those that are not in it are ignored.
func (s *State) unqueue(e *entry, groups []kernel.GroupID) {
	for _, id := range groups {
		if s.waiting[id] == e {
			delete(s.waiting, id)
		}
	}
	before := len(e.groups)
	e.groups = slices.DeleteFunc(e.groups, func(id kernel.GroupID) bool { return s.waiting[id] != e })
	for range before - len(e.groups) {
		s.waits[e.framework]--
		s.unuse(e.spec)
	}
}

func (s *State) stop(framework string, groups []kernel.GroupID, why string) {
	unqueued := false
	for _, id := range groups {
		if i := s.groups[id]; i != nil && i.spec.Framework == framework {
			s.stopInstance(i, why)
		} else if e := s.waiting[id]; e != nil && e.framework == framework {
			s.unqueue(e, []kernel.GroupID{id})
			unqueued = true
		}
	}
	if unqueued {
		s.compactQueue()
	}
}

// stopInstance turns a group's goal to stop: durable first, then told to its agent; its endpoints are not ready from now on.
func (s *State) stopInstance(i *instance, why string) {
	if i.Goal == kernel.GoalStop {
		return
	}
	if len(why) > MaxWhyBytes {
		why = strings.ToValidUTF8(why[:MaxWhyBytes], "")
	}
	i.Goal, i.Why = kernel.GoalStop, why
	s.touch(i)
	s.change(i)
}

// forget gives up groups of agents that are away; all of them or, with an error, none.
func (s *State) forget(framework string, groups []kernel.GroupID) error {
	var found []*instance
	for _, id := range groups {
		i := s.groups[id]
		if i == nil || i.spec.Framework != framework || slices.Contains(found, i) {
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
		statuses := slices.Clone(i.statuses)
		for k := range statuses {
			if st := &statuses[k]; !st.State.Terminal() {
				st.State, st.Reason, st.Message, st.Time = kernel.Gone, kernel.ReasonAgentGone, "its agent was given up", s.now.UTC().Round(0)
				st.Health = nil
			}
		}
		i.statuses = statuses
		s.end(i)
	}
	return nil
}

// end removes an instance for good: its row, what it used, its endpoints; its id is remembered as ended.
func (s *State) end(i *instance) {
	a := i.agent
	i.removed = true
	s.change(i)
	s.remember(i.view())
	chunk := a.chunks[i.chunk]
	at := slices.Index(chunk, i)
	a.chunks[i.chunk] = slices.Delete(chunk, at, at+1)
	a.count--
	delete(s.groups, i.ID)
	s.dirty(Row{Kind: RowAssigned, ID: string(a.info.ID), Chunk: i.chunk})
	slot := s.endedOf(i.spec.Framework).add(i.ID)
	s.dirty(Row{Kind: RowEnded, ID: i.spec.Framework, Chunk: slot})
	out := s.outbox(a)
	out.drops = append(out.drops, i.ID)
	s.takeBack(i)
	i.spec.placed--
	s.unuse(i.spec)
	s.roomAppeared()
}

func (s *State) setQuota(ev SetQuota) error {
	if ev.Limit == nil {
		if _, ok := s.quota.Limit(ev.Role); !ok {
			return fmt.Errorf("quota of %.64s: %w", ev.Role, errdefs.ErrNotFound)
		}
		s.quota.Remove(ev.Role)
	} else {
		q := kernel.Quota{Role: ev.Role, Limit: *ev.Limit}
		if err := allocator.Validate(q); err != nil {
			return err
		}
		s.quota.Set(q)
	}
	s.dirty(Row{Kind: RowQuota, ID: ev.Role})
	s.roomAppeared()
	return nil
}
