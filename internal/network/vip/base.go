package vip

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/network"
)

// tables are the fixed part of the rules: tables, sets and base chains of one layout.
type tables struct {
	ip, bridge *nftables.Table
	sets       map[string]*nftables.Set
	chains     []chain
}

// chain is a base chain with its rules.
type chain struct {
	*nftables.Chain
	rules []match
}

// The sets, by name. frontends, backends and networks are maps. The names "doors" and "held" are those of tables that
// earlier versions left in the kernel.
const (
	frontends = "doors"
	backends  = "backends"
	refused   = "refused" // frontends without backends
	self      = "self"    // an instance's address twice: an instance that calls itself through a frontend
	open      = "open"    // protocol and port on the machine that instances may call
	bound     = "held"    // protocol and port on the machine that are only reserved: no process answers
	links     = "links"   // links of the bridge
	senders   = "senders" // link and the address it may send from

	networks = "networks" // a map: a group's address to the number of its named network
	members  = "members"  // number and the address of an instance that is in it
	inner    = "inner"    // protocol and host port of an instance in a named network
	insiders = "insiders" // number, and protocol and host port of a group that is in it
)

var setNames = []string{frontends, backends, refused, self, open, bound, links, senders, networks, members, inner,
	insiders}

// tablesOf returns the two tables of an instance.
func tablesOf(id string) (ip, bridge *nftables.Table) {
	name := "marina_" + id
	return &nftables.Table{Family: nftables.TableFamilyIPv4, Name: name},
		&nftables.Table{Family: nftables.TableFamilyBridge, Name: name}
}

func newTables(l network.Layout) *tables {
	t := &tables{sets: map[string]*nftables.Set{}}
	t.ip, t.bridge = tablesOf(l.ID)

	addr, proto, port := nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService
	t.addSet(t.ip, frontends, nftables.MustConcatSetType(addr, proto, port)).mapTo(nftables.TypeVerdict)
	numbered := nftables.MustConcatSetType(addr, proto, port, nftables.TypeMark)
	t.addSet(t.ip, backends, numbered).mapTo(nftables.MustConcatSetType(addr, port))
	t.addSet(t.ip, refused, nftables.MustConcatSetType(addr, proto, port))
	t.addSet(t.ip, self, nftables.MustConcatSetType(addr, addr))
	t.addSet(t.ip, open, nftables.MustConcatSetType(proto, port))
	t.addSet(t.ip, bound, nftables.MustConcatSetType(proto, port))
	t.addSet(t.ip, networks, addr).mapTo(nftables.TypeMark)
	t.addSet(t.ip, members, nftables.MustConcatSetType(nftables.TypeMark, addr))
	t.addSet(t.ip, inner, nftables.MustConcatSetType(proto, port))
	t.addSet(t.ip, insiders, nftables.MustConcatSetType(nftables.TypeMark, proto, port))
	t.addSet(t.bridge, links, nftables.TypeIFName)
	t.addSet(t.bridge, senders, nftables.MustConcatSetType(nftables.TypeIFName, addr))

	t.entry(l)
	t.redirection(l)
	t.filter(l)
	t.spoofing(l)
	return t
}

type set struct{ *nftables.Set }

func (t *tables) addSet(table *nftables.Table, name string, k nftables.SetDatatype) set {
	s := &nftables.Set{Table: table, Name: name, KeyType: k, ID: uint32(len(t.sets) + 1)}
	t.sets[name] = s
	return set{s}
}

func (s set) mapTo(v nftables.SetDatatype) { s.IsMap, s.DataType = true, v }

func (t *tables) addChain(table *nftables.Table, name string, kind nftables.ChainType, hook *nftables.ChainHook,
	priority int32, rules ...match) {
	t.chains = append(t.chains, chain{&nftables.Chain{Table: table, Name: name, Type: kind, Hooknum: hook,
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority)), Policy: new(nftables.ChainPolicyAccept)},
		rules})
}

// linkLocal has the metadata service of clouds, 169.254.169.254, which gives out the machine's credentials. Groups
// may not call it.
var linkLocal = network.Prefix("169.254.0.0/16")

// entry refuses, before any redirection, packets that may not come in at all and connections to frontends without
// backends.
func (t *tables) entry(l network.Layout) {
	loopback := network.Prefix("127.0.0.0/8")
	in1 := []match{
		rule(from(l.Bridge), daddr(loopback), drop()),
		rule(from(l.Bridge), saddr(loopback), drop()),
		rule(notFrom(l.Bridge), notFrom("lo"), saddr(l.Subnet), drop()),
	}
	in1 = append(in1, refuse(from(l.Bridge), daddr(linkLocal))...)
	in1 = append(in1, refuse(from(l.Bridge), fresh(), frontend(noAddr), in(t.sets[refused]))...)
	// Host ports of a named network's instance are not for instances of other named networks.
	hostPort := rule(from(l.Bridge), fresh(), notDaddr(l.VIPs), own())
	in1 = append(in1, rule(hostPort, t.network(source), insider(), in(t.sets[insiders]), leave()))
	in1 = append(in1, refuse(hostPort, t.network(source), service(), in(t.sets[inner]))...)
	t.addChain(t.ip, "entry", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, before, in1...)

	// The kernel would tell an instance that another one is its neighbour and needs no gateway; they are kept apart.
	out := []match{rule(to(l.Bridge), icmp(icmpRedirect), drop())}
	out = append(out, refuse(fresh(), frontend(noAddr), in(t.sets[refused]))...)
	t.addChain(t.ip, "leaving", nftables.ChainTypeFilter, nftables.ChainHookOutput, before, out...)
}

// redirection sends packets for frontends to backends, those of the machine itself included, and chooses under which
// address packets leave.
func (t *tables) redirection(l network.Layout) {
	loopback := network.Prefix("127.0.0.0/8")
	redirect := mapped(t.sets[frontends], unix.NFT_REG_VERDICT)
	called, ownPort := rule(frontend(noAddr), redirect), rule(own(), frontend(network.Anywhere), redirect)
	group, any := rule(from(l.Bridge), called), rule(notFrom("lo"), notDaddr(l.VIPs), ownPort)
	// Each rule stands twice: before Linux 6.17 a lookup can miss an element that a transaction just replaces.
	t.addChain(t.ip, "redirect", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100, group, group, any, any)
	local := rule(notDaddr(l.VIPs), notDaddr(loopback), ownPort)
	t.addChain(t.ip, "redirect_own", nftables.ChainTypeNAT, nftables.ChainHookOutput, -100, called, called, local, local)
	t.addChain(t.ip, "disguise", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100,
		rule(to(l.Bridge), match{field(source, key), field(destination, key+1)}, in(t.sets[self]), masquerade()),
		rule(to(l.Bridge), saddr(loopback), masquerade()),
		rule(to(l.Bridge), saddr(l.VIPs), masquerade()),
		rule(to(l.Bridge), leave()),
		rule(to("lo"), leave()),
		rule(saddr(l.Pool), daddr(l.Pool), leave()),
		rule(saddr(l.Subnet), masquerade()))
}

// filter decides which packets reach the machine itself and the instances.
func (t *tables) filter(l network.Layout) {
	gateway := network.Single(l.Gateway)
	input := refuse(daddr(l.VIPs))
	input = append(input, refuse(fresh(), direct(), own(), service(), in(t.sets[bound]))...)
	input = append(input,
		rule(notFrom(l.Bridge), notFrom("lo"), daddr(gateway), known(), accept()),
		rule(notFrom(l.Bridge), notFrom("lo"), daddr(gateway), drop()),
		rule(notFrom(l.Bridge), leave()),
		rule(known(), accept()),
		rule(redirected(), accept()),
		rule(daddr(gateway), protocol(unix.IPPROTO_UDP), dport(53), accept()),
		rule(daddr(gateway), protocol(unix.IPPROTO_TCP), dport(53), accept()),
		rule(icmp(icmpEcho), accept()),
		rule(service(), in(t.sets[open]), accept()))
	input = append(input, refuse()...)
	t.addChain(t.ip, "input", nftables.ChainTypeFilter, nftables.ChainHookInput, 0, input...)
	// Redirected connections and replies pass. Between addresses of the pool networks are compared, without the connection
	// tracking, which knows nothing of packets that it finds invalid.
	between := rule(saddr(l.Pool), daddr(l.Pool))
	forward := []match{
		rule(from(l.Bridge), known(), accept()),
		rule(to(l.Bridge), known(), accept()),
		rule(from(l.Bridge), redirected(), accept()),
		rule(to(l.Bridge), redirected(), accept()),
		rule(between, t.network(source), match{field(destination, key+1)}, in(t.sets[members]), accept()),
	}
	forward = append(forward, refuse(between, t.network(source))...)
	forward = append(forward, refuse(between, t.network(destination))...)
	forward = append(forward,
		rule(from(l.Bridge), accept()),
		rule(to(l.Bridge), saddr(l.Pool), accept()),
		rule(to(l.Bridge), drop()))
	t.addChain(t.ip, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, forward...)
}

// network matches if the address is in a named network, and loads that one's number.
func (t *tables) network(offset uint32) match {
	return append(match{field(offset, key)}, mapped(t.sets[networks], key)...)
}

// spoofing lets each link of the bridge send from its own address and to the gateway only: IPv4, and ARP about the
// gateway. So all that an instance sends passes the rules of the other table, whatever its destination.
func (t *tables) spoofing(l network.Layout) {
	name := match{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: key}}
	ether := func(kind uint16) match {
		return match{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: key},
			equal(expr.CmpOpEq, binaryutil.BigEndian.PutUint16(kind))}
	}
	sender := func(offset uint32) match { return append(name[:1:1], field(offset, key+4)) }
	toBridge := match{&expr.Payload{DestRegister: key, Base: expr.PayloadBaseLLHeader, Len: 6},
		equal(expr.CmpOpEq, l.MAC())}
	aboutGateway := address(arpTarget, expr.CmpOpEq, network.Single(l.Gateway))
	t.addChain(t.bridge, "spoofing", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300,
		rule(name, notIn(t.sets[links]), accept()),
		rule(ether(unix.ETH_P_IP), toBridge, sender(source), in(t.sets[senders]), accept()),
		rule(ether(unix.ETH_P_ARP), aboutGateway, sender(arpSender), in(t.sets[senders]), accept()),
		rule(drop()))
}

const (
	before       = -110 // just before redirection
	icmpRedirect = 5
	icmpEcho     = 8
)

// balancer returns the chain of a name, for frontends with n backends: "vip_n" looks the backend up by the address
// called, "own_n" by Anywhere.
func (t *tables) balancer(name string) (*nftables.Chain, []match) {
	kind, num, _ := strings.Cut(name, "_")
	n, _ := strconv.ParseUint(num, 10, 32)
	addr := noAddr
	if kind == "own" {
		addr = network.Anywhere
	}
	number := match{&expr.Numgen{Register: key + 3, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM}}
	zero := match{&expr.Immediate{Register: key + 3, Data: make([]byte, 4)}}
	redirect := append(mapped(t.sets[backends], found),
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: found, RegProtoMin: found + 1,
			Specified: true})
	return &nftables.Chain{Table: t.ip, Name: name},
		[]match{rule(frontend(addr), number, redirect), rule(frontend(addr), zero, redirect)}
}

// stamp returns the name of a chain without rules by which later processes recognize exactly these rules.
func (t *tables) stamp() string {
	h := sha256.New()
	for _, c := range t.chains {
		fmt.Fprintf(h, "%s %s %d %d\n", c.Name, c.Type, *c.Hooknum, *c.Priority)
		for _, r := range c.rules {
			for _, e := range r {
				b, err := expr.Marshal(byte(c.Table.Family), e)
				fmt.Fprintf(h, "%x %v\n", b, err)
			}
		}
	}
	_, balancers := t.balancer("vip_2")
	fmt.Fprintf(h, "%d %v", len(balancers), setNames)
	return "stamp_" + hex.EncodeToString(h.Sum(nil)[:8])
}
