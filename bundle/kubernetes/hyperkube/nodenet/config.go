package nodenet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// TunnelPort is the tunnel's port on the node's address.
const TunnelPort = 10260

// Files in the run directory.
const (
	gateSocket = "gate.sock"
	claimsFile = "gate.json"
	readyFile  = "node-network.ready"
)

// Node is the component's part of node.json, which the node's first process shares with it.
type Node struct {
	// Name is the node's in the API, Address its own on the machines' network.
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	// Server is the API server's URL.
	Server string `json:"server"`
	// ServiceCIDR and ClusterCIDR are the ranges of Services and of pods.
	ServiceCIDR netip.Prefix `json:"serviceCIDR"`
	ClusterCIDR netip.Prefix `json:"clusterCIDR"`
	// VNI is the cluster's number in VXLAN, 1 to 2^24-1.
	VNI int `json:"vni"`
}

// readNode reads node.json. Fields of others are none of our business.
func readNode(file string) (*Node, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	n := new(Node)
	if err := json.Unmarshal(b, n); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if !n.Address.IsValid() { // known only once the node is placed
		n.Address, _ = netip.ParseAddr(os.Getenv("NODE_ADDRESS")) // what is none is told below
	}
	if err := n.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return n, nil
}

func (n *Node) validate() error {
	server, err := url.Parse(n.Server)
	switch {
	case n.Name == "" || n.Name != strings.ToLower(n.Name):
		return fmt.Errorf("name %q: expected a name in lower case", n.Name)
	case !n.Address.Is4():
		return fmt.Errorf("address %q: expected an IPv4 address", n.Address)
	case err != nil || server.Scheme != "https":
		return fmt.Errorf("server %q: expected https://HOST:PORT", n.Server)
	case n.VNI < 1 || n.VNI >= 1<<24:
		return fmt.Errorf("vni %d: expected 1 to %d", n.VNI, 1<<24-1)
	}
	for _, r := range []struct {
		field  string
		prefix netip.Prefix
	}{{"serviceCIDR", n.ServiceCIDR}, {"clusterCIDR", n.ClusterCIDR}} {
		if !r.prefix.IsValid() || !r.prefix.Addr().Is4() || r.prefix != r.prefix.Masked() {
			return fmt.Errorf("%s %q: expected an IPv4 range", r.field, r.prefix)
		}
	}
	if n.ServiceCIDR.Overlaps(n.ClusterCIDR) {
		return fmt.Errorf("serviceCIDR %s: overlaps clusterCIDR %s", n.ServiceCIDR, n.ClusterCIDR)
	}
	return nil
}

// config is the command line.
type config struct {
	node            string // file
	pki             string
	kubeconfig      string
	proxyKubeconfig string
	cni             string
	run             string
	volumes         string
}

func parse(args []string) (*config, error) {
	c := new(config)
	fs := pflag.NewFlagSet("node-network", pflag.ContinueOnError)
	fs.StringVar(&c.node, "config", "/etc/kubernetes/node.json", "file that describes the node")
	fs.StringVar(&c.pki, "pki-dir", "/etc/kubernetes/pki", "directory with ca.crt, nodenet.crt and nodenet.key")
	fs.StringVar(&c.kubeconfig, "kubeconfig", "", "how to reach the API server as marina:nodenet:NAME")
	fs.StringVar(&c.proxyKubeconfig, "proxy-kubeconfig", "", "how kube-proxy reaches the API server")
	fs.StringVar(&c.cni, "cni-config", "/etc/cni/net.d/10-marina.conflist", "CNI configuration to write")
	fs.StringVar(&c.run, "run-dir", "/run/marina", "directory of the gate's socket and of "+readyFile)
	fs.StringVar(&c.volumes, "volumes-dir", "/var/lib/marina/volumes", "directory of local volumes")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("argument %q: none is expected", fs.Arg(0))
	case c.kubeconfig == "" || c.proxyKubeconfig == "":
		return nil, errors.New("--kubeconfig and --proxy-kubeconfig are needed")
	}
	return c, nil
}

func (c *config) inRun(name string) string { return filepath.Join(c.run, name) }
