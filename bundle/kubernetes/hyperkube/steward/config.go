package steward

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// Config is the file that --steward-config names. It is read once.
type Config = wire.StewardConfig

// ReadConfig reads and checks a file, and fills in defaults.
func ReadConfig(path string) (*Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &Config{ClusterDomain: "cluster.local", EgressSocket: "/run/kubernetes/egress.sock", TunnelPort: 10260,
		Replicas: 1}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := check(c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func check(c *Config) error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	switch {
	case !c.ServiceCIDR.IsValid():
		return errors.New("serviceCIDR is needed")
	case !c.ClusterCIDR.IsValid():
		return errors.New("clusterCIDR is needed")
	case !c.ServiceCIDR.Contains(c.ClusterDNS):
		return fmt.Errorf("clusterDNS: %s is not in serviceCIDR %s", c.ClusterDNS, c.ServiceCIDR)
	case c.ClusterDomain == "":
		return errors.New("clusterDomain is empty")
	case !filepath.IsAbs(c.EgressSocket):
		return fmt.Errorf("egressSocket: %q is no absolute path", c.EgressSocket)
	case c.TunnelPort < 1 || c.TunnelPort > 65535:
		return fmt.Errorf("tunnelPort: %d is no port", c.TunnelPort)
	case c.Replicas < 1 || c.Replicas > 10:
		return fmt.Errorf("replicas: %d is not between 1 and 10", c.Replicas)
	}
	return nil
}

// Deps holds what the control plane gives its steward.
type Deps struct {
	PKIDir     string // has ca.crt, steward.crt and steward.key; all are read again at each use
	Server     string // URL of the API server
	ServerName string // what its certificate says
	StateFile  string // what outlives the process: desired, and whether the probe is done
	Version    string // of Kubernetes, as v1.37.2
	Log        *slog.Logger

	// Problem says what people should know of the control plane, in a sentence; empty: nothing. Nil: nobody knows.
	Problem func() string
}

func (d *Deps) pki(file string) string { return filepath.Join(d.PKIDir, file) }
