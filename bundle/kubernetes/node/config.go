package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// Where things are in a node's container.
const (
	pkiDir     = "/etc/kubernetes/pki"        // ca.crt; kubelet, kubelet-server, proxy and nodenet as .crt and .key
	sizeFile   = "/run/marina/node/size.json" // a Size, replaced when the node gets another
	runDir     = "/run/marina"
	cniDir     = "/run/marina/cni/net.d"
	readyFile  = "/run/marina/node-network.ready" // node-network makes it when its rules stand
	runtimeDir = "/opt/marina/runtime"
	addonsDir  = "/opt/marina/kubernetes/addons"
	socket     = "/run/containerd/containerd.sock"
	healthz    = "127.0.0.1:10248" // the kubelet's

	addressEnv = "NODE_ADDRESS" // the node's address, where its file does not say

	maxConfig = 1 << 20 // bytes of a file this program reads
)

// Config describes a node.
type Config struct{ wire.NodeConfig }

// Size is the node's grant.
type Size struct {
	MilliCPU int64 `json:"milliCPU"` // zero: the whole machine
	Mem      int64 `json:"mem"`      // bytes; what /proc/meminfo says, not used here
}

var minorForm = regexp.MustCompile(`^v1\.[0-9]{1,3}$`)

func readConfig(file string) (*Config, error) {
	c := &Config{}
	if err := readJSON(file, c); err != nil {
		return nil, err
	}
	if c.Address == "" { // known only once the node is placed
		c.Address = os.Getenv(addressEnv)
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

func (c *Config) validate() error {
	if c.Name == "" {
		return fmt.Errorf("name: missing")
	}
	for name, v := range map[string]string{"address": c.Address, "clusterDNS": c.ClusterDNS} {
		if _, err := netip.ParseAddr(v); err != nil {
			return fmt.Errorf("%s: %q is no IP address", name, v)
		}
	}
	if !minorForm.MatchString(c.Minor) {
		return fmt.Errorf("minor: %q: expected the form v1.37", c.Minor)
	}
	for _, s := range append([]string{c.Server}, c.Registries...) {
		if u, err := url.Parse(s); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			return fmt.Errorf("server or registry: %q is no URL", s)
		}
	}
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	return nil
}

// program is the one file of the node's minor.
func (c *Config) program() string {
	return "/opt/marina/kubernetes/" + c.Minor + "/kubernetes-" + c.Minor
}

func readSize(file string) (Size, error) {
	var s Size
	err := readJSON(file, &s)
	if err == nil && (s.MilliCPU < 0 || s.Mem < 0) {
		err = fmt.Errorf("%s: negative size", file)
	}
	return s, err
}

func readJSON(file string, into any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if len(b) > maxConfig {
		return fmt.Errorf("%s: larger than %d bytes", file, maxConfig)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// machineCPUs counts the processors in use of /proc/cpuinfo's text: what the kubelet takes for the node's capacity,
// since it cannot be shown fewer.
func machineCPUs(cpuinfo string) int64 {
	var n int64
	for line := range strings.Lines(cpuinfo) {
		if key, _, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "processor" {
			n++
		}
	}
	return n
}
