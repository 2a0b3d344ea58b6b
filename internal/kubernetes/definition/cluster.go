package definition

import (
	"net/netip"

	"github.com/marinaos/marina/internal/kernel"
)

// Limits of what one may ask for.
const (
	MaxNodes = 100 // of one cluster
	MaxName  = 30  // bytes of a cluster's name
)

const (
	planeBurst  = 4               // times its guarantee that a control plane's memory may grow
	sandboxDisk = 64 * kernel.MiB // counted for the logs of a member's programs
)

// Cluster defines a hosted cluster: the body of POST and PUT /kubernetes/v1/clusters. Fields that are
// left out have the defaults that Complete fills in.
type Cluster struct {
	Name         string       `json:"name"`                  // a DNS label of at most MaxName bytes; never changes
	Group        string       `json:"group,omitempty"`       // whose quota pays, "/team-a"; default "/"; never changes
	Version      string       `json:"version,omitempty"`     // minor, "1.37"; default: the newest there is; never changes
	Nodes        Nodes        `json:"nodes"`                 // machines of the cluster
	ControlPlane ControlPlane `json:"controlPlane"`          //
	PodCIDR      string       `json:"podCIDR,omitempty"`     // default 10.244.0.0/16; never changes
	ServiceCIDR  string       `json:"serviceCIDR,omitempty"` // default 10.96.0.0/16; never changes
	Audit        bool         `json:"audit,omitempty"`       // the API server keeps an audit log; never changes
	Encryption   *bool        `json:"encryption,omitempty"`  // secrets are encrypted in etcd; default true; never changes
	Privileged   *bool        `json:"privileged,omitempty"`  // pods may be; default: with user namespaces; never changes
}

// Nodes defines how many nodes a cluster has, and the size of each.
type Nodes struct {
	Count *int    `json:"count,omitempty"` // default 1; 0 is a control plane alone
	CPUs  float64 `json:"cpus,omitempty"`  // guaranteed and told to Kubernetes, more is used when it is free; default 0.5
	Mem   float64 `json:"mem,omitempty"`   // MiB; default 1024
	Disk  float64 `json:"disk,omitempty"`  // MiB of images, logs and volumes; default 8192; never changes
}

// ControlPlane defines the size of the control plane.
type ControlPlane struct {
	CPUs float64 `json:"cpus,omitempty"` // guaranteed, more is used when it is free; default 0.1
	Mem  float64 `json:"mem,omitempty"`  // MiB guaranteed; it may use four times as much; default 256
	Disk float64 `json:"disk,omitempty"` // MiB of etcd; default 2048; never changes
}

// PlaneSize returns the size of the control plane. Its memory may grow to some times its guarantee.
func (d *Cluster) PlaneSize() kernel.Size {
	return kernel.Size{
		Guarantee: kernel.Resources{MilliCPU: int64(d.ControlPlane.CPUs * 1000), Mem: MiB(d.ControlPlane.Mem),
			Disk: sandboxDisk},
		Limit: kernel.Resources{MilliCPU: kernel.Unlimited, Mem: planeBurst * MiB(d.ControlPlane.Mem),
			Disk: kernel.Unlimited},
	}
}

// NodeSize returns the size of each node.
func (d *Cluster) NodeSize() kernel.Size {
	return kernel.Size{
		Guarantee: kernel.Resources{MilliCPU: int64(d.Nodes.CPUs * 1000), Mem: MiB(d.Nodes.Mem), Disk: sandboxDisk},
		Limit:     kernel.Resources{MilliCPU: kernel.Unlimited, Mem: MiB(d.Nodes.Mem), Disk: kernel.Unlimited},
	}
}

// Service is the n-th address of the cluster's service range.
func (d *Cluster) Service(n int) netip.Addr {
	a := netip.MustParsePrefix(d.ServiceCIDR).Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// MiB is so many bytes.
func MiB(n float64) int64 { return int64(n * float64(kernel.MiB)) }
