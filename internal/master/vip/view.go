package vip

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

const zone = ".l4lb.thisdcos.directory"

// View is one virtual address as GET /net/v1/vips shows it: DC/OS's fields, and after them Marina's.
type View struct {
	VIP      string    `json:"vip"`      // "hello.marathon.l4lb.thisdcos.directory:80", or address and port
	Protocol string    `json:"protocol"` // "tcp" or "udp"
	Backend  []Backend `json:"backend"`  // that get new connections

	Owner     string      `json:"owner"`   // "/hello"
	Address   string      `json:"address"` // "198.18.3.7:80"
	Published []Published `json:"published"`
}

// Backend is one instance behind a VIP.
type Backend struct {
	IP   netip.Addr `json:"ip"`
	Port uint16     `json:"port"`
}

// Published is a way in from outside of the datacenter.
type Published struct {
	URL string `json:"url"` // "http://10.0.0.5:10000"
}

// frontend is all of a View but its backends.
type frontend struct {
	owner, protocol string
	vip             kernel.EndpointVIP
	publish         uint16
}

// Views sums endpoints up by owner and port: what a port with a VIP or a published service port offers. machines are
// those on which published ports answer.
func Views(endpoints iter.Seq[*kernel.Endpoint], machines []netip.Addr) []*View {
	found := map[frontend]*View{}
	for e := range endpoints {
		for _, p := range e.Ports {
			vips := p.VIPs
			if len(vips) == 0 && p.Publish != 0 {
				vips = []kernel.EndpointVIP{{}}
			}
			for _, v := range vips {
				f := frontend{e.Owner, p.Protocol, v, p.Publish}
				if found[f] == nil {
					found[f] = f.view(machines)
				}
				if e.Ready {
					found[f].Backend = append(found[f].Backend, backend(e, p))
				}
			}
		}
	}
	out := make([]*View, 0, len(found))
	for _, v := range found {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b *View) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.VIP, b.VIP), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}

func (f frontend) view(machines []netip.Addr) *View {
	out := &View{Protocol: f.protocol, Backend: []Backend{}, Owner: f.owner, Published: []Published{}}
	if f.vip.Addr.IsValid() {
		out.Address = netip.AddrPortFrom(f.vip.Addr, f.vip.Port).String()
		out.VIP = out.Address
	}
	if f.vip.Name != "" {
		out.VIP = fmt.Sprintf("%s%s:%d", f.vip.Name, zone, f.vip.Port)
	}
	if f.publish == 0 || f.protocol != "tcp" {
		return out
	}
	for _, m := range machines {
		out.Published = append(out.Published, Published{URL: "http://" + netip.AddrPortFrom(m, f.publish).String()})
	}
	return out
}

func backend(e *kernel.Endpoint, p kernel.EndpointPort) Backend {
	if e.Address.IsValid() {
		return Backend{IP: e.Address, Port: p.Container}
	}
	return Backend{IP: e.Machine, Port: p.Host}
}
