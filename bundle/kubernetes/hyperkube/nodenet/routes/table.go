package routes

import (
	"context"
	"fmt"
	"net/netip"

	"sigs.k8s.io/knftables"
)

// Table is the name of the table, of family ip, that holds the node's own rules.
const Table = "marina_node"

const nodesSet = "nodes"

// writeTable puts the node's rules in place of what the table held, in one transaction.
func writeTable(ctx context.Context, nft knftables.Interface, cluster, services netip.Prefix, device string, peers []peer) error {
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("pods and the outside")})
	tx.Add(&knftables.Set{Name: nodesSet, Type: "ipv4_addr"})
	tx.Flush(&knftables.Set{Name: nodesSet})
	for _, p := range peers {
		tx.Add(&knftables.Element{Set: nodesSet, Key: []string{p.node.String()}})
	}
	out := fmt.Sprintf("oifname %q", device)
	in := fmt.Sprintf("iifname %q", device)
	for _, c := range []struct {
		name     string
		kind     knftables.BaseChainType
		hook     knftables.BaseChainHook
		priority knftables.BaseChainPriority
		rules    []string
	}{
		// Before anything is rewritten: nobody outside speaks to pods or Services directly, or as a pod; and only the
		// cluster's nodes bring packets of its overlay.
		{"arrive", knftables.FilterType, knftables.PreroutingHook, knftables.RawPriority, []string{
			fmt.Sprintf("%s ip saddr %s drop", in, cluster),
			fmt.Sprintf("%s ip daddr { %s, %s } drop", in, cluster, services),
			fmt.Sprintf("%s udp dport %d ip saddr != @%s drop", in, Port, nodesSet),
		}},
		// A pod would otherwise bring packets of its own making into the overlay, under the node's address.
		{"forward", knftables.FilterType, knftables.ForwardHook, knftables.FilterPriority, []string{
			fmt.Sprintf("%s ip saddr %s udp dport %d drop", out, cluster, Port),
		}},
		{"leave", knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority, []string{
			fmt.Sprintf("%s ip saddr %s ip daddr != %s masquerade fully-random", out, cluster, cluster),
		}},
		// What conntrack takes for no connection's packet is not masqueraded.
		{"left", knftables.FilterType, knftables.PostroutingHook, knftables.SNATPriority + "+50", []string{
			fmt.Sprintf("%s ip saddr %s drop", out, cluster),
		}},
	} {
		tx.Add(&knftables.Chain{
			Name: c.name, Type: knftables.PtrTo(c.kind), Hook: knftables.PtrTo(c.hook), Priority: knftables.PtrTo(c.priority),
		})
		tx.Flush(&knftables.Chain{Name: c.name})
		for _, r := range c.rules {
			tx.Add(&knftables.Rule{Chain: c.name, Rule: r})
		}
	}
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("table %s: %w", Table, err)
	}
	return nil
}

// writeNodes changes only whose overlay packets are taken.
func writeNodes(ctx context.Context, nft knftables.Interface, peers []peer) error {
	tx := nft.NewTransaction()
	tx.Flush(&knftables.Set{Name: nodesSet})
	for _, p := range peers {
		tx.Add(&knftables.Element{Set: nodesSet, Key: []string{p.node.String()}})
	}
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("table %s: %w", Table, err)
	}
	return nil
}
