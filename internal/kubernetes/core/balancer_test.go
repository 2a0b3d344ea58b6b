package core

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/definition"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// clusterOf is a new cluster with so many nodes.
func clusterOf(name string, nodes int) *Cluster {
	d, err := Definition{Name: name, Nodes: definition.Nodes{Count: new(nodes)}, Privileged: new(true)}.Complete()
	if err != nil {
		panic(err)
	}
	return New(Row{Definition: d, ID: "id-" + name, VNI: firstVNI}, nil)
}

// telling is a cluster whose steward tells of load balancers.
func telling(name string, list ...wire.BalancerRequest) *Cluster {
	c := clusterOf(name, 1)
	c.steward.told, c.machine = &wire.Status{LoadBalancers: list}, "192.0.2.1"
	return c
}

func asks(name string, ports ...wire.BalancerPort) wire.BalancerRequest {
	return wire.BalancerRequest{Namespace: "default", Name: name, Ports: ports}
}

func tcp(port uint16) wire.BalancerPort {
	return wire.BalancerPort{Protocol: "TCP", Port: port, NodePort: 30000 + port}
}

func TestPortsOfMachinesAreGivenOnceAndKept(t *testing.T) {
	few := kernel.PortRange{First: 20001, Last: 20003}
	a := telling("a", asks("web", tcp(80), tcp(443)))
	b := telling("b", asks("api", tcp(80), wire.BalancerPort{Protocol: "SCTP", Port: 9, NodePort: 30009}),
		asks("late", tcp(81)))
	s := NewState(few)
	s.Put(a)
	s.Put(b)
	give := func(c *Cluster) map[string]string {
		published, refused := publish(c.steward.told.LoadBalancers, c.Published, s.published, few)
		c.Published = published
		return refused
	}
	if refused := give(a); len(refused) != 0 {
		t.Errorf("a: refused %v", refused)
	}
	want := map[string]uint16{"default/web/tcp/80": 20001, "default/web/tcp/443": 20002}
	if !maps.Equal(a.Published, want) {
		t.Errorf("a: got %v, want %v", a.Published, want)
	}
	refused := give(b)
	if want := map[string]uint16{"default/api/tcp/80": 20003}; !maps.Equal(b.Published, want) {
		t.Errorf("b: got %v, want %v", b.Published, want)
	}
	if why := refused["default/late/tcp/81"]; len(refused) != 1 || !strings.Contains(why, "20001 to 20003") {
		t.Errorf("b: refused %v, want the last one alone, with the range", refused)
	}
	a.steward.told.LoadBalancers = []wire.BalancerRequest{asks("web", tcp(443))} // a port is given back, the other kept
	give(a)
	if want := map[string]uint16{"default/web/tcp/443": 20002}; !maps.Equal(a.Published, want) {
		t.Errorf("a, with one port less: got %v, want %v", a.Published, want)
	}
	if refused := give(b); len(refused) != 0 || b.Published["default/late/tcp/81"] != 20001 {
		t.Errorf("b, with room: got %v, refused %v", b.Published, refused)
	}
	b.steward.told = nil // it has yet to say anything
	if d := s.Decide(b, time.Time{}); d.Exposure != nil {
		t.Errorf("b, unheard of: got %+v, want that it keeps what it had", d.Exposure)
	}
}

func TestNodesExposeWhatLoadBalancersAskFor(t *testing.T) {
	c := telling("a", asks("web", tcp(80), wire.BalancerPort{Protocol: "UDP", Port: 53, NodePort: 30053},
		wire.BalancerPort{Protocol: "SCTP", Port: 9, NodePort: 30009}, wire.BalancerPort{Protocol: "TCP", Port: 81}))
	got := ports("a", c.steward.told.LoadBalancers, map[string]uint16{"default/web/tcp/80": 20001})
	if len(got) != 2 {
		t.Fatalf("got %+v, want TCP and UDP with node ports", got)
	}
	web, dns := got[0], got[1]
	if web.Protocol != "tcp" || web.Container != 30080 || web.Service != 20001 || !web.Publish ||
		len(web.VIPs) != 1 || web.VIPs[0] != (kernel.VIP{Name: "web.default.a", Port: 80}) {
		t.Errorf("web: got %+v", web)
	}
	if dns.Protocol != "udp" || dns.Publish || dns.VIPs[0].Port != 53 {
		t.Errorf("dns, without a port of the machines: got %+v", dns)
	}
	for n := range kernel.MaxExposed + 10 {
		c.steward.told.LoadBalancers = append(c.steward.told.LoadBalancers, asks(fmt.Sprintf("more-%d", n), tcp(80)))
	}
	if got := ports("a", c.steward.told.LoadBalancers, nil); len(got) != kernel.MaxExposed {
		t.Errorf("of many: got %d, want the kernel's limit of %d", len(got), kernel.MaxExposed)
	}
}

func TestAServiceIsToldWhereItIsReachedAndWhyNot(t *testing.T) {
	c := telling("a", asks("web", tcp(80), tcp(81), wire.BalancerPort{Protocol: "SCTP", Port: 9, NodePort: 30009}),
		asks("new", tcp(1)))
	vip := netip.MustParseAddr("198.18.0.7")
	c.exposed.ports = []kernel.EndpointPort{{VIPs: []kernel.EndpointVIP{{Name: "web.default.a.kubernetes", Addr: vip, Port: 80},
		{Name: "web.default.a.kubernetes", Addr: vip, Port: 81}}}}
	c.Published = map[string]uint16{"default/web/tcp/80": 20001, "default/web/tcp/81": 20002}
	c.exposed.refused["default/web/tcp/81"] = "somebody else has it"
	list := c.balancers()
	web, fresh := list[0], list[1]
	if !slices.Equal(web.ingress, []netip.Addr{vip}) || web.dns != "web.default.a.kubernetes.l4lb.thisdcos.directory" {
		t.Errorf("web: got %v, %s, want one address and its name", web.ingress, web.dns)
	}
	if want := map[string]string{"80": "192.0.2.1:20001"}; !maps.Equal(web.published, want) {
		t.Errorf("web: published %v, want %v: the other is refused", web.published, want)
	}
	if !strings.Contains(web.message, "SCTP port 9") {
		t.Errorf("web: says %q, want what is not served", web.message)
	}
	if len(fresh.ingress) != 0 || fresh.message != "" {
		t.Errorf("new: got %+v, want nothing yet", fresh)
	}
	desired := c.Desired()
	if len(desired.LoadBalancers) != 1 || desired.LoadBalancers[0].Name != "web" || len(desired.Nodes) != 1 {
		t.Errorf("desired: got %+v, want web alone and one node", desired)
	}
}
