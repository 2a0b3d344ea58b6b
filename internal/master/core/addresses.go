package core

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

const vipZone = ".l4lb.thisdcos.directory"

// VIP is one virtual address as GET /net/v1/vips shows it: DC/OS's fields, and after them Marina's.
type VIP struct {
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

// Addresses sums the endpoints up by owner and port: what a port with a VIP or a published service port offers.
func (s *State) Addresses() []*VIP {
	type door struct {
		owner, protocol string
		vip             kernel.EndpointVIP
		publish         uint16
	}
	found := map[door]*VIP{}
	for _, part := range s.allEndpoints() {
		for i := range part.Set {
			e := &part.Set[i]
			for _, p := range e.Ports {
				vips := p.VIPs
				if len(vips) == 0 && p.Publish != 0 {
					vips = []kernel.EndpointVIP{{}}
				}
				for _, v := range vips {
					d := door{e.Owner, p.Protocol, v, p.Publish}
					if found[d] == nil {
						found[d] = s.vip(e.Owner, p.Protocol, v, p.Publish)
					}
					if e.Ready {
						found[d].Backend = append(found[d].Backend, backend(e, p))
					}
				}
			}
		}
	}
	out := make([]*VIP, 0, len(found))
	for _, v := range found {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b *VIP) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.VIP, b.VIP), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}

func (s *State) vip(owner, protocol string, v kernel.EndpointVIP, publish uint16) *VIP {
	out := &VIP{Protocol: protocol, Backend: []Backend{}, Owner: owner, Published: []Published{}}
	if v.Addr.IsValid() {
		out.Address = netip.AddrPortFrom(v.Addr, v.Port).String()
		out.VIP = out.Address
	}
	if v.Name != "" {
		out.VIP = fmt.Sprintf("%s%s:%d", v.Name, vipZone, v.Port)
	}
	if publish == 0 || protocol != "tcp" {
		return out
	}
	for _, a := range s.order {
		if a.info.Address.IsValid() && a.away.IsZero() {
			out.Published = append(out.Published, Published{URL: "http://" + netip.AddrPortFrom(a.info.Address, publish).String()})
		}
	}
	return out
}

func backend(e *kernel.Endpoint, p kernel.EndpointPort) Backend {
	if e.Address.IsValid() {
		return Backend{IP: e.Address, Port: p.Container}
	}
	return Backend{IP: e.Machine, Port: p.Host}
}
