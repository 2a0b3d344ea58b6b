package main

import (
	"fmt"
	"strings"
)

// sandboxImage is the container that holds a pod's namespaces; it comes with the add-ons.
const sandboxImage = "registry.k8s.io/pause:3.10.2"

// containerdConfig is containerd's. Images of the add-ons are pinned: no registry has them, so the kubelet must not
// collect them when disk is short.
func containerdConfig(images []Image) string {
	pinned := []string{fmt.Sprintf("    sandbox = %q\n", sandboxImage)}
	for i, image := range images {
		if image.Name != sandboxImage {
			pinned = append(pinned, fmt.Sprintf("    addon%d = %q\n", i, image.Name))
		}
	}
	return strings.NewReplacer(
		"PINNED\n", strings.Join(pinned, ""), "RUNTIME", runtimeDir, "SOCKET", socket, "CNI", cniDir, "RUN", runDir,
	).Replace(containerdTOML)
}

const containerdTOML = `# Written by marina-node at every start.
version = 4
root = "/var/lib/containerd"
state = "/run/containerd"
imports = []
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.image-verifier.v1.bindir",
  "io.containerd.monitor.container.v1.restart", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.native", "io.containerd.differ.v1.erofs",
  "io.containerd.mount-handler.v1.erofs",
]

[debug]
  level = "warn"

[plugins."io.containerd.server.v1.grpc"]
  address = "SOCKET"

[plugins."io.containerd.server.v1.ttrpc"]
  address = "SOCKET.ttrpc"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"

  [plugins."io.containerd.cri.v1.images".pinned_images]
PINNED

  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "RUN/registries"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  enable_criu = false

  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"

    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      sandboxer = "podsandbox"

      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "RUNTIME/runc"
        SystemdCgroup = false

  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["RUNTIME"]
    conf_dir = "CNI"

[stream_processors]
`

// hostsTOML names the mirrors that are asked, in order, before the registry an image's name says.
func hostsTOML(registries []string) string {
	var b strings.Builder
	b.WriteString("# Written by marina-node at every start.\n")
	for _, r := range registries {
		fmt.Fprintf(&b, "\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", r)
	}
	return b.String()
}
