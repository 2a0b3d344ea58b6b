package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
)

// Preflight finds chains of others that would drop instances' packets. It changes nothing. The bridge need not exist
// yet.
func Preflight(ctx context.Context, bridge string) ([]kernel.Finding, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("nftables chains: %w", err)
	}
	docker := false
	for _, x := range chains {
		docker = docker || x.Name == "DOCKER-USER"
	}
	var out []kernel.Finding
	for _, x := range chains {
		if x.Hooknum == nil || x.Policy == nil || *x.Policy != nftables.ChainPolicyDrop ||
			strings.HasPrefix(x.Table.Name, "marina_") ||
			x.Type != nftables.ChainTypeFilter || (x.Table.Family != nftables.TableFamilyIPv4 &&
			x.Table.Family != nftables.TableFamilyINet) {
			continue
		}
		family := "ip"
		if x.Table.Family == nftables.TableFamilyINet {
			family = "inet"
		}
		where := family + " " + x.Table.Name
		f := kernel.Finding{Severity: kernel.Warning,
			What: fmt.Sprintf("nftables chain %s of table %s drops what it does not know", x.Name, where)}
		switch *x.Hooknum {
		case *nftables.ChainHookForward:
			f.Do = forwardRules(where, x.Name, bridge, docker)
		case *nftables.ChainHookInput:
			f.Do = fmt.Sprintf("nft insert rule %s %s iifname %q accept", where, x.Name, bridge)
		default:
			continue
		}
		out = append(out, f)
	}
	return append(out, preflightLegacy(ctx, bridge)...), nil
}

func forwardRules(where, chain, bridge string, docker bool) string {
	if where == "ip filter" && chain == "FORWARD" && docker { // Docker rewrites FORWARD and leaves this one to people
		chain = "DOCKER-USER"
	}
	return fmt.Sprintf("nft insert rule %s %s iifname %q accept; nft insert rule %s %s oifname %q accept", where, chain,
		bridge, where, chain, bridge)
}

// preflightLegacy does the same for legacy iptables, whose rules nftables does not show.
func preflightLegacy(ctx context.Context, bridge string) []kernel.Finding {
	if b, err := os.ReadFile("/proc/net/ip_tables_names"); err != nil || !strings.Contains(string(b), "filter") {
		return nil
	}
	tool, err := exec.LookPath("iptables-legacy")
	if err != nil {
		return nil
	}
	var out []kernel.Finding
	for chain, flags := range map[string][]string{"FORWARD": {"-i", "-o"}, "INPUT": {"-i"}} {
		b, err := exec.CommandContext(ctx, tool, "-S", chain).Output()
		if err != nil || !strings.Contains(string(b), "-P "+chain+" DROP") {
			continue
		}
		var do []string
		for _, f := range flags {
			do = append(do, fmt.Sprintf("%s -I %s %s %s -j ACCEPT", tool, chain, f, bridge))
		}
		out = append(out, kernel.Finding{Severity: kernel.Warning,
			What: fmt.Sprintf("iptables (legacy) chain %s drops what it does not know", chain), Do: strings.Join(do, "; ")})
	}
	return out
}

// CheckConflicts returns an errdefs.ErrAlreadyExists that names the first route or address of this machine, another
// datacenter's included, that overlaps the pool or the VIPs. Those of the bridge and the default route do not count.
func CheckConflicts(bridge string, pool, vips netip.Prefix) error {
	ours := map[string]netip.Prefix{"the pool": pool, "the VIPs": vips}
	names := map[int]string{}
	links, err := CompleteList(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("links of the machine: %w", err)
	}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("addresses of the machine: %w", err)
	}
	own := map[string]bool{} // addresses of the bridge
	for _, a := range addrs {
		if names[a.LinkIndex] == bridge {
			own[a.IP.String()] = true
			continue
		}
		for what, p := range ours {
			if x := prefixOf(a.IPNet); p.Overlaps(x.Masked()) {
				return fmt.Errorf("%s, %s, overlap with address %s of %s; choose another range: %w", what, p, x,
					names[a.LinkIndex], errdefs.ErrAlreadyExists)
			}
		}
	}
	for _, table := range []int{unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL} {
		routes, err := CompleteList(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return fmt.Errorf("routes of the machine: %w", err)
		}
		for _, r := range routes {
			dst := prefixOf(r.Dst)
			if !dst.IsValid() || dst.Bits() == 0 || names[r.LinkIndex] == bridge ||
				r.Protocol == routeProtocol && own[r.Src.String()] {
				continue
			}
			for what, p := range ours {
				if p.Overlaps(dst) {
					return fmt.Errorf("%s, %s, overlap with the route to %s by %s; choose another range: %w",
						what, p, dst, cmp.Or(names[r.LinkIndex], "no link"), errdefs.ErrAlreadyExists)
				}
			}
		}
	}
	return nil
}

// machineReady reports whether bridge and route are there.
func machineReady(l Layout) bool {
	br, err := netlink.LinkByName(l.Bridge)
	if err != nil || br.Attrs().Flags&unix.IFF_UP == 0 {
		return false
	}
	routes, err := CompleteList(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: ipNet(l.VIPs)},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	})
	return err == nil && len(routes) > 0
}

// Cleanup removes everything a datacenter has on the machine: namespaces, links, bridge, route, rules, changed
// settings and its directories. It needs no Configure before, and can be repeated.
func (n *Network) Cleanup(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := Layout{Bridge: BridgeName(n.cfg.ID)}
	if err := readJSON(filepath.Join(n.root, "layout.json"), &l); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Error("layout is lost; the route to VIPs may stay", "err", err)
	}
	for p, h := range n.ports {
		n.ports.release(p, h.owner)
	}
	errs := []error{n.rules.Remove(n.cfg.ID)}
	for _, r := range n.records {
		if r.Link != "" {
			errs = append(errs, deleteLink(r.Link))
		}
	}
	dir := filepath.Join(n.cfg.State, "netns")
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		errs = append(errs, dropMount(filepath.Join(dir, e.Name())))
	}
	errs = append(errs, removeBridge(l), n.restoreSysctls(l.Bridge))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	clear(n.records)
	n.layout, n.table, n.endpoints, n.applied = Layout{}, newTable(), nil, false
	n.behind = false
	clear(n.pending)
	clear(n.blocked)
	return errors.Join(os.RemoveAll(n.root), os.RemoveAll(dir))
}

// restoreSysctls restores the machine's settings, unless another datacenter on it needs them.
func (n *Network) restoreSysctls(bridge string) error {
	if other := Neighbour(bridge); other != "" {
		n.log.Info("settings of the machine stay, another datacenter needs them", "bridge", other)
		return nil
	}
	return n.sysctls().Restore()
}
