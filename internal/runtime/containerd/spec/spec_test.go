package spec

import (
	"context"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// build makes the spec of a container that runs the machine's programs. What is only known of a kernel with user
// namespaces is not asked: binds are Raw.
func build(c runtime.Container, ids *IDs, at Place) (*oci.Spec, error) {
	if c.Shell == "" && len(c.Argv) == 0 {
		c.Argv = []string{"/bin/true"}
	}
	ctx := namespaces.WithNamespace(context.Background(), "test")
	return oci.GenerateSpec(ctx, nil, &containers.Container{ID: "test"}, Opts(ids, &c, at)...)
}

func mountAt(s *oci.Spec, at string) *specs.Mount {
	i := slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == at })
	if i < 0 {
		return nil
	}
	return &s.Mounts[i]
}

func namespace(s *oci.Spec, kind specs.LinuxNamespaceType) (path string, own bool) {
	for _, n := range s.Linux.Namespaces {
		if n.Type == kind {
			return n.Path, true
		}
	}
	return "", false
}

var testIDs = &IDs{base: 1_000_000}

func TestAnOrdinaryContainerHasNoMoreThanItNeeds(t *testing.T) {
	c := runtime.Container{NetNS: "/run/netns", Hostname: "h", Env: []string{"A=b"}, MilliCPU: 1500, MemLimit: 64 << 20,
		Binds: []runtime.Bind{{Source: "/s", Target: "/t", ReadOnly: true, Raw: true}}}
	s, err := build(c, testIDs, Place{Cgroup: "/marina-x/g", CountsSwap: true, Sysfs: "/sysfs"})
	if err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string][]string{"bounding": s.Process.Capabilities.Bounding,
		"effective": s.Process.Capabilities.Effective, "permitted": s.Process.Capabilities.Permitted} {
		if !slices.Equal(set, capabilities) {
			t.Errorf("%s capabilities: got %v, want %v", name, set, capabilities)
		}
	}
	if len(s.Process.Capabilities.Ambient)+len(s.Process.Capabilities.Inheritable) > 0 {
		t.Errorf("got ambient or inheritable capabilities: %+v", s.Process.Capabilities)
	}
	if s.Linux.Seccomp == nil || !s.Process.NoNewPrivileges ||
		len(s.Linux.MaskedPaths) == 0 || len(s.Linux.ReadonlyPaths) == 0 {
		t.Error("it lacks a filter of system calls, no_new_privs or masks")
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace,
		specs.MountNamespace, specs.CgroupNamespace, specs.UserNamespace} {
		if path, own := namespace(s, kind); !own || path != "" {
			t.Errorf("%s namespace: got %q, own: %t, want a new one", kind, path, own)
		}
	}
	if path, _ := namespace(s, specs.NetworkNamespace); path != "/run/netns" {
		t.Errorf("network namespace: got %q", path)
	}
	if m := s.Linux.UIDMappings; len(m) != 1 || m[0] != (specs.LinuxIDMapping{HostID: 1_000_000, Size: RangeSize}) {
		t.Errorf("uid map: got %+v", m)
	}
	if u := s.Process.User; u.UID != nobody || u.GID != nobody {
		t.Errorf("user: got %d:%d, want nobody", u.UID, u.GID)
	}
	if m := mountAt(s, "/sys"); m == nil || m.Source != "/sysfs" || !slices.Contains(m.Options, "ro") {
		t.Errorf("/sys: got %+v, want the namespace's, read-only", m)
	}
	if m := mountAt(s, "/t"); m == nil || m.Source != "/s" || !slices.Contains(m.Options, "ro") ||
		!slices.Contains(m.Options, "nosuid") || slices.Contains(m.Options, "idmap") {
		t.Errorf("bind: got %+v", m)
	}
	r := s.Linux.Resources
	if *r.CPU.Shares != 1536 || *r.Memory.Limit != 64<<20 || *r.Memory.Swap != 64<<20 || *r.Pids.Limit != DefaultPIDs {
		t.Errorf("limits: got %+v %+v %+v", r.CPU, r.Memory, r.Pids)
	}
	if !s.Root.Readonly || s.Linux.CgroupsPath != "/marina-x/g" || s.Hostname != "h" {
		t.Errorf("root read-only: %t, cgroup %s, hostname %s", s.Root.Readonly, s.Linux.CgroupsPath, s.Hostname)
	}
	if env := s.Process.Env; !slices.Contains(env, "A=b") ||
		!slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		t.Errorf("environment: got %v, want its own and a PATH", env)
	}
}

func TestInTheMachinesNetworkThereIsNoUserNamespace(t *testing.T) {
	for _, ids := range []*IDs{testIDs, {none: true}} {
		c := runtime.Container{}
		if ids.none {
			c.NetNS = "/run/netns"
		}
		s, err := build(c, ids, Place{})
		if err != nil {
			t.Fatal(err)
		}
		if _, own := namespace(s, specs.UserNamespace); own || len(s.Linux.UIDMappings) > 0 || ids.Root(&c) != 0 {
			t.Errorf("got a user namespace or a map: %v", s.Linux.UIDMappings)
		}
		if _, own := namespace(s, specs.NetworkNamespace); own == (c.NetNS == "") {
			t.Errorf("network namespace of its own: %t", own)
		}
		if s.Linux.Seccomp == nil || !s.Process.NoNewPrivileges ||
			!slices.Equal(s.Process.Capabilities.Bounding, capabilities) {
			t.Error("the rest does not hold")
		}
	}
	if r := (&IDs{none: true}).Shared(); r != (kernel.IDRange{}) {
		t.Errorf("shared ids without user namespaces: got %+v, want none", r)
	}
}

func TestANodeHasTheRightsOfItsUserNamespace(t *testing.T) {
	own := kernel.IDRange{First: 5_000_000, Count: 1000}
	c := runtime.Container{Class: kernel.ClassNode, IDs: &own, NetNS: "/run/netns", UserNS: "/run/userns"}
	s, err := build(c, testIDs, Place{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Linux.Seccomp != nil || s.Process.NoNewPrivileges || len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) > 0 {
		t.Error("it is filtered or masked")
	}
	if !slices.Contains(s.Process.Capabilities.Effective, "CAP_SYS_ADMIN") || s.Process.User.UID != 0 {
		t.Errorf("user %d with %v, want root with all", s.Process.User.UID, s.Process.Capabilities.Effective)
	}
	if path, _ := namespace(s, specs.UserNamespace); path != "/run/userns" || testIDs.Root(&c) != 5_000_000 {
		t.Errorf("user namespace: got %q and root %d, want that of its network", path, testIDs.Root(&c))
	}
	if m := s.Linux.UIDMappings; len(m) != 1 || m[0].HostID != own.First || m[0].Size != own.Count {
		t.Errorf("uid map: got %+v, want its own range", m)
	}
	if m := mountAt(s, "/sys/fs/cgroup"); m == nil || !slices.Contains(m.Options, "rw") {
		t.Errorf("its cgroups: got %+v, want to be written", m)
	}
	if got := *s.Linux.Resources.Pids.Limit; got != NodePIDs || s.Linux.RootfsPropagation != "rshared" {
		t.Errorf("got %d processes and propagation %s", got, s.Linux.RootfsPropagation)
	}
	c.PIDLimit, c.User = 7, "1:2"
	if s, err = build(c, testIDs, Place{}); err != nil || *s.Linux.Resources.Pids.Limit != 7 || s.Process.User.GID != 2 {
		t.Errorf("with a limit and a user of its own: got %v, %v", s.Linux.Resources.Pids, err)
	}
}

func TestUsersOfTheMachineAreReadAndOthersRefused(t *testing.T) {
	for name, want := range map[string][2]uint64{"root": {0, 0}, "0": {0, 0}, "12:34": {12, 34}, "65535": {65535, 65535}} {
		if got, err := machineUser(name); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, want)
		}
	}
	for _, name := range []string{"nosuchuser", "65536", "-1", "1:", "1:x", "1:65536", ":1", "root:0", "4294967296"} {
		if got, err := machineUser(name); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %v, %v, want an invalid argument", name, got, err)
		}
	}
	if _, err := build(runtime.Container{User: "nosuchuser"}, testIDs, Place{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a container of an unknown user: got %v", err)
	}
}

func TestTheMachinesSecretsAreNotBound(t *testing.T) {
	whole := []string{"/", "/etc", "/root", "/home", "/var", "/run", "/proc", "/dev"}
	for _, m := range machineMounts() {
		if m.Type == "tmpfs" {
			continue
		}
		for _, option := range []string{"ro", "nosuid", "nodev"} {
			if !slices.Contains(m.Options, option) {
				t.Errorf("%s: options %v, want %s among them", m.Destination, m.Options, option)
			}
		}
		for _, secret := range []string{"shadow", "ssh", "private"} {
			if strings.Contains(strings.TrimPrefix(m.Destination, "/etc/ssl"), secret) {
				t.Errorf("%s is bound", m.Destination)
			}
		}
		if slices.Contains(whole, m.Destination) {
			t.Errorf("%s is bound", m.Destination)
		}
	}
}

func TestTheMachinesRootIsMadeOfLinksThatItsOwnerMayChange(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := MachineRoot(root, os.Getuid()); err != nil {
		t.Fatal(err)
	}
	for _, d := range machineDirs {
		want, err := os.Readlink(d)
		if err != nil {
			continue // a directory, which is bound, or none
		}
		if got, err := os.Readlink(filepath.Join(dir, d)); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q as on the machine", d, got, err, want)
		}
	}
	if err := MachineRoot(root, os.Getuid()); err == nil {
		t.Error("made twice in one place")
	}
}

// newNetNS makes a network namespace and returns its path; it ends with the test.
func newNetNS(t *testing.T) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(at, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		goruntime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", at, "", unix.MS_BIND, "")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount network namespace: %v", err)
		}
	})
	return at
}

func TestASysfsIsUnmountedByItsUndo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	dir, ns := t.TempDir(), newNetNS(t)
	at, undo, err := Sysfs(ns, dir)
	if err != nil {
		t.Fatal(err)
	}
	links, err := os.ReadDir(filepath.Join(at, "class", "net"))
	if err != nil || len(links) != 1 || links[0].Name() != "lo" {
		t.Errorf("got %v, %v, want the one link of a new network namespace", links, err)
	}
	if err := undo(); err != nil {
		t.Error(err)
	}
	if _, _, err := Sysfs("/nowhere", dir); err == nil {
		t.Error("of a namespace that is not there: mounted")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
