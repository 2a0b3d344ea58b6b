package kubernetes

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
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
	domain     = "cluster.local"

	controlPlane = "control-plane" // name of that member
)

// claimName is the reservation of a member: "team-a.node-1".
func reservationName(cluster, member string) string { return cluster + "." + member }

// owner is whose instances the nodes, or the control plane, of a cluster are.
func owner(cluster, member string) string {
	if member == controlPlane {
		return cluster + "/" + controlPlane
	}
	return cluster + "/nodes"
}

// secretRef is the reference by which an agent asks for a member's certificates.
func secretRef(cluster, member string) string { return Framework + "/" + cluster + "/" + member }

// groupPrefix begins the ids of a member's groups.
func groupPrefix(cluster, member string) string {
	return Framework + "_" + cluster + "_" + member + ".instance-"
}

func minorOf(version string) string { return "v" + version }

// bundle is the program of a minor, and program where a task sees it.
func bundle(version string) string { return "kubernetes/" + minorOf(version) }
func program(version string) string {
	return kernel.BundleTarget + "/" + bundle(version) + "/kubernetes-" + minorOf(version)
}

// memberSpec is the control plane's spec, or a node's.
func (c *cluster) memberSpec(name string) (kernel.Spec, error) {
	if name == controlPlane {
		return c.controlPlaneSpec()
	}
	return c.nodeSpec(name, c.members[controlPlane].reservation.Address)
}

// controlPlaneSpec is a cluster's control plane.
func (c *Row) controlPlaneSpec() (kernel.Spec, error) {
	size := c.PlaneSize()
	steward, err := json.Marshal(wire.StewardConfig{Listen: ":" + strconv.Itoa(wire.Port),
		Addons:     kernel.BundleTarget + "/kubernetes/addons",
		ClusterDNS: c.Service(10), ClusterDomain: domain, ServiceCIDR: netip.MustParsePrefix(c.ServiceCIDR),
		ClusterCIDR: netip.MustParsePrefix(c.PodCIDR), Privileged: *c.Privileged,
		EgressSocket: "/run/kubernetes/egress.sock", TunnelPort: tunnelPort})
	if err != nil {
		return kernel.Spec{}, err
	}
	argv := []string{program(c.Version), controlPlane, "--data-dir=" + planeData + "/etcd", "--pki-dir=" + pkiDir,
		"--run-dir=/run/kubernetes",
		"--service-cluster-ip-range=" + c.ServiceCIDR, "--cluster-cidr=" + c.PodCIDR,
		"--steward-config=/etc/kubernetes/steward.json",
		fmt.Sprintf("--memory-limit=%d", size.Limit.Mem/10*9)}
	if c.Audit {
		argv = append(argv, "--audit")
	}
	if *c.Encryption {
		argv = append(argv, "--encryption-config="+pkiDir+"/encryption.yaml")
	}
	return c.spec(controlPlane, c.ControlPlane.Disk, kernel.TaskSpec{
		Bundles: []string{bundle(c.Version), "kubernetes/addons"}, Argv: argv,
		Files: []kernel.File{{Path: "/etc/kubernetes/steward.json", Content: steward},
			{Path: pkiDir, Secret: secretRef(c.Name, controlPlane)}},
		Volumes: []kernel.Volume{{ContainerPath: planeData, Reserved: "data"}},
		Ports:   []kernel.Port{{Name: "api", Protocol: "tcp", Container: apiPort, Host: kernel.AnyHostPort}},
		Checks: []kernel.Check{{Kind: kernel.CheckHTTPS, PortNumber: apiPort, Path: "/readyz", Grace: 3 * time.Minute,
			Interval: 5 * time.Second,
			Timeout:  5 * time.Second, MaxFailed: 60}}, // five minutes: a busy machine is slow, and a restart makes it busier
		KillGrace: 20 * time.Second, Guarantee: size.Guarantee, Limit: size.Limit,
	})
}

// nodeSpec is one of a cluster's nodes. It needs to know where the control plane is.
func (c *Row) nodeSpec(name string, plane netip.Addr) (kernel.Spec, error) {
	conf, err := json.Marshal(wire.NodeConfig{Name: name,
		Server: "https://" + netip.AddrPortFrom(plane, apiPort).String(), Minor: minorOf(c.Version),
		ServiceCIDR: c.ServiceCIDR, ClusterCIDR: c.PodCIDR, ClusterDNS: c.Service(10).String(), ClusterDomain: domain,
		VNI:        c.VNI,
		Privileged: *c.Privileged, UserNamespace: !c.SharedIDs})
	if err != nil {
		return kernel.Spec{}, err
	}
	ids := kernel.Constraint{Field: kernel.UserNamespaces, Operator: "UNLIKE", Value: "no"}
	if c.SharedIDs {
		ids.Operator = "LIKE"
	}
	size := c.NodeSize()
	return c.spec(name, c.Nodes.Disk, kernel.TaskSpec{
		Class:   kernel.ClassNode,
		Bundles: []string{"runtime", bundle(c.Version), "kubernetes/node", "kubernetes/addons"},
		Argv:    []string{kernel.BundleTarget + "/kubernetes/node/marina-node", "/etc/kubernetes/node.json"},
		Env:     []kernel.EnvVar{{Name: "HOSTNAME", Value: name}, {Name: "NODE_ADDRESS", From: kernel.FieldAddress}},
		Files: []kernel.File{{Path: "/etc/kubernetes/node.json", Content: conf},
			{Path: pkiDir, Secret: secretRef(c.Name, name)}},
		Volumes: []kernel.Volume{{ContainerPath: "/var", Reserved: "data"}},
		PIDs:    16384, KillGrace: 15 * time.Second, Guarantee: size.Guarantee, Limit: size.Limit,
	}, ids)
}

// spec completes a member's only task to its spec.
func (c *Row) spec(member string, disk float64, task kernel.TaskSpec, where ...kernel.Constraint) (kernel.Spec, error) {
	task.Name, task.Suffix, task.User = member, "."+member, "root"
	return kernel.Spec{Framework: Framework, Owner: owner(c.Name, member), Role: c.Group,
		Network: kernel.Network{Mode: kernel.NetworkBridge, Name: Framework + "/" + c.Name},
		Reservation: &kernel.Reservation{Name: reservationName(c.Name, member),
			Volumes: []kernel.ReservedVolume{{Name: "data", Bytes: definition.MiB(disk)}}},
		Constraints: where, Tasks: []kernel.TaskSpec{task}}.Seal()
}

// memberOf reads a reservation's name.
func memberOf(claim string) (cluster, member string, ok bool) { return strings.Cut(claim, ".") }

// nodeName and nodeNumber are of the n-th node, from 1.
func nodeName(n int) string { return fmt.Sprintf("node-%d", n) }

func nodeNumber(member string) (int, bool) {
	text, ok := strings.CutPrefix(member, "node-")
	n, err := strconv.Atoi(text)
	return n, ok && err == nil && n > 0 && nodeName(n) == member
}
