package wire

import "net/netip"

// StewardConfig is the file that a control plane's --steward-config names.
type StewardConfig struct {
	Listen        string       `json:"listen"`                // HOST:PORT of the API for the datacenter; required
	Addons        string       `json:"addons"`                // directory of images/, manifests/, VERSION; empty: none
	ClusterDNS    netip.Addr   `json:"clusterDNS"`            // address of the Service kube-dns, in ServiceCIDR; required
	ClusterDomain string       `json:"clusterDomain"`         // default cluster.local
	ServiceCIDR   netip.Prefix `json:"serviceCIDR"`           // required
	ClusterCIDR   netip.Prefix `json:"clusterCIDR"`           // addresses of pods; required
	Privileged    bool         `json:"privileged"`            // namespaces may allow more than Pod Security's baseline
	EgressSocket  string       `json:"egressSocket"`          // default /run/kubernetes/egress.sock
	TunnelPort    int          `json:"tunnelPort"`            // of every node; default 10260
	EgressAllow   []string     `json:"egressAllow,omitempty"` // HOST:PORT that the API server may reach besides
	Replicas      int          `json:"replicas,omitempty"`    // of CoreDNS; default 1
}

// NodeConfig is the file that a node's first process, marina-node, begins with.
type NodeConfig struct {
	Name          string            `json:"name"`              // of the Node object
	Address       string            `json:"address,omitempty"` // IP address of the node; default: NODE_ADDRESS's
	Server        string            `json:"server"`            // URL of the cluster's API server
	Minor         string            `json:"minor"`             // "v1.37", names the bundle
	ServiceCIDR   string            `json:"serviceCIDR"`
	ClusterCIDR   string            `json:"clusterCIDR"`
	ClusterDNS    string            `json:"clusterDNS"`
	ClusterDomain string            `json:"clusterDomain"`
	VNI           int               `json:"vni"`
	Labels        map[string]string `json:"labels,omitempty"`
	Privileged    bool              `json:"privileged"`           // as the cluster admits; no matter to the node
	UserNamespace bool              `json:"userNamespace"`        // whether the container has one of its own
	Registries    []string          `json:"registries,omitempty"` // URLs of mirrors that are asked first for every image
}
