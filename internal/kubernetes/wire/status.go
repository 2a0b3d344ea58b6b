package wire

// Port is the port of stewards, at their control planes' addresses.
const Port = 6444

// Status describes a cluster: GET /v1/status?after=REV, which waits for another. Lists are sorted by name.
type Status struct {
	Rev           string            `json:"rev"` // digest of the rest
	Version       string            `json:"version"`
	Ready         bool              `json:"ready"` // the API server's /readyz
	Addons        AddonsStatus      `json:"addons"`
	DNS           bool              `json:"dns"` // CoreDNS has a ready endpoint
	Nodes         []NodeStatus      `json:"nodes"`
	Pods          PodsStatus        `json:"pods"`
	Probe         ProbeStatus       `json:"probe"`
	LoadBalancers []BalancerRequest `json:"loadBalancers"`
	Waiting       []string          `json:"waiting"`           // for people: what pods wait for, at most 10
	Desired       string            `json:"desired"`           // Desired.Rev of what the steward works by
	Problem       string            `json:"problem,omitempty"` // of the control plane, for people: its etcd is nearly full
}

// AddonsStatus says whether all manifests of the bundle were applied, and why not.
type AddonsStatus struct {
	Applied bool   `json:"applied"`
	Error   string `json:"error"`
}

// NodeStatus is one Node object. Pods are those it has that have not ended.
type NodeStatus struct {
	Name          string `json:"name"`
	Ready         bool   `json:"ready"`
	Message       string `json:"message"` // why it is not ready
	Version       string `json:"version"` // of its kubelet
	Address       string `json:"address"`
	PodCIDR       string `json:"podCIDR"`
	Unschedulable bool   `json:"unschedulable"`
	Pods          int    `json:"pods"`
	MilliCPU      int64  `json:"milliCPU,omitempty"` // that it tells its pods; 0: unknown
	Mem           int64  `json:"mem,omitempty"`      // bytes that it tells in all; 0: unknown
}

// PodsStatus counts all pods of the cluster by phase.
type PodsStatus struct {
	Running int `json:"running"`
	Pending int `json:"pending"`
	Failed  int `json:"failed"`
}

// ProbeStatus says whether a first pod ran, by which a new cluster shows that it works; if not yet, why.
type ProbeStatus struct {
	Done    bool   `json:"done"`
	Message string `json:"message"`
}

// BalancerRequest is a Service of type LoadBalancer. Ports without a node port are left out.
type BalancerRequest struct {
	Namespace string         `json:"namespace"`
	Name      string         `json:"name"`
	UID       string         `json:"uid"`
	Ports     []BalancerPort `json:"ports"`
}

// BalancerPort is reached at NodePort of every node.
type BalancerPort struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"` // "TCP", "UDP", "SCTP"
	Port     uint16 `json:"port"`
	NodePort uint16 `json:"nodePort"`
}
