package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// The world of the tests: pods in three namespaces, all but y/remote on this node, and an address outside of the
// cluster. "x/a" and so on name them. Every pod has ports http and dns, each pod at numbers of its own.
var places = map[string]netip.Addr{
	"x/a": netip.MustParseAddr("10.244.0.2"), "x/b": netip.MustParseAddr("10.244.0.3"),
	"y/a": netip.MustParseAddr("10.244.0.4"), "y/b": netip.MustParseAddr("10.244.0.5"),
	"z/a":      netip.MustParseAddr("10.244.0.6"),
	"y/remote": netip.MustParseAddr("10.244.1.2"),
	"outside":  netip.MustParseAddr("192.0.2.9"),
}

func world() Input {
	in := Input{Epoch: "test", Namespaces: map[string]map[string]string{"x": {"team": "red"}, "y": {"team": "blue"}, "z": {}}}
	for _, name := range sortedKeys(places) {
		ns, pod, ok := strings.Cut(name, "/")
		if !ok {
			continue
		}
		p := Pod{Namespace: ns, Name: pod, UID: name, Labels: map[string]string{"app": pod}, Addresses: []netip.Addr{places[name]}, Local: pod != "remote"}
		http := int32(80)
		if pod == "b" {
			http = 8080
		}
		p.Ports = []NamedPort{{"http", corev1.ProtocolTCP, http}, {"dns", corev1.ProtocolUDP, 53}}
		in.Pods = append(in.Pods, p)
	}
	return in
}

// parsePolicies reads documents of "name NAMESPACE/NAME" and a NetworkPolicy's spec.
func parsePolicies(t *testing.T, documents ...string) []*networkingv1.NetworkPolicy {
	t.Helper()
	var out []*networkingv1.NetworkPolicy
	for i, d := range documents {
		ns, spec, _ := strings.Cut(strings.TrimSpace(d), "\n")
		p := &networkingv1.NetworkPolicy{}
		p.Namespace, p.Name = strings.TrimSpace(ns), fmt.Sprintf("policy-%d", i)
		if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(spec, "\t", "  ")), &p.Spec); err != nil {
			t.Fatalf("policy %d: %v", i, err)
		}
		out = append(out, p)
	}
	return out
}

// packet is the first of a connection.
type packet struct {
	from, to string // of places
	protocol string
	port     int
}

// parsePacket reads "x/a > y/b tcp 80".
func parsePacket(t *testing.T, s string) packet {
	f := strings.Fields(s)
	if len(f) != 5 || f[1] != ">" || !places[f[0]].IsValid() || !places[f[2]].IsValid() {
		t.Fatalf("packet %q", s)
	}
	port, err := strconv.Atoi(f[4])
	if err != nil {
		t.Fatal(err)
	}
	return packet{f[0], f[2], f[3], port}
}

// passes judges a packet by the rules as the kernel does.
func (r *Rules) passes(t *testing.T, p packet) bool {
	t.Helper()
	src, dst := places[p.from], places[p.to]
	if src == dst {
		return true
	}
	if chain, ok := r.Egress[src]; ok && !r.returns(t, chain, src, dst, p) {
		return false
	}
	chain, ok := r.Ingress[dst]
	return !ok || r.returns(t, chain, src, dst, p)
}

func (r *Rules) returns(t *testing.T, chain string, src, dst netip.Addr, p packet) bool {
	t.Helper()
	rules, ok := r.Chains[chain]
	if !ok {
		t.Fatalf("chain %s is not there", chain)
	}
	return slices.ContainsFunc(rules, func(rule string) bool { return r.matches(t, rule, src, dst, p) })
}

func (r *Rules) matches(t *testing.T, rule string, src, dst netip.Addr, p packet) bool {
	t.Helper()
	rest := rule
	for rest != "return" {
		var set string
		switch {
		case strings.HasPrefix(rest, "ip daddr . meta l4proto . th dport @"):
			set, rest = word(strings.TrimPrefix(rest, "ip daddr . meta l4proto . th dport @"))
			if !r.set(t, set).Elements[fmt.Sprintf("%s . %s . %d", dst, p.protocol, p.port)] {
				return false
			}
		case strings.HasPrefix(rest, "ip saddr @"), strings.HasPrefix(rest, "ip daddr @"):
			a := src
			if rest[3] == 'd' {
				a = dst
			}
			set, rest = word(rest[len("ip saddr @"):])
			if !has(r.set(t, set), a) {
				return false
			}
		case strings.HasPrefix(rest, "meta l4proto "):
			var protocol string
			if protocol, rest = word(rest[len("meta l4proto "):]); protocol != p.protocol {
				return false
			}
		case strings.Contains(rest, " dport "):
			protocol, ports, _ := strings.Cut(strings.TrimSuffix(rest, " return"), " dport ")
			rest = "return"
			in := func(s string) bool {
				first, last, isRange := strings.Cut(strings.TrimSpace(s), "-")
				if !isRange {
					last = first
				}
				f, err1 := strconv.Atoi(first)
				l, err2 := strconv.Atoi(last)
				if err1 != nil || err2 != nil {
					t.Fatalf("rule %q", rule)
				}
				return f <= p.port && p.port <= l
			}
			if protocol != p.protocol || !slices.ContainsFunc(strings.Split(strings.Trim(ports, "{}"), ","), in) {
				return false
			}
		default:
			t.Fatalf("rule %q: not understood from %q on", rule, rest)
		}
	}
	return true
}

func word(s string) (string, string) {
	w, rest, _ := strings.Cut(s, " ")
	return w, rest
}

func (r *Rules) set(t *testing.T, name string) *Set {
	t.Helper()
	s := r.Sets[name]
	if s == nil {
		t.Fatalf("set %s is not there", name)
	}
	return s
}

func has(s *Set, a netip.Addr) bool {
	if s.Kind != Ranges {
		return s.Elements[a.String()]
	}
	for e := range s.Elements {
		first, last, _ := strings.Cut(e, "-")
		if !a.Less(netip.MustParseAddr(first)) && !netip.MustParseAddr(last).Less(a) {
			return true
		}
	}
	return false
}

func block(cidr string, except ...string) *networkingv1.IPBlock {
	return &networkingv1.IPBlock{CIDR: cidr, Except: except}
}
