package spec

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// RangeSize is the number of user ids in a container: all that 16 bits can name.
const RangeSize = 1 << 16

// IDs maps the ids in containers to those of the machine. Make it with NewIDs.
type IDs struct {
	base   uint32                   // root of containers that have no range of their own
	none   bool                     // no user namespaces: ids in containers are the machine's
	asking func() (*os.File, error) // a user namespace with our mapping, to ask filesystems about
}

// NewIDs returns the mapping of a datacenter whose shared range begins at base. Where the kernel makes no user
// namespaces, because says why, and ids in containers are the machine's, as they are with none.
func NewIDs(base uint32, none bool) (ids *IDs, because error) {
	ids = &IDs{base: base, none: none}
	ids.asking = sync.OnceValues(ids.userNamespace)
	if !none {
		if _, because = ids.asking(); because != nil {
			ids.none = true
		}
	}
	return ids, because
}

// Shared is the datacenter's range, which containers share that have none of their own. See runtime.Runtime's IDs.
func (m *IDs) Shared() kernel.IDRange {
	if m.none {
		return kernel.IDRange{}
	}
	return kernel.IDRange{First: m.base, Count: RangeSize}
}

// Mapped reports whether a container gets a user namespace. In the machine's own network it does not: there it could
// not listen on ports below 1024, which such tasks are for.
func (m *IDs) Mapped(c *runtime.Container) bool { return c.NetNS != "" && !m.none }

// of is a container's range on the machine.
func (m *IDs) of(c *runtime.Container) kernel.IDRange {
	if c.IDs != nil {
		return *c.IDs
	}
	return m.Shared()
}

// Map maps the container's ids to its range.
func (m *IDs) Map(c *runtime.Container) []specs.LinuxIDMapping {
	ids := m.of(c)
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: ids.First, Size: ids.Count}}
}

// Root is the machine's id for a container's root.
func (m *IDs) Root(c *runtime.Container) int {
	if m.Mapped(c) {
		return int(m.of(c).First)
	}
	return 0
}

// withBinds binds what the agent asked for. With a user namespace, files keep the container's ids on disk (0 is the
// container's root) by an id-mapped mount, where the filesystem can do that; ids on disk so mean the same on any
// machine.
func (m *IDs) withBinds(c *runtime.Container) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		for _, b := range c.Binds {
			bind := specs.Mount{Destination: b.Target, Type: "bind", Source: b.Source,
				Options: []string{"rbind", "rprivate", "nosuid", "nodev"}}
			if b.ReadOnly {
				bind.Options = append(bind.Options, "ro")
			}
			if m.Mapped(c) && !b.Raw {
				mapped, err := m.mappable(b.Source)
				if err != nil {
					return fmt.Errorf("container %s: bind %s: %w", c.ID, b.Source, err)
				}
				if mapped {
					bind.Options = append(bind.Options, "idmap")
					bind.UIDMappings, bind.GIDMappings = m.Map(c), m.Map(c)
				}
			}
			s.Mounts = append(s.Mounts, bind)
		}
		return nil
	}
}

// mappable reports whether what is at path can be mounted with mapped ids: its filesystem says.
func (m *IDs) mappable(path string) (bool, error) {
	ns, err := m.asking()
	if err != nil {
		return false, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr) == nil, nil
}

// userNamespace makes a user namespace with our mapping that lives as long as the returned file.
func (m *IDs) userNamespace() (*os.File, error) {
	all := fmt.Sprintf("0:%d:%d", m.base, RangeSize)
	f, err := mount.GetUsernsFD(all, all)
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	return f, nil
}
