package containerd

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// DefaultPIDs is how many processes and threads a container may have when nobody said.
const DefaultPIDs = 4096

const (
	nobody    = 65534
	maxFiles  = 1 << 20 // open files of one process, if the machine allows as many
	cpuPeriod = 100_000 // microseconds
	minQuota  = 1_000   // microseconds; the kernel takes no less
)

// capabilities are Docker's default set without NET_RAW (forged packets) and MKNOD (device files).
var capabilities = []string{"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"}

// userns reports whether a container gets a user namespace. In the machine's own network it does not: there it could
// not listen on ports below 1024, which such tasks are for.
func (r *Runtime) userns(c *runtime.Container) bool { return c.NetNS != "" && !r.cfg.NoUserNamespaces }

// IDs is the datacenter's range, which containers share that have none of their own.
func (r *Runtime) IDs() kernel.IDRange {
	if r.cfg.NoUserNamespaces {
		return kernel.IDRange{}
	}
	return kernel.IDRange{First: r.cfg.IDBase, Count: rangeSize}
}

// ids is a container's range on the machine.
func (r *Runtime) ids(c *runtime.Container) kernel.IDRange {
	if c.IDs != nil {
		return *c.IDs
	}
	return r.IDs()
}

// idMap maps the container's ids to its range.
func (r *Runtime) idMap(c *runtime.Container) []specs.LinuxIDMapping {
	ids := r.ids(c)
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: ids.First, Size: ids.Count}}
}

// hostID is the machine's id for a container's.
func (r *Runtime) hostID(c *runtime.Container, id uint32) int {
	if r.userns(c) {
		return int(r.ids(c).First + id)
	}
	return int(id)
}

// specOpts turns a container into the OCI spec; image is nil for one that runs the machine's programs.
func (r *Runtime) specOpts(c *runtime.Container, image containerd.Image, cgroup, sysfs string) ([]oci.SpecOpts, error) {
	opts := []oci.SpecOpts{oci.WithDefaultSpec(), oci.WithDefaultUnixDevices, oci.WithoutRunMount}
	if image == nil {
		argv := c.Argv
		if c.Shell != "" {
			argv = shell(c.Shell)
		}
		user := c.User
		if isNode(c) {
			user = cmp.Or(user, "0")
		}
		opts = append(opts, withMachineUser(user), oci.WithProcessArgs(argv...), oci.WithMounts(machineMounts()))
	} else {
		opts = append(opts, withImage(image, c))
	}
	if c.Dir != "" {
		opts = append(opts, oci.WithProcessCwd(c.Dir))
	}
	if c.TTY {
		opts = append(opts, oci.WithTTY)
	}
	if r.userns(c) {
		// With a user namespace that is there, maps are said beside its path: runc only compares them, but containerd takes
		// from them who is to enter the container's directory.
		opts = append(opts, oci.WithUserNamespace(r.idMap(c), r.idMap(c)),
			oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.UserNamespace, Path: c.UserNS}))
	}
	if c.NetNS != "" {
		opts = append(opts, oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.NetNS}))
	} else {
		opts = append(opts, oci.WithHostNamespace(specs.NetworkNamespace))
	}
	limits, err := r.limits(c)
	if err != nil {
		return nil, err
	}
	opts = append(opts, oci.WithEnv(c.Env), oci.WithHostname(c.Hostname), oci.WithCgroup(cgroup), limits, withFiles,
		withSys(sysfs), oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}), withPath, withImageRoot(image == nil))
	if isNode(c) {
		return append(append(opts, nodeOpts(r.userns(c))...), r.withBinds(c)), nil
	}
	return append(opts, oci.WithCapabilities(capabilities), oci.WithNoNewPrivileges, r.withBinds(c), seccomp.WithDefaultProfile()), nil
}

func shell(command string) []string { return []string{"/bin/sh", "-c", command} }

// withImage applies an image's configuration and what the container says instead: arguments follow the entrypoint, a
// shell command takes its place. Only a user that has to be looked up costs a mount of the image.
func withImage(image containerd.Image, c *runtime.Container) oci.SpecOpts {
	return func(ctx context.Context, client oci.Client, rec *containers.Container, s *oci.Spec) error {
		conf, err := image.Spec(ctx)
		if err != nil {
			return err
		}
		argv := conf.Config.Cmd
		if len(c.Argv) > 0 {
			argv = c.Argv
		}
		argv = slices.Concat(conf.Config.Entrypoint, argv)
		if c.Shell != "" {
			argv = shell(c.Shell)
		}
		if len(argv) == 0 {
			return fmt.Errorf("neither the image nor the task says what to run: %w", errdefs.ErrInvalidArgument)
		}
		s.Process.Args = argv
		s.Process.Env = conf.Config.Env
		s.Process.Cwd = cmp.Or(conf.Config.WorkingDir, "/")
		switch user := cmp.Or(c.User, conf.Config.User); user {
		case "", "0", "root", "0:0":
			return nil
		default:
			return oci.ApplyOpts(ctx, client, rec, s, oci.WithUser(user), oci.WithAdditionalGIDs(user))
		}
	}
}

// limits sets what the cgroup allows, but for the CPU limit, which throttle sets once the task runs.
func (r *Runtime) limits(c *runtime.Container) (oci.SpecOpts, error) {
	swapCounted := r.unified
	if !r.unified {
		f, err := r.files("/")
		if err != nil {
			return nil, err
		}
		_, err = os.Stat(f.path("memory", "memory.memsw.limit_in_bytes"))
		swapCounted = err == nil
	}
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		res := s.Linux.Resources
		res.CPU = &specs.LinuxCPU{Shares: new(shares(c.MilliCPU))}
		if c.MemLimit > 0 {
			res.Memory = &specs.LinuxMemory{Limit: new(c.MemLimit)}
			if swapCounted {
				res.Memory.Swap = new(c.MemLimit) // memory and swap together: no swap
			}
		}
		pids := c.PIDLimit
		if pids == 0 {
			pids = DefaultPIDs
			if isNode(c) {
				pids = NodePIDs
			}
		}
		res.Pids = &specs.LinuxPids{Limit: &pids}
		return nil
	}, nil
}

// withFiles allows as many open files as the machine lets us give: raising a hard limit takes CAP_SYS_RESOURCE.
func withFiles(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return fmt.Errorf("open files limit: %w", err)
	}
	n := min(have.Max, maxFiles)
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: n, Hard: n}}
	return nil
}

// withSys gives the container read-only /sys and its own view of cgroups. sysfs is where /sys is bound from; "" is a
// fresh one, which only a container without a user namespace may mount.
func withSys(sysfs string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		for i := range s.Mounts {
			if m := &s.Mounts[i]; m.Destination == "/sys" && sysfs != "" {
				m.Type, m.Source = "bind", sysfs
				m.Options = []string{"bind", "nosuid", "noexec", "nodev", "ro"}
			}
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}})
		return nil
	}
}

// withPath sets PATH for images and tasks that do not.
func withPath(ctx context.Context, client oci.Client, c *containers.Container, s *oci.Spec) error {
	if slices.ContainsFunc(s.Process.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		return nil
	}
	return oci.WithDefaultPathEnv(ctx, client, c, s)
}

// withImageRoot makes the root filesystem read-only where it is the machine's.
func withImageRoot(machine bool) oci.SpecOpts {
	if machine {
		return oci.WithRootFSReadonly()
	}
	return func(context.Context, oci.Client, *containers.Container, *oci.Spec) error { return nil }
}

// withBinds binds what the agent asked for. With a user namespace, files keep the container's ids on disk (0 is the
// container's root) by an id-mapped mount, where the filesystem can do that; ids on disk so mean the same on any
// machine.
func (r *Runtime) withBinds(c *runtime.Container) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		for _, b := range c.Binds {
			m := specs.Mount{Destination: b.Target, Type: "bind", Source: b.Source, Options: []string{"rbind", "rprivate", "nosuid", "nodev"}}
			if b.ReadOnly {
				m.Options = append(m.Options, "ro")
			}
			if r.userns(c) && !b.Raw {
				mapped, err := r.mappable(b.Source)
				if err != nil {
					return fmt.Errorf("container %s: bind %s: %w", c.ID, b.Source, err)
				}
				if mapped {
					m.Options = append(m.Options, "idmap")
					m.UIDMappings, m.GIDMappings = r.idMap(c), r.idMap(c)
				}
			}
			s.Mounts = append(s.Mounts, m)
		}
		return nil
	}
}

// mappable reports whether what is at path can be mounted with mapped ids: its filesystem says.
func (r *Runtime) mappable(path string) (bool, error) {
	ns, err := r.mapNS()
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
func (c *Config) userNamespace() (*os.File, error) {
	m := fmt.Sprintf("0:%d:%d", c.IDBase, rangeSize)
	f, err := mount.GetUsernsFD(m, m)
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	return f, nil
}

// withMachineUser resolves the user of a task that runs the machine's programs; nobody is the default.
func withMachineUser(name string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		uid, gid := uint64(nobody), uint64(nobody)
		if name != "" {
			u, err := machineUser(name)
			if err != nil {
				return err
			}
			uid, gid = u[0], u[1]
		}
		s.Process.User = specs.User{UID: uint32(uid), GID: uint32(gid)}
		return nil
	}
}

// machineUser reads "name", "uid" or "uid:gid" by the machine's /etc/passwd.
func machineUser(name string) ([2]uint64, error) {
	unknown := fmt.Errorf("user %q is not one of this machine's with an id below %d: %w", name, rangeSize, errdefs.ErrInvalidArgument)
	owner, group, both := strings.Cut(name, ":")
	if uid, err := strconv.ParseUint(owner, 10, 16); err == nil {
		gid := uid
		if both {
			if gid, err = strconv.ParseUint(group, 10, 16); err != nil {
				return [2]uint64{}, unknown
			}
		}
		return [2]uint64{uid, gid}, nil
	}
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return [2]uint64{}, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(line, ":")
		if len(f) < 4 || f[0] != name {
			continue
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 16)
		gid, err2 := strconv.ParseUint(f[3], 10, 16)
		if err1 == nil && err2 == nil {
			return [2]uint64{uid, gid}, nil
		}
	}
	return [2]uint64{}, unknown
}

// machineFiles are what a task without an image sees of the machine's /etc: what programs need to start, resolve names
// and verify certificates. resolv.conf, hosts and hostname come from the agent.
var machineFiles = []string{"alternatives", "ca-certificates", "ca-certificates.conf", "group", "host.conf", "ld.so.cache",
	"ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "os-release", "passwd", "pki/tls/certs", "protocols",
	"profile", "services", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone"}

// machineMounts binds the machine's programs, read-only, and makes places to write.
func machineMounts() []specs.Mount {
	var out []specs.Mount
	for _, p := range machinePaths() {
		out = append(out, specs.Mount{Destination: p, Type: "bind", Source: p,
			Options: []string{"rbind", "rprivate", "ro", "nosuid", "nodev"}})
	}
	for _, p := range []string{"/tmp", "/var/tmp", "/run"} {
		out = append(out, specs.Mount{Destination: p, Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "nodev", "mode=1777", "size=64m"}})
	}
	return out
}

// machinePaths lists what of the machine there is to bind.
func machinePaths() []string {
	var out []string
	for _, d := range machineDirs {
		if st, err := os.Lstat(d); err == nil && st.IsDir() {
			out = append(out, d)
		}
	}
	for _, f := range machineFiles {
		p := filepath.Join("/etc", f)
		if target, err := filepath.EvalSymlinks(p); err == nil && !strings.HasPrefix(target, "/etc/") {
			continue // os-release and localtime lead into /usr: links, made by machineRoot
		} else if err != nil {
			continue
		}
		out = append(out, p)
	}
	return out
}

var machineDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// machineRoot fills the empty root filesystem of a task without an image with what no mount can make, links. All of it
// is the container's root's, who makes the mount points.
func machineRoot(root *os.Root, owner int) error {
	if err := root.Mkdir("etc", 0o755); err != nil {
		return err
	}
	made := []string{"etc"}
	link := func(at, target string) error {
		at = strings.TrimPrefix(at, "/")
		made = append(made, at)
		return root.Symlink(target, at)
	}
	for _, d := range machineDirs {
		if target, err := os.Readlink(d); err == nil {
			if err := link(d, target); err != nil {
				return err
			}
		}
	}
	for _, f := range machineFiles {
		p := filepath.Join("/etc", f)
		target, err := filepath.EvalSymlinks(p)
		if err != nil || strings.HasPrefix(target, "/etc/") || filepath.Dir(f) != "." {
			continue
		}
		if err := link(p, target); err != nil {
			return err
		}
	}
	for _, p := range made {
		if err := root.Lchown(p, owner, owner); err != nil {
			return err
		}
	}
	return nil
}
