package core

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/definition"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// Where a cluster's programs listen and look.
const (
	apiPort    = 6443
	tunnelPort = 10260
	pkiDir     = "/etc/kubernetes/pki"
	planeData  = "/var/lib/kubernetes"

	// Domain ends the names that a cluster gives to its Services.
	Domain = "cluster.local"
)

func minorOf(version string) string { return "v" + version }

// bundle is the program of a minor, and program where a task sees it.
func bundle(version string) string { return "kubernetes/" + minorOf(version) }
func program(version string) string {
	return kernel.BundleTarget + "/" + bundle(version) + "/kubernetes-" + minorOf(version)
}

// Spec is a member's spec. A node has one once the control plane has its reservation.
func (c *Cluster) Spec(member string) (kernel.Spec, error) {
	if member == ControlPlane {
		return c.controlPlaneSpec()
	}
	return c.nodeSpec(member, c.members[ControlPlane].reservation.Address)
}

func (r *Row) controlPlaneSpec() (kernel.Spec, error) {
	size := r.PlaneSize()
	steward, err := json.Marshal(wire.StewardConfig{Listen: ":" + strconv.Itoa(wire.Port),
		Addons:     kernel.BundleTarget + "/kubernetes/addons",
		ClusterDNS: r.Service(10), ClusterDomain: Domain, ServiceCIDR: netip.MustParsePrefix(r.ServiceCIDR),
		ClusterCIDR: netip.MustParsePrefix(r.PodCIDR), Privileged: *r.Privileged,
		EgressSocket: "/run/kubernetes/egress.sock", TunnelPort: tunnelPort})
	if err != nil {
		return kernel.Spec{}, err
	}
	argv := []string{program(r.Version), ControlPlane, "--data-dir=" + planeData + "/etcd", "--pki-dir=" + pkiDir,
		"--run-dir=/run/kubernetes",
		"--service-cluster-ip-range=" + r.ServiceCIDR, "--cluster-cidr=" + r.PodCIDR,
		"--steward-config=/etc/kubernetes/steward.json",
		fmt.Sprintf("--memory-limit=%d", size.Limit.Mem/10*9)}
	if r.Audit {
		argv = append(argv, "--audit")
	}
	if *r.Encryption {
		argv = append(argv, "--encryption-config="+pkiDir+"/encryption.yaml")
	}
	return r.spec(ControlPlane, r.ControlPlane.Disk, kernel.TaskSpec{
		Bundles: []string{bundle(r.Version), "kubernetes/addons"}, Argv: argv,
		Files: []kernel.File{{Path: "/etc/kubernetes/steward.json", Content: steward},
			{Path: pkiDir, Secret: SecretRef(r.Name, ControlPlane)}},
		Volumes: []kernel.Volume{{ContainerPath: planeData, Reserved: "data"}},
		Ports:   []kernel.Port{{Name: "api", Protocol: "tcp", Container: apiPort, Host: kernel.AnyHostPort}},
		Checks: []kernel.Check{{Kind: kernel.CheckHTTPS, PortNumber: apiPort, Path: "/readyz", Grace: 3 * time.Minute,
			Interval: 5 * time.Second,
			Timeout:  5 * time.Second, MaxFailed: 60}}, // five minutes: a busy machine is slow, and a restart makes it busier
		KillGrace: 20 * time.Second, Guarantee: size.Guarantee, Limit: size.Limit,
	})
}

// nodeSpec is a node's; plane is the control plane's address.
func (r *Row) nodeSpec(name string, plane netip.Addr) (kernel.Spec, error) {
	conf, err := json.Marshal(wire.NodeConfig{Name: name,
		Server: "https://" + netip.AddrPortFrom(plane, apiPort).String(), Minor: minorOf(r.Version),
		ServiceCIDR: r.ServiceCIDR, ClusterCIDR: r.PodCIDR, ClusterDNS: r.Service(10).String(), ClusterDomain: Domain,
		VNI:        r.VNI,
		Privileged: *r.Privileged, UserNamespace: !r.SharedIDs})
	if err != nil {
		return kernel.Spec{}, err
	}
	ids := kernel.Constraint{Field: kernel.UserNamespaces, Operator: "UNLIKE", Value: "no"}
	if r.SharedIDs {
		ids.Operator = "LIKE"
	}
	size := r.NodeSize()
	return r.spec(name, r.Nodes.Disk, kernel.TaskSpec{
		Class:   kernel.ClassNode,
		Bundles: []string{"runtime", bundle(r.Version), "kubernetes/node", "kubernetes/addons"},
		Argv:    []string{kernel.BundleTarget + "/kubernetes/node/marina-node", "/etc/kubernetes/node.json"},
		Env:     []kernel.EnvVar{{Name: "HOSTNAME", Value: name}, {Name: "NODE_ADDRESS", From: kernel.FieldAddress}},
		Files: []kernel.File{{Path: "/etc/kubernetes/node.json", Content: conf},
			{Path: pkiDir, Secret: SecretRef(r.Name, name)}},
		Volumes: []kernel.Volume{{ContainerPath: "/var", Reserved: "data"}},
		PIDs:    16384, KillGrace: 15 * time.Second, Guarantee: size.Guarantee, Limit: size.Limit,
	}, ids)
}

// spec completes a member's only task to its spec.
func (r *Row) spec(member string, disk float64, task kernel.TaskSpec, where ...kernel.Constraint) (kernel.Spec, error) {
	task.Name, task.Suffix, task.User = member, "."+member, "root"
	return kernel.Spec{Framework: Framework, Owner: owner(r.Name, member), Role: r.Group,
		Network: kernel.Network{Mode: kernel.NetworkBridge, Name: Framework + "/" + r.Name},
		Reservation: &kernel.Reservation{Name: ReservationName(r.Name, member),
			Volumes: []kernel.ReservedVolume{{Name: "data", Bytes: definition.MiB(disk)}}},
		Constraints: where, Tasks: []kernel.TaskSpec{task}}.Seal()
}
