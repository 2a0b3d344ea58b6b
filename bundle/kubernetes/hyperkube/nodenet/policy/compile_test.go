package policy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPoliciesMeanWhatKubernetesSays(t *testing.T) {
	for _, c := range semantics {
		t.Run(c.name, func(t *testing.T) {
			in := world()
			in.Policies = parsePolicies(t, c.policies...)
			rules := Compile(in)
			for _, s := range c.pass {
				if !rules.passes(t, parsePacket(t, s)) {
					t.Errorf("%s: got refused, want it to pass", s)
				}
			}
			for _, s := range c.refuse {
				if rules.passes(t, parsePacket(t, s)) {
					t.Errorf("%s: got through, want it refused", s)
				}
			}
		})
	}
}

func TestCompilingIsDeterministicAndShares(t *testing.T) {
	in := world()
	for _, c := range semantics {
		in.Policies = append(in.Policies, parsePolicies(t, c.policies...)...)
	}
	for i, p := range in.Policies {
		p.Name = string(rune('a'+i%26)) + p.Name + string(rune('a'+i/26))
	}
	want := Compile(in)
	slices.Reverse(in.Policies)
	slices.Reverse(in.Pods)
	if diff := cmp.Diff(want, Compile(in), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("another order of the same input gives other rules (-first +second):\n%s", diff)
	}

	in = world()
	in.Policies = parsePolicies(t, "x\npodSelector: {}\ningress: [{from: [{namespaceSelector: {}}]}]", "y\npodSelector: {}\ningress: [{from: [{namespaceSelector: {}}]}]")
	got := Compile(in)
	if len(got.Chains) != 1 || len(got.Sets) != 1 || len(got.Ingress) != 4 {
		t.Errorf("four pods under the same rules: got %d chains, %d sets, %d addresses, want 1, 1, 4", len(got.Chains), len(got.Sets), len(got.Ingress))
	}
}

func TestPoliciesWithoutPodsHereCostNothing(t *testing.T) {
	in := world()
	in.Policies = parsePolicies(t, "y\npodSelector: {matchLabels: {app: remote}}\ningress: [{from: [{podSelector: {}}]}]", "elsewhere\npodSelector: {}")
	if diff := cmp.Diff(newRules(), Compile(in)); diff != "" {
		t.Error(diff)
	}
}

func TestExceptionsAreCutOut(t *testing.T) {
	for _, c := range []struct {
		cidr   string
		except []string
		want   []string
	}{
		{"10.0.0.0/8", nil, []string{"10.0.0.0-10.255.255.255"}},
		{"0.0.0.0/0", []string{"0.0.0.0/1"}, []string{"128.0.0.0-255.255.255.255"}},
		{"10.0.0.0/24", []string{"10.0.0.128/25", "10.0.0.0/26"}, []string{"10.0.0.64-10.0.0.127"}},
		{"10.0.0.0/24", []string{"10.0.0.0/24"}, nil},
		{"10.0.0.0/30", []string{"10.0.0.1/32", "10.0.0.1/32"}, []string{"10.0.0.0-10.0.0.0", "10.0.0.2-10.0.0.3"}},
		{"10.0.0.7/24", []string{"11.0.0.0/8"}, []string{"10.0.0.0-10.0.0.255"}},
		{"nonsense", nil, nil},
		{"::/0", nil, nil},
	} {
		var got []string
		for _, r := range blockRanges(block(c.cidr, c.except...)) {
			got = append(got, r.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s except %v: got %v, want %v", c.cidr, c.except, got, c.want)
		}
	}
}
