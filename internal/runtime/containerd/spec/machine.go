package spec

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const nobody = 65534

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
	unknown := fmt.Errorf("user %q is not one of this machine's with an id below %d: %w",
		name, RangeSize, errdefs.ErrInvalidArgument)
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

// machineFiles lists the part of the machine's /etc that a task without an image sees: what programs need to start,
// resolve names and verify certificates. resolv.conf, hosts and hostname come from the agent.
var machineFiles = []string{"alternatives", "ca-certificates", "ca-certificates.conf", "group", "host.conf",
	"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "os-release", "passwd",
	"pki/tls/certs", "protocols", "profile", "services", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone"}

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
			continue // os-release and localtime lead into /usr: links, made by MachineRoot
		} else if err != nil {
			continue
		}
		out = append(out, p)
	}
	return out
}

var machineDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// MachineRoot fills the empty root filesystem of a task without an image with what no mount can make, links. All of it
// is the container's root's, who makes the mount points.
func MachineRoot(root *os.Root, owner int) error {
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
