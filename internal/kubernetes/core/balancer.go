package core

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// exposed keeps what the kernel was asked to expose for a cluster's load balancers under this leader.
type exposed struct {
	asked   *[]kernel.Port // last; nil: nothing yet
	ports   []kernel.EndpointPort
	refused map[string]string // why a load balancer's port is not published, by its key
}

// Exposure says what a cluster's load balancers should have, and what is to be done for it.
type Exposure struct {
	Published map[string]uint16 // ports of the machines, as the row should say
	Ports     []kernel.Port     // that the nodes should expose
	Save      bool              // the row says otherwise: it is written first
	Expose    bool              // the kernel was asked for something else last, or refused
	refused   map[string]string // ports for which there is none of the machines'
}

// balancer is a Service of type LoadBalancer with what was made for it.
type balancer struct {
	wire.BalancerRequest
	ingress   []netip.Addr
	dns       string
	published map[string]string // by port
	message   string
}

// vipName is a Service's name among VIPs, less the framework's: "web.default.team-a".
func vipName(cluster string, b *wire.BalancerRequest) string {
	return b.Name + "." + b.Namespace + "." + cluster
}

func portKey(b *wire.BalancerRequest, protocol string, port uint16) string {
	return b.Namespace + "/" + b.Name + "/" + strings.ToLower(protocol) + "/" + strconv.Itoa(int(port))
}

// served reports whether a protocol can be led to a node.
func served(protocol string) bool { return protocol == "TCP" || protocol == "UDP" }

// balancers lists the cluster's load balancers with what was exposed for them.
func (c *Cluster) balancers() []balancer {
	if c.steward.told == nil {
		return nil
	}
	var out []balancer
	for _, b := range c.steward.told.LoadBalancers {
		x := balancer{BalancerRequest: b, published: map[string]string{}}
		name := vipName(c.Name, &b) + "." + Framework
		for _, e := range c.exposed.ports {
			for _, v := range e.VIPs {
				if v.Name == name && !slices.Contains(x.ingress, v.Addr) {
					x.ingress = append(x.ingress, v.Addr)
					x.dns = name + ".l4lb.thisdcos.directory"
				}
			}
		}
		for _, p := range b.Ports {
			key := portKey(&b, p.Protocol, p.Port)
			if at := c.Published[key]; at != 0 && c.exposed.refused[key] == "" && c.machine != "" {
				x.published[strconv.Itoa(int(p.Port))] = c.machine + ":" + strconv.Itoa(int(at))
			}
			if why := c.exposed.refused[key]; why != "" {
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

// ports lists what the nodes of a cluster are to expose for load balancers, with the machines' ports that published
// names.
func ports(cluster string, list []wire.BalancerRequest, published map[string]uint16) []kernel.Port {
	var out []kernel.Port
	for k := range list {
		b := &list[k]
		for _, p := range b.Ports {
			if p.NodePort == 0 || !served(p.Protocol) || len(out) == kernel.MaxExposed {
				continue
			}
			at := published[portKey(b, p.Protocol, p.Port)]
			out = append(out, kernel.Port{Name: p.Name, Protocol: strings.ToLower(p.Protocol), Container: p.NodePort,
				Service: at, Publish: at != 0, VIPs: []kernel.VIP{{Name: vipName(cluster, b), Port: p.Port}}})
		}
	}
	return out
}

// publish gives every port of load balancers one of the machines' in a range, keeping those they had; all tells
// everybody's. The second result says which ports found none.
func publish(list []wire.BalancerRequest, had map[string]uint16, all func() map[uint16]bool,
	of kernel.PortRange) (out map[string]uint16, refused map[string]string) {
	out, refused = map[string]uint16{}, map[string]string{}
	var taken map[uint16]bool
	for k := range list {
		b := &list[k]
		for _, p := range b.Ports {
			key := portKey(b, p.Protocol, p.Port)
			if at := had[key]; at != 0 {
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
