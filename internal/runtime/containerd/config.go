package containerd

import (
	"fmt"
	"hash/fnv"
	"net/url"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/runtime/containerd/daemon"
	"github.com/marinaos/marina/internal/runtime/containerd/image"
	"github.com/marinaos/marina/internal/runtime/containerd/spec"
)

// maxSocketDir is the longest directory containerd accepts for its shims' sockets: a unix socket's path ends at 107
// bytes.
const maxSocketDir = 42

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

	// NoUserNamespaces runs containers with the machine's own ids, as it is without asking where the kernel has no user
	// namespaces.
	NoUserNamespaces bool

	// Store is the datacenter's image store. Without it only registries are asked.
	Store *Store
}

// Store is the datacenter's image store; see image.Store.
type Store = image.Store

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
		return c, fmt.Errorf("containerd: run directory %s is longer than the %d bytes that sockets in it allow; "+
			"choose a shorter one: %w", c.Run, maxSocketDir-len("/s"), errdefs.ErrInvalidArgument)
	}
	if c.IDBase == 0 {
		h := fnv.New32a()
		h.Write([]byte(c.Instance))
		c.IDBase = 1_000_000_000 + h.Sum32()%40_000*spec.RangeSize
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

// daemon is the part of the configuration that is containerd's own.
func (c *Config) daemon() daemon.Config {
	return daemon.Config{
		Bin: c.Bin, File: c.configFile(), Log: c.logFile(),
		Root: c.root(), State: c.state(), Temp: filepath.Join(c.Run, "t"),
		Socket: c.socket(), Shims: c.shimSockets(),
		Namespace: c.namespace(), RuncRoot: c.runcRoot(), External: c.Socket != "",
	}
}

// makeDirs makes what containerd and its shims expect. Containers' root users pass through Run on their way to their
// filesystems, nobody but root enters State.
func (c *Config) makeDirs() error {
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{
		{c.State, 0o700}, {c.Run, 0o711}, {c.fifos(), 0o700}, {c.mounts(), 0o700}, {c.shimSockets(), 0o700},
		{c.runcRoot(), 0o700},
	} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return err
		}
		if err := os.Chmod(dir.path, dir.mode); err != nil {
			return err
		}
	}
	return nil
}
