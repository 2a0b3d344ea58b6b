package daemon

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/settings"
)

// config is settings with every default filled in and every text read.
type config struct {
	settings.Datacenter
	seed       byte   // of the state path, for what else must differ between datacenters of one machine
	id         string // names what this datacenter has on the machine: bridge, table, cgroup; from the state path
	address    netip.Addr
	pool, vips netip.Prefix // by resolve
	attributes map[string]string
}

// resolve is complete, and settles on the ranges of addresses, which only a start needs.
func resolve(given settings.Datacenter) (*config, error) {
	c, err := complete(given)
	if err != nil {
		return nil, err
	}
	return c, c.chooseRanges()
}

// complete fills in defaults and refuses what cannot work, with errdefs.ErrInvalidArgument. It asks the machine for its
// name and its addresses, and writes nothing.
func complete(given settings.Datacenter) (*config, error) {
	abs, err := filepath.Abs(given.State)
	if given.State == "" || err != nil {
		return nil, refused("state directory %q is not a path", given.State)
	}
	sum := sha256.Sum256([]byte(abs))
	c := &config{Datacenter: given, seed: sum[6], id: hex.EncodeToString(sum[:4]), attributes: map[string]string{}}
	c.State = abs
	c.HTTPS, c.HTTP = cmp.Or(c.HTTPS, settings.HTTPS), cmp.Or(c.HTTP, settings.HTTP)
	c.AgentPort = cmp.Or(c.AgentPort, settings.AgentPort)
	c.StoreQuota = cmp.Or(c.StoreQuota, settings.StoreQuota)
	if err := c.checkSaid(); err != nil {
		return nil, err
	}
	if c.Runtime == "" {
		if c.Runtime, err = findRuntime(); err != nil {
			return nil, err
		}
	}
	if c.address, err = advertised(c.Advertise); err != nil {
		return nil, err
	}
	if c.Hostname == "" {
		if c.Hostname, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("hostname: %w", err)
		}
	}
	return c, nil
}

// The least and most of the store's quota, in MiB. etcd is not made for more than some gigabytes.
const minStoreQuota, maxStoreQuota = 64, 8192

// checkSaid refuses what cannot work on any machine, and reads the attributes.
func (c *config) checkSaid() error {
	if c.HTTP != settings.Off {
		host, _, err := net.SplitHostPort(c.HTTP)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return refused("plain HTTP address %q: only a loopback address such as 127.0.0.1:8080 is allowed, or \"off\"",
				c.HTTP)
		}
	}
	if c.StoreQuota < minStoreQuota || c.StoreQuota > maxStoreQuota {
		return refused("store quota of %d MiB: expected %d to %d", c.StoreQuota, minStoreQuota, maxStoreQuota)
	}
	if !kernel.Strategy(c.Placement).Valid() {
		return refused("placement %q: expected %q or %q", c.Placement, kernel.StrategySpread, kernel.StrategyBinpack)
	}
	for _, dir := range c.HostVolume {
		if !filepath.IsAbs(dir) || inside(c.State, dir) || inside(dir, c.State) {
			return refused("host volume %q: expected an absolute path that neither holds the state directory nor lies in it",
				dir)
		}
	}
	for _, a := range c.Attribute {
		name, value, ok := strings.Cut(a, "=")
		if !ok || name == "" {
			return refused("attribute %q is not name=value", a)
		}
		c.attributes[name] = value
	}
	return nil
}

// fingerprint names what this process was started with, so that an agent that was started with something else is told
// apart.
func (c *config) fingerprint() string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%+v", c.Datacenter)))[:16]
}

func refused(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// inside reports whether a path is that of a directory or below it.
func inside(name, dir string) bool {
	rel, err := filepath.Rel(dir, name)
	return err == nil && filepath.IsLocal(rel)
}

func prefix(what, text string, least, most int) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() || p.Bits() < least || p.Bits() > most {
		return netip.Prefix{}, refused("%s %q: expected an IPv4 network of /%d to /%d, such as 10.200.0.0/16", what, text,
			least, most)
	}
	return p.Masked(), nil
}

// findRuntime looks for the container runtime's programs where a checkout and a release have them.
func findRuntime() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(self)
	for _, candidate := range []string{filepath.Join(dir, "..", "bundle", "runtime", "bin"), filepath.Join(dir, "runtime"),
		"/usr/local/lib/marina/runtime", "/usr/lib/marina/runtime"} {
		if _, err := os.Stat(filepath.Join(candidate, "containerd")); err == nil {
			return filepath.Clean(candidate), nil
		}
	}
	return "", fmt.Errorf("no containerd beside %s: build it with `make build`, or name its directory with --runtime: %w",
		self, errdefs.ErrNotFound)
}

// advertised is the address by which other machines reach this one. Without a route to anywhere it is loopback's.
func advertised(text string) (netip.Addr, error) {
	if text != "" {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return a, refused("advertised address %q is not an IP address", text)
		}
		return a, nil
	}
	c, err := net.Dial("udp", "192.0.2.1:9") // sends nothing: it asks the routing table which address would be used
	if err == nil {
		defer c.Close()
		if a, ok := netip.AddrFromSlice(c.LocalAddr().(*net.UDPAddr).IP); ok {
			return a.Unmap(), nil
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			addr, _ := netip.AddrFromSlice(n.IP.To4())
			return addr, nil
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
}

// Where things are under the state directory.
func (c *config) path(parts ...string) string {
	return filepath.Join(append([]string{c.State}, parts...)...)
}
func (c *config) socket() string    { return c.path("run", "admin.sock") }
func (c *config) rootKey() string   { return c.path("root.key") }
func (c *config) daemonPID() string { return c.path("run", "daemon.pid") }
func (c *config) agentPID() string  { return c.path("run", "agent.pid") }
