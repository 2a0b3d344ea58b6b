package kubernetes

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// publishedPorts are the machines' ports that load balancers are published on, unless Config says otherwise: those
// behind Marathon's service ports.
var publishedPorts = kernel.PortRange{First: 20001, Last: 21000}

// balancer is a Service of type LoadBalancer with what was made for it.
type balancer struct {
	wire.BalancerRequest
	ingress   []netip.Addr
	dns       string
	published map[string]string // by port
	message   string
}

// vipName is a Service's name among VIPs, less the framework's: "web.default.team-a".
func (c *cluster) vipName(b *wire.BalancerRequest) string {
	return b.Name + "." + b.Namespace + "." + c.Name
}

func portKey(b *wire.BalancerRequest, protocol string, port uint16) string {
	return b.Namespace + "/" + b.Name + "/" + strings.ToLower(protocol) + "/" + strconv.Itoa(int(port))
}

// served reports whether a protocol can be led to a node.
func served(protocol string) bool { return protocol == "TCP" || protocol == "UDP" }

// balancers lists the cluster's load balancers with what was exposed for them.
func (c *cluster) balancers() []balancer {
	if c.told == nil {
		return nil
	}
	var out []balancer
	for _, b := range c.told.LoadBalancers {
		x := balancer{BalancerRequest: b, published: map[string]string{}}
		name := c.vipName(&b) + "." + Framework
		for _, e := range c.exposed {
			for _, v := range e.VIPs {
				if v.Name == name && !slices.Contains(x.ingress, v.Addr) {
					x.ingress = append(x.ingress, v.Addr)
					x.dns = name + ".l4lb.thisdcos.directory"
				}
			}
		}
		for _, p := range b.Ports {
			key := portKey(&b, p.Protocol, p.Port)
			if at := c.Published[key]; at != 0 && c.refused[key] == "" && c.machine != "" {
				x.published[strconv.Itoa(int(p.Port))] = c.machine + ":" + strconv.Itoa(int(at))
			}
			if why := c.refused[key]; why != "" {
				x.message = why
			}
			if !served(p.Protocol) {
				x.message = fmt.Sprintf("%s port %d: only TCP and UDP are led to nodes", p.Protocol, p.Port)
			}
		}
		out = append(out, x)
	}
	return out
}

// ports is what the nodes of a cluster are to expose for its load balancers, with the machines' ports that published
// names.
func (c *cluster) ports(published map[string]uint16) []kernel.Port {
	var out []kernel.Port
	if c.told == nil || !c.Deleted.IsZero() {
		return nil
	}
	for k := range c.told.LoadBalancers {
		b := &c.told.LoadBalancers[k]
		for _, p := range b.Ports {
			if p.NodePort == 0 || !served(p.Protocol) || len(out) == kernel.MaxExposed {
				continue
			}
			at := published[portKey(b, p.Protocol, p.Port)]
			out = append(out, kernel.Port{Name: p.Name, Protocol: strings.ToLower(p.Protocol), Container: p.NodePort,
				Service: at, Publish: at != 0,
				VIPs: []kernel.VIP{{Name: c.vipName(b), Port: p.Port}}})
		}
	}
	return out
}

// publish gives every port of a load balancer one of the machines' in a range, keeping those it has; all tells
// everybody's. The second result says which ports found none.
func (c *cluster) publish(all func() map[uint16]bool, of kernel.PortRange) (map[string]uint16, map[string]string) {
	out, refused := map[string]uint16{}, map[string]string{}
	var taken map[uint16]bool
	if c.told == nil {
		return maps.Clone(c.Published), refused
	}
	for k := range c.told.LoadBalancers {
		b := &c.told.LoadBalancers[k]
		for _, p := range b.Ports {
			key := portKey(b, p.Protocol, p.Port)
			if at := c.Published[key]; at != 0 {
				out[key] = at
				continue
			}
			if !served(p.Protocol) {
				continue
			}
			if taken == nil {
				taken = all()
			}
			at := of.First
			for at <= of.Last && taken[at] {
				at++
			}
			if at > of.Last {
				refused[key] = fmt.Sprintf("all ports from %d to %d of the machines are taken", of.First, of.Last)
				continue
			}
			taken[at] = true
			out[key] = at
		}
	}
	return out, refused
}
