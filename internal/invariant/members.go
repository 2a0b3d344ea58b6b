package invariant

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// Members judges I42: a machine that was removed is gone for good, with its place and what it had given out, and
// nothing of what it kept vanishes without a word. It is told what each revision changed and judges it with Judge.
type Members struct {
	Subnets int // how many there are for machines to have

	machines map[kernel.AgentID]netip.Prefix // members, with their subnets
	left     map[kernel.AgentID]bool
	claims   map[string]keptReservation
	came     []kernel.AgentID // since the last Judge
}

// keptClaim is a reservation with volumes.
type keptReservation struct {
	agent kernel.AgentID
	lost  bool
}

// NewMembers returns a datacenter without machines, with so many subnets for them.
func NewMembers(subnets int) *Members {
	return &Members{Subnets: subnets, machines: map[kernel.AgentID]netip.Prefix{}, left: map[kernel.AgentID]bool{},
		claims: map[string]keptReservation{}}
}

// All lists the members.
func (m *Members) All() []kernel.AgentID { return slices.Sorted(maps.Keys(m.machines)) }

// Has reports whether a machine is a member.
func (m *Members) Has(id kernel.AgentID) bool {
	_, ok := m.machines[id]
	return ok
}

// Agent tells that a machine is a member, with a subnet or none.
func (m *Members) Agent(id kernel.AgentID, subnet netip.Prefix) {
	m.machines[id] = subnet
	m.came = append(m.came, id)
}

// Left tells that a machine is no member any more.
func (m *Members) Left(id kernel.AgentID) {
	delete(m.machines, id)
	m.left[id] = true
}

// Answered tells that somebody was told that a machine was removed.
func (m *Members) Answered(id kernel.AgentID) []Violation {
	if m.Has(id) {
		return violated(I42Removed, "somebody was told that machine %s was removed, and it is a member", id)
	}
	return nil
}

// Claim tells of a reservation with volumes; without an agent it is gone.
func (m *Members) Reservation(name string, agent kernel.AgentID, lost bool) []Violation {
	old, had := m.claims[name]
	if agent == "" {
		delete(m.claims, name)
		return nil
	}
	m.claims[name] = keptReservation{agent, lost}
	if had && old.agent != agent && !old.lost {
		return violated(I42Removed, "claim %s is on machine %s, what it keeps on %s", name, agent, old.agent)
	}
	return nil
}

// Judge answers with what the changes since the last call broke.
func (m *Members) Judge(revision int64) (out []Violation) {
	for _, id := range m.came {
		subnet, is := m.machines[id]
		if is && m.left[id] {
			out = append(out, violated(I42Removed, "machine %s was removed and is a member again at revision %d",
				id, revision)...)
		}
		if is && !subnet.IsValid() && len(m.machines) <= m.Subnets {
			out = append(out, violated(I42Removed, "machine %s has no addresses at revision %d: %d machines share %d subnets",
				id, revision, len(m.machines), m.Subnets)...)
		}
	}
	m.came = m.came[:0]
	for _, name := range slices.Sorted(maps.Keys(m.claims)) {
		if c := m.claims[name]; !c.lost && !m.Has(c.agent) {
			out = append(out, violated(I42Removed, "claim %s is on machine %s, which is no member, and is not called lost at revision %d", name, c.agent, revision)...)
		}
	}
	return out
}

// Awaited judges whether a leader still waits for machines to report though all members did, since reported counts
// each once.
func (m *Members) Awaited(complete bool, missing []kernel.AgentID) []Violation {
	if complete || len(missing) > 0 {
		return nil
	}
	return violated(I42Removed, "the leader waits for machines to report, and all %d members did", len(m.machines))
}
