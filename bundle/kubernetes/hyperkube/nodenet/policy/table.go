package policy

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// The fixed objects of the table.
const (
	ingressMap = "ingress"
	egressMap  = "egress"
	// selfSet has every isolated address twice: a pod always reaches itself, through a Service too.
	selfSet = "self"
)

// unasked is the traffic that passes whatever the policies say, by direction and not by state: every packet of a
// connection's original direction is asked again, so that a changed policy ends connections that stand. ICMP errors
// about a connection pass both ways, or paths with a smaller MTU would go dark.
var unasked = []string{
	"ct direction reply ct state established,related return",
	"meta l4proto icmp ct state related return",
}

// baseChains adds the chains that packets enter, in place of what they held. Forward is what pods exchange with others,
// after kube-proxy's dnat, so rules see pods and never Services. Input is what pods send to the node. What the node
// sends to its own pods, probes for one, passes by: Kubernetes wants that.
func baseChains(tx *knftables.Transaction) {
	for _, c := range []struct {
		name  string
		hook  knftables.BaseChainHook
		rules []string
	}{
		{"forward", knftables.ForwardHook, []string{
			"ip saddr . ip daddr @" + selfSet + " return",
			"ip saddr vmap @" + egressMap,
			"ip daddr vmap @" + ingressMap,
		}},
		{"input", knftables.InputHook, []string{"ip saddr vmap @" + egressMap}},
	} {
		tx.Add(&knftables.Chain{
			Name: c.name, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(c.hook),
			Priority: knftables.PtrTo(knftables.FilterPriority),
		})
		tx.Flush(&knftables.Chain{Name: c.name})
		for _, r := range slices.Concat(unasked, c.rules) {
			tx.Add(&knftables.Rule{Chain: c.name, Rule: r})
		}
	}
}

func declare(name string, kind SetKind) *knftables.Set {
	switch kind {
	case Ranges:
		return &knftables.Set{Name: name, Type: "ipv4_addr", Flags: []knftables.SetFlag{knftables.IntervalFlag}}
	case Ports:
		return &knftables.Set{Name: name, Type: "ipv4_addr . inet_proto . inet_service"}
	}
	return &knftables.Set{Name: name, Type: "ipv4_addr"}
}

func element(set, e string) *knftables.Element {
	return &knftables.Element{Set: set, Key: strings.Split(e, " . ")}
}

func selfElement(a netip.Addr) *knftables.Element {
	return &knftables.Element{Set: selfSet, Key: []string{a.String(), a.String()}}
}

// isolated is the addresses that either map has.
func isolated(r *Rules) map[netip.Addr]string {
	all := maps.Clone(r.Ingress)
	maps.Copy(all, r.Egress)
	return all
}

func sortedAddrs(m map[netip.Addr]string) []netip.Addr {
	return slices.SortedFunc(maps.Keys(m), netip.Addr.Compare)
}
