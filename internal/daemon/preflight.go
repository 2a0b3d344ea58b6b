package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/network"
)

// Preflight checks whether this machine can be a datacenter. It changes nothing.
func Preflight(ctx context.Context, cfg Config) []kernel.Finding {
	s, err := cfg.complete()
	if err != nil {
		return []kernel.Finding{{Severity: kernel.Fatal, What: err.Error()}}
	}
	var out []kernel.Finding
	for _, check := range []func(context.Context, *site) []kernel.Finding{root, kernelRelease, cgroups, filesystem, programs, limits, ports, neighbours} {
		out = append(out, check(ctx, s)...)
	}
	return out
}

func good(format string, args ...any) []kernel.Finding {
	return []kernel.Finding{{Severity: kernel.Good, What: fmt.Sprintf(format, args...)}}
}

func warning(do, format string, args ...any) []kernel.Finding {
	return []kernel.Finding{{Severity: kernel.Warning, What: fmt.Sprintf(format, args...), Do: do}}
}

func fatal(do, format string, args ...any) []kernel.Finding {
	return []kernel.Finding{{Severity: kernel.Fatal, What: fmt.Sprintf(format, args...), Do: do}}
}

func root(context.Context, *site) []kernel.Finding {
	if os.Geteuid() != 0 {
		return fatal("sudo marina up", "containers, networks and cgroups need root, this is uid %d", os.Geteuid())
	}
	return nil
}

func kernelRelease(context.Context, *site) []kernel.Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fatal("", "uname: %v", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	fmt.Sscanf(release, "%d.%d", &major, &minor)
	if major < 5 || major == 5 && minor < 15 {
		return fatal("a distribution with Linux 5.15 or newer", "kernel %s is too old", release)
	}
	return good("kernel %s", release)
}

// cgroups wants every controller that limits tasks, in version 1 or 2.
func cgroups(context.Context, *site) []kernel.Finding {
	if b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		have := strings.Fields(string(b))
		for _, want := range []string{"cpu", "memory", "pids"} {
			if !contains(have, want) {
				return fatal("enable it for the root group in /sys/fs/cgroup/cgroup.subtree_control", "cgroup v2 has no %s controller", want)
			}
		}
		return warning("", "cgroups v2 (the same code as v1, not yet proven on as many machines)")
	}
	for _, want := range []string{"cpu", "memory", "pids", "freezer", "devices"} {
		if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", want)); err != nil {
			return fatal("mount -t cgroup -o "+want+" "+want+" /sys/fs/cgroup/"+want, "the %s cgroup controller is not mounted", want)
		}
	}
	return good("cgroups v1 with cpu, memory, pids, freezer, devices")
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// leastFree is what a datacenter needs of its state folder's filesystem to begin.
const leastFree = kernel.GiB

func filesystem(_ context.Context, s *site) []kernel.Finding {
	if err := s.checkState(); err != nil {
		return fatal("", "%v", err)
	}
	dir := s.State
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fatal("", "state folder %s: %v", s.State, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if free < leastFree {
		return fatal("free some, or choose another folder with MARINA_STATE", "%s has %s free, %s are needed", dir, kernel.FormatBytes(free), kernel.FormatBytes(leastFree))
	}
	if b, err := os.ReadFile("/proc/filesystems"); err == nil && !strings.Contains(string(b), "overlay") {
		return fatal("modprobe overlay", "the kernel has no overlay filesystem")
	}
	return good("%s free under %s", kernel.FormatBytes(free), dir)
}

func programs(_ context.Context, s *site) []kernel.Finding {
	var out []kernel.Finding
	for _, p := range []string{"containerd", "containerd-shim-runc-v2", "runc", "bridge", "loopback", "static"} {
		if _, err := os.Stat(filepath.Join(s.Runtime, p)); err != nil {
			out = append(out, fatal("make build", "%s is missing in %s", p, s.Runtime)...)
		}
	}
	if len(out) == 0 {
		out = good("container runtime in %s", s.Runtime)
	}
	for program, of := range map[string]string{"nft": "nftables", "mkfs.ext4": "e2fsprogs"} {
		if _, err := exec.LookPath(program); err != nil {
			out = append(out, warning("apt-get install "+of, "the program %s is missing: Kubernetes clusters need it", program)...)
		}
	}
	return out
}

// limits tells what small kernel limits mean; nothing of it stops a start.
func limits(context.Context, *site) []kernel.Finding {
	var out []kernel.Finding
	for _, l := range []struct {
		file  string
		least int
		what  string
	}{
		{"/proc/sys/fs/inotify/max_user_instances", 512, "fs.inotify.max_user_instances"},
		{"/proc/sys/kernel/keys/maxkeys", 1000, "kernel.keys.maxkeys"},
		{"/proc/sys/kernel/pid_max", 100000, "kernel.pid_max"},
	} {
		b, err := os.ReadFile(l.file)
		var n int
		if err != nil || fmtScan(b, &n) != nil || n >= l.least {
			continue
		}
		out = append(out, warning(fmt.Sprintf("sysctl -w %s=%d", l.what, l.least), "%s is %d: enough for some hundred tasks", l.what, n)...)
	}
	return out
}

func fmtScan(b []byte, n *int) error {
	_, err := fmt.Sscan(string(b), n)
	return err
}

// ports names whoever holds a port the datacenter wants.
func ports(_ context.Context, s *site) []kernel.Finding {
	if pid := durable.Holder(s.daemonPID()); pid != 0 {
		return good("the datacenter's daemon runs already (process %d)", pid)
	}
	var out []kernel.Finding
	for flag, addr := range map[string]string{"--https": s.HTTPS, "--http": s.HTTP, "--agent-port": s.AgentPort} {
		if addr == "off" {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
			continue
		}
		out = append(out, fatal("stop it, or choose another port with "+flag, "port %s is taken%s", addr, holder(addr))...)
	}
	if len(out) == 0 {
		out = good("ports %s, %s and %s are free", s.HTTPS, s.HTTP, s.AgentPort)
	}
	return out
}

// holder is " by process 812 (nginx)", as far as that can be told.
func holder(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil {
		return ""
	}
	if who := network.Owner(network.Port{Protocol: "tcp", Number: uint16(n)}); who != "" {
		return " by " + who
	}
	return ""
}

// neighbours looks for what others on the machine have that would be in the way, and names it.
func neighbours(ctx context.Context, s *site) []kernel.Finding {
	bridge := network.BridgeName(s.id)
	if err := network.CheckConflicts(bridge, s.pool, s.vips); err != nil {
		return fatal("choose other addresses with --pool and --vips", "%v", err)
	}
	found, err := network.Preflight(ctx, bridge)
	if err != nil {
		return warning("", "the machine's packet rules could not be read: %v", err)
	}
	var out []kernel.Finding
	for _, f := range found {
		out = append(out, warning(f.Do, "%s: tasks would be cut off", f.What)...)
	}
	if len(out) == 0 {
		out = good("containers get addresses of %s, services of %s", s.pool, s.vips)
	}
	return out
}
