package subnet

import (
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

var vips = netip.MustParsePrefix("198.18.0.0/16")

// TestWhatIsGivenIsOneMachinesUntilItIsReturned gives and returns at random: no subnet has two holders, all are of the
// pool, and a pool with a free one gives it.
func TestWhatIsGivenIsOneMachinesUntilItIsReturned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := New(netip.MustParsePrefix("10.0.0.0/21"), 24) // eight
		held := map[netip.Prefix]kernel.AgentID{}
		for n := range rapid.IntRange(1, 40).Draw(t, "steps") {
			id := kernel.AgentID(rune('a' + n))
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1, 2:
				size := p.Usage().Subnets
				s := p.Give(id)
				if s.IsValid() != (len(held) < size) {
					t.Fatalf("got %v with %d of %d given", s, len(held), size)
				}
				if s.IsValid() {
					if held[s] != "" || !Contains(p.Prefix(), s) {
						t.Fatalf("got %s, which %q has, of %s", s, held[s], p.Prefix())
					}
					held[s] = id
				}
			case 3, 4:
				for s := range held {
					p.Return(s)
					delete(held, s)
					break
				}
			case 5:
				if to := netip.MustParsePrefix("10.0.0.0/20"); p.Check(to, vips) == nil {
					p.Use(to)
				}
			}
			if p.Usage().Used != len(held) {
				t.Fatalf("%d are used, want %d", p.Usage().Used, len(held))
			}
			for s, by := range held {
				if p.Holder(s) != by {
					t.Fatalf("%s is of %q, want %q", s, p.Holder(s), by)
				}
			}
		}
	})
}

func TestAReturnedSubnetIsGivenAgainLast(t *testing.T) {
	p := New(netip.MustParsePrefix("10.0.0.0/22"), 24)
	first := p.Give("a")
	p.Return(first)
	for range 3 {
		if s := p.Give("b"); s == first {
			t.Errorf("got %s again while others were never given", s)
		}
	}
	if s := p.Give("b"); s != first {
		t.Errorf("got %s, want %s, the only one left", s, first)
	}
}

func TestAPoolThatCannotBeIsRefused(t *testing.T) {
	p := New(netip.MustParsePrefix("10.1.0.0/16"), 24)
	for to, ok := range map[string]bool{"10.0.0.0/12": true, "10.1.0.0/16": true, "10.2.0.0/16": false,
		"10.1.0.0/17": false,
		"0.0.0.0/4":   false, "fd00::/8": false} {
		if err := p.Check(netip.MustParsePrefix(to), vips); (err == nil) != ok || err != nil &&
			!errdefs.IsInvalidArgument(err) {
			t.Errorf("pool %s: got %v, want it allowed to be %v", to, err, ok)
		}
	}
	if err := New(netip.MustParsePrefix("198.18.1.0/24"), 28).Check(netip.MustParsePrefix("198.18.0.0/15"),
		vips); err == nil {
		t.Error("a pool over the virtual addresses: got no error")
	}
}

func TestAPoolThatWasSetIsLoaded(t *testing.T) {
	p := New(netip.MustParsePrefix("10.1.0.0/16"), 24)
	if p.Changed() {
		t.Error("the configured pool: got it as changed")
	}
	if err := p.LoadPrefix(netip.MustParsePrefix("10.9.0.0/16")); err == nil {
		t.Error("another datacenter's pool: got no error")
	}
	if err := p.LoadPrefix(netip.MustParsePrefix("10.0.0.0/12")); err != nil || !p.Changed() || p.Use(p.Prefix()) {
		t.Errorf("a larger pool: got %v, changed %v, want it in use", err, p.Changed())
	}
	s := netip.MustParsePrefix("10.0.5.0/24")
	if err := p.Load(s, "a"); err != nil || p.Load(s, "b") == nil {
		t.Errorf("a subnet of two rows: got %v for the first, want an error for the second only", err)
	}
}
