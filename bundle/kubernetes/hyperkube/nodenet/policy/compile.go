package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// direction is the side of a pod a policy speaks of. Peer is the packet's field with the peer's address; ports are
// always the destination's.
type direction struct{ name, peer string }

var (
	ingress = direction{"in", "saddr"}
	egress  = direction{"out", "daddr"}
)

// compiler holds what one run of Compile builds.
type compiler struct {
	in    Input
	out   *Rules
	byNS  map[string][]*Pod
	named map[string]string // name of the set of each named port, by name and protocol
}

// Compile says which sets, chains and elements enforce the policies of in on this node. The same input gives the same
// output. A selector or block that does not parse selects nothing; the API lets none through.
func Compile(in Input) *Rules {
	c := &compiler{in: in, out: newRules(), byNS: map[string][]*Pod{}, named: map[string]string{}}
	for i := range in.Pods {
		p := &in.Pods[i]
		c.byNS[p.Namespace] = append(c.byNS[p.Namespace], p)
	}
	policies := slices.Clone(in.Policies)
	slices.SortFunc(policies, func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	rules := map[*Pod]*[2]selected{}
	for _, p := range policies {
		c.policy(p, rules)
	}
	for i := range in.Pods {
		pod := &in.Pods[i]
		dirs, ok := rules[pod]
		if !ok {
			continue
		}
		for i, to := range []map[netip.Addr]string{c.out.Ingress, c.out.Egress} {
			if !dirs[i].isolated {
				continue
			}
			chain := c.chain([]direction{ingress, egress}[i], dirs[i].rules)
			for _, a := range pod.Addresses {
				to[a] = chain
			}
		}
	}
	return c.out
}

// selected is the sum of the policies that select a pod, for one direction.
type selected struct {
	isolated bool
	rules    []string
}

// policy adds p's rules to the pods it selects. What selects no pod of this node costs no set.
func (c *compiler) policy(p *networkingv1.NetworkPolicy, rules map[*Pod]*[2]selected) {
	selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
	if err != nil {
		return
	}
	var pods []*Pod
	for _, pod := range c.byNS[p.Namespace] {
		if pod.Local && len(pod.Addresses) > 0 && selector.Matches(labels.Set(pod.Labels)) {
			pods = append(pods, pod)
		}
	}
	if len(pods) == 0 {
		return
	}
	in, out := directions(p)
	var lines [2][]string
	if in {
		for _, r := range p.Spec.Ingress {
			lines[0] = append(lines[0], c.rule(ingress, p.Namespace, r.From, r.Ports)...)
		}
	}
	if out {
		for _, r := range p.Spec.Egress {
			lines[1] = append(lines[1], c.rule(egress, p.Namespace, r.To, r.Ports)...)
		}
	}
	for _, pod := range pods {
		if rules[pod] == nil {
			rules[pod] = new([2]selected)
		}
		for i, isolates := range []bool{in, out} {
			if s := &rules[pod][i]; isolates {
				s.isolated = true
				s.rules = append(s.rules, lines[i]...)
			}
		}
	}
}

// directions says which directions p isolates. Without policyTypes it is ingress always, and egress if it has rules for
// it.
func directions(p *networkingv1.NetworkPolicy) (in, out bool) {
	if len(p.Spec.PolicyTypes) == 0 {
		return true, len(p.Spec.Egress) > 0
	}
	return slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress), slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
}

// chain returns the name of the chain with these rules, which are alternatives: neither order nor repetition matters.
func (c *compiler) chain(d direction, rules []string) string {
	rules = slices.Clone(rules)
	slices.Sort(rules)
	rules = slices.Compact(rules)
	if slices.Contains(rules, "return") { // everything is allowed
		rules = []string{"return"}
	}
	name := c.name(d.name, strings.Join(rules, "\n"))
	c.out.Chains[name] = rules
	return name
}

// rule returns the packets that one rule of a policy lets pass: each line is a match and "return".
func (c *compiler) rule(d direction, namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) []string {
	from := []string{""}
	if len(peers) > 0 {
		from = c.peers(d, namespace, peers)
	}
	to := []string{""}
	if len(ports) > 0 {
		to = c.ports(ports)
	}
	var lines []string
	for _, f := range from {
		for _, t := range to {
			lines = append(lines, strings.Join(strings.Fields(f+" "+t+" return"), " "))
		}
	}
	return lines
}

// peers returns matches for any of the peers: one for all pods among them, one for all blocks.
func (c *compiler) peers(d direction, namespace string, peers []networkingv1.NetworkPolicyPeer) []string {
	var keys []string
	var selectors []peerSelector
	var blocks []addrRange
	hasBlocks := false
	for _, p := range peers {
		if p.IPBlock != nil {
			hasBlocks = true
			blocks = append(blocks, blockRanges(p.IPBlock)...)
			continue
		}
		s, ok := newPeerSelector(namespace, p)
		if ok {
			selectors = append(selectors, s)
			keys = append(keys, s.key())
		}
	}
	var matches []string
	if len(selectors) > 0 {
		slices.Sort(keys)
		name := c.name("pods", strings.Join(slices.Compact(keys), "\n"))
		if c.out.Sets[name] == nil {
			c.out.Sets[name] = c.selectPods(selectors)
		}
		matches = append(matches, "ip "+d.peer+" @"+name)
	}
	if hasBlocks {
		set := &Set{Kind: Ranges, Elements: map[string]bool{}}
		for _, r := range mergeRanges(blocks) {
			set.Elements[r.String()] = true
		}
		if len(set.Elements) > 0 {
			name := c.name("blocks", strings.Join(sortedKeys(set.Elements), "\n"))
			c.out.Sets[name] = set
			matches = append(matches, "ip "+d.peer+" @"+name)
		}
	}
	return matches
}

// peerSelector is a peer that is pods: of one namespace, or of those a selector matches.
type peerSelector struct {
	namespace  string // if namespaces is nil
	namespaces labels.Selector
	pods       labels.Selector
}

func newPeerSelector(namespace string, p networkingv1.NetworkPolicyPeer) (peerSelector, bool) {
	s := peerSelector{namespace: namespace, pods: labels.Everything()}
	var err error
	if p.PodSelector != nil {
		if s.pods, err = metav1.LabelSelectorAsSelector(p.PodSelector); err != nil {
			return s, false
		}
	}
	if p.NamespaceSelector != nil {
		s.namespace = ""
		if s.namespaces, err = metav1.LabelSelectorAsSelector(p.NamespaceSelector); err != nil {
			return s, false
		}
	}
	return s, p.PodSelector != nil || p.NamespaceSelector != nil
}

// key is the same for selectors that select the same by the same words.
func (s peerSelector) key() string {
	if s.namespaces == nil {
		return "namespace " + s.namespace + " pods " + s.pods.String()
	}
	return "namespaces " + s.namespaces.String() + " pods " + s.pods.String()
}

func (c *compiler) selectPods(selectors []peerSelector) *Set {
	set := &Set{Kind: Addresses, Elements: map[string]bool{}}
	add := func(s peerSelector, pods []*Pod) {
		for _, p := range pods {
			if s.pods.Matches(labels.Set(p.Labels)) {
				for _, a := range p.Addresses {
					set.Elements[a.String()] = true
				}
			}
		}
	}
	for _, s := range selectors {
		if s.namespaces == nil {
			add(s, c.byNS[s.namespace])
			continue
		}
		for ns, l := range c.in.Namespaces {
			if s.namespaces.Matches(labels.Set(l)) {
				add(s, c.byNS[ns])
			}
		}
	}
	return set
}

// ports returns matches for any of the ports: one a protocol for the numbered ones, one for each name.
func (c *compiler) ports(ports []networkingv1.NetworkPolicyPort) []string {
	numbers := map[corev1.Protocol][]portRange{}
	whole := map[corev1.Protocol]bool{}
	matches := map[string]bool{}
	for _, p := range ports {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if nftProtocol(protocol) == "" {
			continue
		}
		switch {
		case p.Port == nil:
			whole[protocol] = true
		case p.Port.StrVal != "":
			matches["ip daddr . meta l4proto . th dport @"+c.namedPort(p.Port.StrVal, protocol)] = true
		default:
			r := portRange{p.Port.IntVal, p.Port.IntVal}
			if p.EndPort != nil && *p.EndPort >= r.first {
				r.last = *p.EndPort
			}
			numbers[protocol] = append(numbers[protocol], r)
		}
	}
	for protocol := range whole {
		matches["meta l4proto "+nftProtocol(protocol)] = true
	}
	for protocol, ranges := range numbers {
		if !whole[protocol] {
			matches[nftProtocol(protocol)+" dport "+portMatch(ranges)] = true
		}
	}
	return sortedKeys(matches)
}

// namedPort returns the name of the set that holds where each pod has the port. It is one set for the whole cluster:
// whether the destination is a pod the policy speaks of is asked by the rest of the rule.
func (c *compiler) namedPort(port string, protocol corev1.Protocol) string {
	key := port + " " + string(protocol)
	if name, ok := c.named[key]; ok {
		return name
	}
	name := c.name("port", key)
	c.named[key] = name
	set := &Set{Kind: Ports, Elements: map[string]bool{}}
	for i := range c.in.Pods {
		p := &c.in.Pods[i]
		for _, have := range p.Ports {
			if have.Name != port || have.Protocol != protocol {
				continue
			}
			for _, a := range p.Addresses {
				set.Elements[fmt.Sprintf("%s . %s . %d", a, nftProtocol(protocol), have.Port)] = true
			}
		}
	}
	c.out.Sets[name] = set
	return name
}

func nftProtocol(p corev1.Protocol) string {
	switch p {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		return strings.ToLower(string(p))
	}
	return ""
}

// name is kind, epoch and a digest of what the object is.
func (c *compiler) name(kind, content string) string {
	sum := sha256.Sum256([]byte(content))
	return kind + "-" + c.in.Epoch + "-" + hex.EncodeToString(sum[:10])
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
