package spec

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
	"github.com/marinaos/marina/internal/runtime/containerd/cgroup"
)

// DefaultPIDs bounds a container's processes and threads unless it is said.
const DefaultPIDs = 4096

const maxFiles = 1 << 20 // open files of one process, if the machine allows as many

// capabilities are Docker's default set without NET_RAW (forged packets) and MKNOD (device files).
var capabilities = []string{"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"}

// Place has what the machine adds to a container.
type Place struct {
	Image      containerd.Image // nil: it runs the machine's programs
	Cgroup     string           // its own
	CountsSwap bool             // a limit can be set for memory and swap together
	Sysfs      string           // a sysfs of its network namespace, bound to /sys; "": it mounts its own
}

// Opts turns a container into the OCI spec.
func Opts(ids *IDs, c *runtime.Container, at Place) []oci.SpecOpts {
	opts := []oci.SpecOpts{oci.WithDefaultSpec(), oci.WithDefaultUnixDevices, oci.WithoutRunMount}
	if at.Image == nil {
		opts = append(opts, withMachine(c)...)
	} else {
		opts = append(opts, withImage(at.Image, c))
	}
	if c.Dir != "" {
		opts = append(opts, oci.WithProcessCwd(c.Dir))
	}
	if c.TTY {
		opts = append(opts, oci.WithTTY)
	}
	if ids.Mapped(c) {
		// With a user namespace that is there, maps are said beside its path: runc only compares them, but containerd
		// takes from them who is to enter the container's directory.
		opts = append(opts, oci.WithUserNamespace(ids.Map(c), ids.Map(c)),
			oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.UserNamespace, Path: c.UserNS}))
	}
	if c.NetNS != "" {
		opts = append(opts, oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.NetNS}))
	} else {
		opts = append(opts, oci.WithHostNamespace(specs.NetworkNamespace))
	}
	opts = append(opts, oci.WithEnv(c.Env), oci.WithHostname(c.Hostname), oci.WithCgroup(at.Cgroup),
		withLimits(c, at.CountsSwap), withFiles, withSys(at.Sysfs),
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}), withPath, withImageRoot(at.Image == nil))
	if IsNode(c) {
		return append(append(opts, nodeOpts(ids.Mapped(c))...), ids.withBinds(c))
	}
	return append(opts, oci.WithCapabilities(capabilities), oci.WithNoNewPrivileges, ids.withBinds(c),
		seccomp.WithDefaultProfile())
}

// withMachine has a task without an image run the machine's programs.
func withMachine(c *runtime.Container) []oci.SpecOpts {
	argv := c.Argv
	if c.Shell != "" {
		argv = shell(c.Shell)
	}
	user := c.User
	if IsNode(c) {
		user = cmp.Or(user, "0")
	}
	return []oci.SpecOpts{withMachineUser(user), oci.WithProcessArgs(argv...), oci.WithMounts(machineMounts())}
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

// withLimits sets what the cgroup allows, but for the CPU limit, which cgroup.Group.Throttle sets once the task runs.
func withLimits(c *runtime.Container, countsSwap bool) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		res := s.Linux.Resources
		res.CPU = &specs.LinuxCPU{Shares: new(cgroup.Shares(c.MilliCPU))}
		if c.MemLimit > 0 {
			res.Memory = &specs.LinuxMemory{Limit: new(c.MemLimit)}
			if countsSwap {
				res.Memory.Swap = new(c.MemLimit) // memory and swap together: no swap
			}
		}
		pids := c.PIDLimit
		if pids == 0 {
			pids = DefaultPIDs
			if IsNode(c) {
				pids = NodePIDs
			}
		}
		res.Pids = &specs.LinuxPids{Limit: &pids}
		return nil
	}
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
