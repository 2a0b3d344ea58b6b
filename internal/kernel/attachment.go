package kernel

import "net/netip"

// Attachment is a group's place in its machine's network.
type Attachment struct {
	Group   GroupID     `json:"group"`
	Mode    NetworkMode `json:"mode"`
	Address netip.Addr  `json:"address,omitzero"` // static, bridge mode
	Ports   []Mapping   `json:"ports,omitempty"`
}

// Mapping is one port of a group; Host is zero if it is not mapped.
type Mapping struct {
	Protocol  string `json:"protocol"` // "tcp" or "udp"
	Container uint16 `json:"container,omitempty"`
	Host      uint16 `json:"host,omitempty"`
}
