package containerd

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"path/filepath"
	"text/template"

	"github.com/containerd/errdefs"
)

// maxSocketDir is the longest directory containerd accepts for its shims' sockets: a unix socket's path ends at 107
// bytes.
const maxSocketDir = 42

// rangeSize is how many user ids a container sees: all that 16 bits can name.
const rangeSize = 1 << 16

// Config says where a runtime lives and what it uses. All directories are made when needed, and taken away by
// RemoveAll.
type Config struct {
	// Instance names the datacenter on this machine: it goes into the cgroup's and containerd's namespace's name.
	// Letters, digits and inner dashes. Required.
	Instance string

	// State is the directory for images and snapshots: it survives a reboot. Required. It is entered by root only.
	State string

	// Run is the directory for sockets and mounts of running containers. A path of at most 40 bytes, since it holds unix
	// sockets; default /run/marina-INSTANCE.
	Run string

	// Bin is the directory with containerd, containerd-shim-runc-v2 and runc, as bundle/runtime builds them. Required.
	Bin string

	// Socket is that of a containerd somebody else runs; the runtime then supervises none. Default: a private one.
	Socket string

	// IDBase is the machine's user id that containers see as root, the first of 65536. Default: by Instance, above 10^9.
	IDBase uint32

	// NoUserNamespaces runs containers with the machine's own ids, as where the kernel has no user namespaces: New sets it
	// there.
	NoUserNamespaces bool

	// Store is the datacenter's image store. Without it only registries are asked.
	Store *Store
}

// Store is an image store that speaks the registry protocol and is asked first for every image.
type Store struct {
	URL    string       // "https://10.0.0.1:8443"; the protocol's /v2/ comes below it
	Client *http.Client // with the agent's certificate; default http.DefaultClient
}

func (c Config) complete() (Config, error) {
	if c.Instance == "" || c.State == "" || c.Bin == "" {
		return c, fmt.Errorf("containerd: Instance, State and Bin are needed: %w", errdefs.ErrInvalidArgument)
	}
	if c.Run == "" {
		c.Run = "/run/marina-" + c.Instance
	}
	for _, p := range []*string{&c.State, &c.Run, &c.Bin} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return c, err
		}
		*p = abs
	}
	if real, err := filepath.EvalSymlinks(c.Bin); err == nil {
		c.Bin = real // as containerd does: its shims are told from others by this path
	}
	if len(c.shimSockets()) > maxSocketDir {
		return c, fmt.Errorf("containerd: run directory %s is longer than the %d bytes that sockets in it allow; choose a shorter one: %w",
			c.Run, maxSocketDir-len("/s"), errdefs.ErrInvalidArgument)
	}
	if c.IDBase == 0 {
		h := fnv.New32a()
		h.Write([]byte(c.Instance))
		c.IDBase = 1_000_000_000 + h.Sum32()%40_000*rangeSize
	}
	if c.Store != nil {
		if u, err := url.Parse(c.Store.URL); err != nil || u.Host == "" {
			return c, fmt.Errorf("containerd: image store URL %q: %w", c.Store.URL, errdefs.ErrInvalidArgument)
		}
	}
	return c, nil
}

func (c *Config) root() string        { return filepath.Join(c.State, "containerd") }
func (c *Config) state() string       { return filepath.Join(c.Run, "c") }
func (c *Config) fifos() string       { return filepath.Join(c.Run, "f") }
func (c *Config) mounts() string      { return filepath.Join(c.Run, "m") }
func (c *Config) shimSockets() string { return filepath.Join(c.Run, "s") }
func (c *Config) runcRoot() string    { return filepath.Join(c.Run, "r") }
func (c *Config) configFile() string  { return filepath.Join(c.State, "containerd.toml") }
func (c *Config) logFile() string     { return filepath.Join(c.State, "containerd.log") }
func (c *Config) namespace() string   { return "marina-" + c.Instance }
func (c *Config) cgroup() string      { return "/marina-" + c.Instance }
func (c *Config) runc() string        { return filepath.Join(c.Bin, "runc") }
func (c *Config) shim() string        { return filepath.Join(c.Bin, "containerd-shim-runc-v2") }

func (c *Config) socket() string {
	if c.Socket != "" {
		return c.Socket
	}
	return filepath.Join(c.Run, "c.sock")
}

// daemonConfig is containerd's own configuration. imports is empty since its default would read a neighbour's
// /etc/containerd; slow_chown is for filesystems that cannot map ids; everything agents do not use is off.
var daemonConfig = template.Must(template.New("containerd.toml").Parse(`# Written by marina at every start.
version = 4
root = {{printf "%q" .Root}}
state = {{printf "%q" .State}}
temp = {{printf "%q" .Temp}}
imports = []
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt",
  "io.containerd.image-verifier.v1.bindir", "io.containerd.monitor.container.v1.restart",
  "io.containerd.monitor.task.v1.cgroups", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.native", "io.containerd.differ.v1.erofs", "io.containerd.mount-handler.v1.erofs",
]

[debug]
  level = "warn"

[plugins."io.containerd.server.v1.grpc"]
  address = {{printf "%q" .Socket}}

[plugins."io.containerd.server.v1.ttrpc"]
  address = {{printf "%q" .TTRPC}}

[plugins."io.containerd.server.v1.metrics"]
  address = ""

[plugins."io.containerd.shim.v1.manager"]
  socket_dir = {{printf "%q" .Shims}}

[plugins."io.containerd.snapshotter.v1.overlayfs"]
  slow_chown = true

[stream_processors]
`))

func (c *Config) daemonConfig() ([]byte, error) {
	var b bytes.Buffer
	err := daemonConfig.Execute(&b, map[string]string{
		"Root": c.root(), "State": c.state(), "Temp": filepath.Join(c.Run, "t"),
		"Socket": c.socket(), "TTRPC": c.socket() + ".ttrpc", "Shims": c.shimSockets(),
	})
	return b.Bytes(), err
}
