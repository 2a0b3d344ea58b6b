package kernel

import "net/netip"

// Attachment is an instance's place in its machine's network.
type Attachment struct {
	Instance InstanceID  `json:"group"`
	Mode     NetworkMode `json:"mode"`
	Address  netip.Addr  `json:"address,omitzero"` // static, bridge mode
	Ports    []Mapping   `json:"ports,omitempty"`

	// Network is the named network it is in; empty is the datacenter's own. Groups of different networks reach each other
	// by VIPs and published ports only.
	Network string `json:"network,omitempty"`

	// IDs, if set, makes the instance's network namespace belong to a user namespace of its own with these ids, which is
	// held at UserNamespace(netns). Bridge mode only.
	IDs *IDRange `json:"ids,omitempty"`
}

// IDRange is the user and group ids of the machine that a user namespace sees from 0 on.
type IDRange struct {
	First uint32 `json:"first"`
	Count uint32 `json:"count"`
}

// UserNamespace returns the path that holds the user namespace of a network namespace, see Attachment.IDs.
func UserNamespace(netns string) string { return netns + ".user" }

// Mapping is one port of an instance; Host is zero if it is not mapped.
type Mapping struct {
	Protocol  string `json:"protocol"` // "tcp" or "udp"
	Container uint16 `json:"container,omitempty"`
	Host      uint16 `json:"host,omitempty"`
}
