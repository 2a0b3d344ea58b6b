package core

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/placement"
)

// claim is what outlives the groups placed with it. While a group holds it, the disk of its volumes is counted as
// part of what the group takes; while none does, on its own.
type claim struct {
	kernel.ClaimView
	holder *instance
}

// claimID names a claim, or an owner's exposed ports, in rows and to agents. Frameworks have no slash in their names.
func claimID(framework, name string) string { return framework + "/" + name }

func (c *claim) id() string { return claimID(c.Framework, c.Name) }

// at is what the claim keeps of its machine.
func (c *claim) at() placement.Placement {
	return placement.Placement{Agent: c.Agent, Address: c.Address, HostPorts: c.HostPorts}
}

// disk is what its volumes take, as resources.
func (c *claim) disk() kernel.Resources { return kernel.Resources{Disk: c.Disk()} }

// claimChanged has a claim written, and shown anew.
func (s *State) claimChanged(c *claim) {
	s.dirty(Row{Kind: RowClaim, ID: c.id()})
	s.outdated.claims[c.Framework] = struct{}{}
}

// count has the disk of a claim without a holder count against machine and quota; uncount ends that.
func (s *State) count(c *claim) {
	s.pool.Adjust(c.Agent, c.Role, c.disk())
	s.quota.Charge(c.Role, c.disk(), false)
}

func (s *State) uncount(c *claim) {
	s.pool.Adjust(c.Agent, c.Role, kernel.Resources{}.Sub(c.disk()))
	s.quota.Credit(c.Role, c.disk(), false)
}

// checkClaim refuses a spec whose claim exists with volumes that the spec does not have, or has smaller.
func (s *State) checkClaim(k *kernel.Spec) error {
	if k.Claim == nil {
		return nil
	}
	c := s.claims[claimID(k.Framework, k.Claim.Name)]
	if c == nil {
		return nil
	}
	if c.Released {
		return fmt.Errorf("claim %s: it was released and its machine has yet to delete it: try again: %w", k.Claim.Name, errdefs.ErrFailedPrecondition)
	}
	for _, had := range c.Volumes {
		if !slices.ContainsFunc(k.Claim.Volumes, func(v kernel.ClaimVolume) bool { return v.Name == had.Name && v.Bytes >= had.Bytes }) {
			return fmt.Errorf("claim %s: volume %s has %s: a spec must keep it, at least as large: %w", k.Claim.Name, had.Name,
				kernel.FormatBytes(had.Bytes), errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// placeClaimed places the first group of an entry, if nobody holds the claim: where the claim is, or anywhere if
// there is none.
func (s *State) placeClaimed(e *entry) []*instance {
	sp := e.spec
	c := s.claims[claimID(sp.Framework, sp.Claim.Name)]
	if c == nil {
		return s.placeFirst(e)
	}
	if c.holder != nil || c.Released || c.Lost {
		detail := "it was released"
		if c.Lost {
			detail = fmt.Sprintf("its machine %s was removed, and what it kept is lost: release it to begin anew", c.Agent)
		}
		if c.holder != nil {
			detail = fmt.Sprintf("group %s holds it", c.holder.ID())
		}
		e.refuse(kernel.Refusal{Agents: 1, Reasons: []kernel.Rejected{{Filter: "claim " + c.Name, Agents: 1, Detail: detail}}})
		return nil
	}
	s.uncount(c)
	ok, refusal := s.affords(e)
	if ok {
		ok, refusal = s.pool.PlaceOn(sp.request, c.Agent)
	}
	if e.refuse(refusal); !ok {
		s.count(c)
		return nil
	}
	placed := s.settle(e, []placement.Placement{c.at()})
	s.hold(c, placed[0])
	return placed
}

// placeFirst places a group whose claim does not exist, and makes it.
func (s *State) placeFirst(e *entry) []*instance {
	sp := e.spec
	if ok, refusal := s.affords(e); !ok {
		e.refuse(refusal)
		return nil
	}
	places := s.places(e, 1)
	if e.unfit = len(places) == 0; e.unfit {
		return nil
	}
	e.refuse(kernel.Refusal{})
	c := &claim{ClaimView: kernel.ClaimView{Framework: sp.Framework, Agent: places[0].Agent, Address: places[0].Address, HostPorts: places[0].HostPorts}}
	c.Name = sp.Claim.Name
	s.claims[c.id()] = c
	placed := s.settle(e, places)
	s.hold(c, placed[0])
	return placed
}

// hold notes who has the claim; what it is follows the newest spec.
func (s *State) hold(c *claim, i *instance) {
	c.holder = i
	if c.Role != i.spec.Role || !slices.Equal(c.Volumes, i.spec.Claim.Volumes) {
		c.Role, c.Volumes = i.spec.Role, slices.Clone(i.spec.Claim.Volumes)
		s.claimChanged(c)
	}
}

// claimOf is the claim that an instance holds.
func (s *State) claimOf(i *instance) *claim {
	if i.spec.Claim == nil {
		return nil
	}
	if c := s.claims[claimID(i.spec.Framework, i.spec.Claim.Name)]; c != nil && c.holder == i {
		return c
	}
	return nil
}

// release marks claims as given up; all of them or, with an error, none.
func (s *State) release(framework string, names []string) error {
	var found []*claim
	for _, name := range names {
		c := s.claims[claimID(framework, name)]
		if c == nil || c.Released {
			continue
		}
		if c.holder != nil {
			return fmt.Errorf("claim %s: group %s holds it: stop it first: %w", name, c.holder.ID(), errdefs.ErrFailedPrecondition)
		}
		found = append(found, c)
	}
	for _, e := range s.queue {
		if c := s.claimFor(e); c != nil && c.Lost { // nothing is taken from who waits for it
			continue
		}
		if e.framework == framework && e.spec.Claim != nil && len(e.groups) > 0 && slices.Contains(names, e.spec.Claim.Name) {
			return fmt.Errorf("claim %s: group %s waits to be placed with it: withdraw it first: %w", e.spec.Claim.Name, e.groups[0], errdefs.ErrFailedPrecondition)
		}
	}
	for _, c := range found {
		if c.Lost {
			s.dropClaim(c)
			continue
		}
		c.Released = true
		s.claimChanged(c)
		if a := s.agents[c.Agent]; a != nil {
			out := s.outbox(a)
			out.releases = append(out.releases, c.id())
		}
	}
	return nil
}

// releasedOn lists the claims that an agent has yet to delete.
func (s *State) releasedOn(a *agent) []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(s.claims)) {
		if c := s.claims[id]; c.Released && c.Agent == a.info.ID {
			out = append(out, id)
		}
	}
	return out
}

// released ends a claim of which its agent has nothing left.
func (s *State) released(a *agent, id string) {
	c := s.claims[id]
	if c == nil || !c.Released || c.Agent != a.info.ID {
		return
	}
	s.freeClaim(c)
	s.dropClaim(c)
}

// freeClaim gives back what a claim without a holder takes.
func (s *State) freeClaim(c *claim) {
	s.pool.Unclaim(c.at(), c.Role, c.disk())
	s.quota.Credit(c.Role, c.disk(), false)
}

// dropClaim forgets a claim that takes nothing any more.
func (s *State) dropClaim(c *claim) {
	delete(s.claims, c.id())
	s.claimChanged(c)
	s.roomAppeared()
}

// loseClaim is a claim's part in the removal of its machine: one that kept nothing is gone, one with volumes stays,
// to say that it is lost.
func (s *State) loseClaim(c *claim) {
	if len(c.Volumes) == 0 || c.Released {
		s.dropClaim(c)
		return
	}
	c.Lost = true
	s.claimChanged(c)
}

// claimsOn lists the claims of a machine, by id.
func (s *State) claimsOn(id kernel.AgentID) []*claim {
	var out []*claim
	for _, name := range slices.Sorted(maps.Keys(s.claims)) {
		if c := s.claims[name]; c.Agent == id && !c.Lost {
			out = append(out, c)
		}
	}
	return out
}

func (s *State) loadClaim(r Row, raw []byte) error {
	c := &claim{}
	if err := json.Unmarshal(raw, &c.ClaimView); err != nil {
		return err
	}
	if c.id() != r.ID {
		return fmt.Errorf("holds claim %q", c.id())
	}
	switch {
	case c.Lost:
	case s.removed.has(c.Agent):
		s.claims[r.ID] = c
		s.loseClaim(c)
		return nil
	default:
		if err := s.pool.Claim(c.at(), c.Role, c.disk()); err != nil {
			return err
		}
		s.quota.Charge(c.Role, c.disk(), false)
	}
	s.claims[r.ID] = c
	s.outdated.claims[c.Framework] = struct{}{}
	return nil
}

// loadHolder gives a claim back to the group that holds it. Address and host ports are the claim's already.
func (s *State) loadHolder(g *kernel.Group, sp *spec, a *agent) (placement.Placement, error) {
	c := s.claims[claimID(sp.Framework, sp.Claim.Name)]
	if c == nil || c.Agent != a.info.ID || c.Address != g.Address || c.holder != nil {
		return placement.Placement{}, fmt.Errorf("its claim %s is not where it is: %w", sp.Claim.Name, errdefs.ErrNotFound)
	}
	s.uncount(c)
	return placement.Placement{Agent: a.info.ID}, nil
}

// resize changes what a group's tasks have, when its machine and the quota have as much.
func (s *State) resize(ev Resize) error {
	i := s.group(ev.Group)
	if i == nil || i.Framework != ev.Framework || i.Goal() != kernel.GoalRun {
		return fmt.Errorf("group %s: it does not run: %w", ev.Group, errdefs.ErrNotFound)
	}
	if len(ev.Sizes) != len(i.spec.Tasks) {
		return fmt.Errorf("group %s: %d sizes for %d tasks: %w", ev.Group, len(ev.Sizes), len(i.spec.Tasks), errdefs.ErrInvalidArgument)
	}
	g := i.Group()
	had := g.Sizes
	g.Sizes = slices.Clone(ev.Sizes)
	for k := range g.Sizes {
		if !g.Sizes[k].Guarantee.Valid() {
			return fmt.Errorf("group %s: task %s would be guaranteed less than nothing: %w", ev.Group, i.spec.Tasks[k].Name, errdefs.ErrInvalidArgument)
		}
	}
	if slices.Equal(g.Sizes, had) {
		return nil
	}
	need := g.Guarantee(&i.spec.Spec)
	more := need.Sub(i.need())
	if grows := more.Most(kernel.Resources{}); !grows.IsZero() {
		if short := (kernel.Quota{Limit: s.pool.FreeFor(i.spec.request, i.agent.info.ID).Most(kernel.Resources{})}).Within(kernel.Resources{}, grows); len(short) > 0 {
			return fmt.Errorf("group %s: machine %s lacks %s: asks %s more, has %s free: %w", ev.Group, i.agent.info.Hostname, short[0],
				more, s.pool.FreeFor(i.spec.request, i.agent.info.ID), errdefs.ErrResourceExhausted)
		}
		if _, why, _ := s.quotaRoom(i.spec, grows, 1); why != "" {
			return fmt.Errorf("group %s: %s: %w", ev.Group, why, errdefs.ErrResourceExhausted)
		}
	}
	s.pool.Adjust(i.agent.info.ID, i.spec.fills(), more)
	s.charge(Charge{Placement: invariant.Placement{Group: g.ID, Agent: i.agent.info.ID, Role: i.spec.Role, Guarantee: more}})
	s.quota.Credit(i.spec.Role, i.need(), i.spec.Lent())
	s.quota.Charge(i.spec.Role, need, i.spec.Lent())
	i.Record, i.resized = i.Regroup(&g), true
	s.touch(i)
	s.change(i)
	s.roomAppeared()
	return nil
}
