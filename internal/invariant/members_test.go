package invariant

import (
	"net/netip"
	"testing"
)

func TestMembersThatLeftStayAwayAndTakeNothingAlong(t *testing.T) {
	subnet := netip.MustParsePrefix("10.0.0.0/24")
	begin := func() *Members {
		m := NewMembers(2)
		m.Agent("a1", subnet)
		m.Reservation("db", "a1", false)
		expect(t, "a machine with a claim", m.Judge(1), "")
		return m
	}
	m := begin()
	expect(t, "told that it was removed while it is there", m.Answered("a1"), I42Removed, "a1")
	m.Left("a1")
	m.Reservation("db", "a1", true)
	expect(t, "removed, its claim lost", append(m.Judge(2), m.Answered("a1")...), "")
	expect(t, "the claim begins anew", m.Reservation("db", "a2", false), "")
	m.Agent("a2", subnet)
	expect(t, "another machine with its subnet", m.Judge(3), "")
	m.Agent("a1", netip.MustParsePrefix("10.0.1.0/24"))
	expect(t, "it comes back", m.Judge(4), I42Removed, "a1", "again")

	m = begin()
	m.Left("a1")
	expect(t, "its claim is forgotten", m.Judge(2), I42Removed, "db", "a1")
	m = begin()
	expect(t, "a claim moves", m.Reservation("db", "a2", false), I42Removed, "db", "a1", "a2")
	m = begin()
	m.Agent("a2", netip.Prefix{})
	expect(t, "no subnet for the second of two", m.Judge(2), I42Removed, "a2")
	m.Agent("a3", netip.Prefix{})
	m.Agent("a2", netip.MustParsePrefix("10.0.1.0/24"))
	expect(t, "no subnet for the third of two", m.Judge(3), "")

	expect(t, "a leader that is complete", m.Awaited(true, nil), "")
	m = begin()
	expect(t, "a leader that waits for one", m.Awaited(false, m.All()), "")
	expect(t, "a leader that waits for none", m.Awaited(false, nil), I42Removed)
}
