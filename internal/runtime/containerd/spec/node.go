package spec

import (
	"context"
	"os"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// NodePIDs bounds a node's processes and threads, those of its pods included, unless it is said.
const NodePIDs = 16384

// IsNode reports whether a container is a machine in a container.
func IsNode(c *runtime.Container) bool { return c.Class == kernel.ClassNode }

// nodeTmpfs lists the directories in memory that a node can write, beside its volumes: mode and size.
var nodeTmpfs = map[string]string{
	"/run": "mode=0755,size=256m", "/tmp": "mode=1777,size=256m", "/etc/cni": "mode=0755,size=1m",
}

// nodeOpts adds what only nodes have; docs/design/0001 has the reasons. All capabilities are those of its
// own user namespace, which also owns its network: over the machine they are nothing. That is why nothing is masked and
// no system call is filtered: what is within the node's rights works, and the kernel refuses the rest. Without a user
// namespace there can be no more capabilities than ours.
func nodeOpts(userns bool) []oci.SpecOpts {
	capabilities := oci.WithAllKnownCapabilities
	if !userns {
		capabilities = oci.WithAllCurrentCapabilities
	}
	return []oci.SpecOpts{
		capabilities, oci.WithNewPrivileges, oci.WithMaskedPaths(nil), oci.WithReadonlyPaths(nil),
		func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
			s.Linux.Seccomp = nil
			s.Linux.RootfsPropagation = "rshared"
			kept := s.Mounts[:0]
			for _, m := range s.Mounts {
				if _, own := nodeTmpfs[m.Destination]; own || m.Destination == "/var/tmp" {
					continue
				}
				switch m.Destination {
				case "/sys":
					m.Options = []string{"nosuid", "noexec", "nodev", "rw"}
				case "/sys/fs/cgroup":
					m.Options = []string{"nosuid", "noexec", "nodev", "relatime", "rw"}
				}
				kept = append(kept, m)
			}
			s.Mounts = kept
			for _, at := range []string{"/run", "/tmp", "/etc/cni"} {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs",
					Options: []string{"nosuid", "nodev", nodeTmpfs[at]}})
			}
			return withFuse(s)
		},
	}
}

// withFuse gives a container /dev/fuse, if the machine has it and lets everybody use it, as udev sets it up: in a user
// namespace a device is the machine's own, with its mode.
func withFuse(s *oci.Spec) error {
	var st unix.Stat_t
	if err := unix.Stat("/dev/fuse", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Mode&0o006 != 0o006 {
		return nil //nolint:nilerr // it has none
	}
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{
		Path: "/dev/fuse", Type: "c", Major: major, Minor: minor, FileMode: new(os.FileMode(0o666))})
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
		Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"})
	return nil
}
