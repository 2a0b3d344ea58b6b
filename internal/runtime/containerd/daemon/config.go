package daemon

import (
	"bytes"
	"path/filepath"
	"text/template"
)

// Config says where a containerd lives. All is required, but for an external one only Bin, Socket, Namespace and
// RuncRoot.
type Config struct {
	// Bin is the directory with containerd, containerd-shim-runc-v2 and runc.
	Bin string

	// File is containerd's configuration, written at every start; a process is told from others by this path.
	File string

	// Log gets what containerd says.
	Log string

	// Root, State and Temp are containerd's directories: images and snapshots, running containers, what is unpacked.
	Root, State, Temp string

	// Socket is containerd's, and Shims the directory of its shims' sockets.
	Socket, Shims string

	// Namespace is containerd's of the datacenter, and RuncRoot is where its runc keeps containers: leftovers are told
	// from others by both.
	Namespace, RuncRoot string

	// External says that somebody else runs the containerd at Socket.
	External bool
}

func (c *Config) runc() string { return filepath.Join(c.Bin, "runc") }
func (c *Config) shim() string { return filepath.Join(c.Bin, "containerd-shim-runc-v2") }

// settings is the template of containerd's own configuration. imports is empty since its default would read a
// neighbour's /etc/containerd; slow_chown is for filesystems that cannot map ids; everything agents do not use is off.
var settings = template.Must(template.New("containerd.toml").Parse(`# Written by marina at every start.
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

// settings returns what File is to hold.
func (c *Config) settings() ([]byte, error) {
	var b bytes.Buffer
	err := settings.Execute(&b, map[string]string{
		"Root": c.Root, "State": c.State, "Temp": c.Temp,
		"Socket": c.Socket, "TTRPC": c.Socket + ".ttrpc", "Shims": c.Shims,
	})
	return b.Bytes(), err
}
