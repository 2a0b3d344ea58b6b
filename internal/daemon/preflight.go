package daemon

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/kernel"
	host "github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/network"
	"github.com/marinaos/marina/internal/settings"
)

// Preflight checks whether this machine can be a datacenter. It changes nothing.
func Preflight(ctx context.Context, cfg settings.Datacenter) []kernel.Finding {
	c, err := resolve(cfg)
	if err != nil {
		return []kernel.Finding{{Severity: kernel.Fatal, What: err.Error()}}
	}
	out := host.Preflight()
	for _, check := range []func(context.Context, *config) []kernel.Finding{filesystem, programs, ports, neighbours} {
		out = append(out, check(ctx, c)...)
	}
	return out
}

// leastFree is the space that a datacenter needs for its state directory to begin.
const leastFree = kernel.GiB

func filesystem(_ context.Context, c *config) []kernel.Finding {
	if err := c.checkState(); err != nil {
		return host.Fatal("", "%v", err)
	}
	dir := c.State
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return host.Fatal("", "state directory %s: %v", c.State, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if free < leastFree {
		return host.Fatal("free some, or choose another directory with MARINA_STATE", "%s has %s free, %s are needed", dir,
			kernel.FormatBytes(free), kernel.FormatBytes(leastFree))
	}
	if b, err := os.ReadFile("/proc/filesystems"); err == nil && !strings.Contains(string(b), "overlay") {
		return host.Fatal("modprobe overlay", "the kernel has no overlay filesystem")
	}
	return host.Good("%s free under %s", kernel.FormatBytes(free), dir)
}

func programs(_ context.Context, c *config) []kernel.Finding {
	var out []kernel.Finding
	for _, p := range []string{"containerd", "containerd-shim-runc-v2", "runc", "bridge", "loopback", "static"} {
		if _, err := os.Stat(filepath.Join(c.Runtime, p)); err != nil {
			out = append(out, host.Fatal("make build", "%s is missing in %s", p, c.Runtime)...)
		}
	}
	if len(out) == 0 {
		out = host.Good("container runtime in %s", c.Runtime)
	}
	for program, of := range map[string]string{"nft": "nftables", "mkfs.ext4": "e2fsprogs"} {
		if _, err := exec.LookPath(program); err != nil {
			out = append(out, host.Warning("apt-get install "+of, "the program %s is missing: Kubernetes clusters need it",
				program)...)
		}
	}
	return out
}

// ports names whoever holds a port the datacenter wants.
func ports(_ context.Context, c *config) []kernel.Finding {
	if pid := durable.Holder(c.daemonPID()); pid != 0 {
		return host.Good("the datacenter's daemon runs already (process %d)", pid)
	}
	var out []kernel.Finding
	for flag, addr := range map[string]string{"--https": c.HTTPS, "--http": c.HTTP, "--agent-port": c.AgentPort} {
		if addr == settings.Off {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
			continue
		}
		out = append(out, host.Fatal("stop it, or choose another port with "+flag, "port %s is taken%s", addr,
			holder(addr))...)
	}
	if len(out) == 0 {
		out = host.Good("ports %s, %s and %s are free", c.HTTPS, c.HTTP, c.AgentPort)
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
func neighbours(ctx context.Context, c *config) []kernel.Finding {
	bridge := network.BridgeName(c.id)
	if err := network.CheckConflicts(bridge, c.pool, c.vips); err != nil {
		return host.Fatal("choose other addresses with --pool and --vips", "%v", err)
	}
	found, err := network.Preflight(ctx, bridge)
	if err != nil {
		return host.Warning("", "the machine's packet rules could not be read: %v", err)
	}
	var out []kernel.Finding
	for _, f := range found {
		out = append(out, host.Warning(f.Do, "%s: tasks would be cut off", f.What)...)
	}
	if len(out) == 0 {
		out = host.Good("containers get addresses of %s, services of %s", c.pool, c.vips)
	}
	return out
}
