package kernel

import "net/netip"

// Endpoint describes how one task is reached. Agents get all endpoints of the datacenter as deltas on their streams;
// names, VIPs and published ports are made from nothing else.
type Endpoint struct {
	Task      TaskID         `json:"task"`
	Instance  InstanceID     `json:"group"`
	Framework string         `json:"framework"`
	Owner     string         `json:"owner"`
	Discovery string         `json:"discovery,omitempty"`
	Agent     AgentID        `json:"agent"`
	Machine   netip.Addr     `json:"machine"`          // the agent's address
	Address   netip.Addr     `json:"address,omitzero"` // the group's own address; none in host mode
	Ports     []EndpointPort `json:"ports,omitempty"`
	Running   bool           `json:"running"` // it has names in DNS
	Ready     bool           `json:"ready"`   // it gets new connections: running, healthy, not about to stop
}

// EndpointPort is one port of an endpoint.
type EndpointPort struct {
	Name      string        `json:"name,omitempty"`
	Protocol  string        `json:"protocol"` // "tcp" or "udp": "udp,tcp" is two ports here
	Container uint16        `json:"container,omitempty"`
	Host      uint16        `json:"host,omitempty"`    // zero: not mapped
	Publish   uint16        `json:"publish,omitempty"` // zero: not published on the machines' own addresses
	VIPs      []EndpointVIP `json:"vips,omitempty"`
}

// EndpointVIP is a VIP with the address the master gave it.
type EndpointVIP struct {
	Name string     `json:"name,omitempty"` // "hello.marathon": DNS name less the zone; empty for a literal address
	Addr netip.Addr `json:"addr"`
	Port uint16     `json:"port"`
}
