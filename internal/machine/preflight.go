package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Good is a check that found nothing wrong.
func Good(format string, args ...any) []kernel.Finding {
	return []kernel.Finding{{Severity: kernel.Good, What: fmt.Sprintf(format, args...)}}
}

// Warning is a check that found a drawback, and what to do about it.
func Warning(do, format string, args ...any) []kernel.Finding {
	return []kernel.Finding{{Severity: kernel.Warning, What: fmt.Sprintf(format, args...), Do: do}}
}

// Fatal is a check that found why it will not work, and what to do about it.
func Fatal(do, format string, args ...any) []kernel.Finding {
	return []kernel.Finding{{Severity: kernel.Fatal, What: fmt.Sprintf(format, args...), Do: do}}
}

// Preflight checks what a datacenter needs of Linux itself: rights, version, control groups, limits.
func Preflight() []kernel.Finding {
	var out []kernel.Finding
	out = append(out, root(os.Geteuid())...)
	out = append(out, release(KernelRelease())...)
	out = append(out, cgroups(cgroupRoot)...)
	return append(out, smallLimits(procSys)...)
}

func root(uid int) []kernel.Finding {
	if uid != 0 {
		return Fatal("sudo marina up", "containers, networks and cgroups need root, this is uid %d", uid)
	}
	return nil
}

func release(is string) []kernel.Finding {
	if is == "" || !ReleaseAtLeast(is, 5, 15) {
		return Fatal("a distribution with Linux 5.15 or newer", "kernel %s is too old", is)
	}
	return Good("kernel %s", is)
}

// cgroups wants every controller that limits tasks, in version 1 or 2.
func cgroups(at string) []kernel.Finding {
	missing, version := missingController(at)
	switch {
	case missing != "" && version == "v2":
		return Fatal("enable it for the root group in "+at+"/cgroup.subtree_control",
			"cgroup v2 has no %s controller", missing)
	case missing != "":
		return Fatal("mount -t cgroup -o "+missing+" "+missing+" "+at+"/"+missing, "the %s cgroup controller is not mounted",
			missing)
	case version == "v2":
		return Warning("", "cgroups v2 (the same code as v1, not yet proven on as many machines)")
	}
	return Good("cgroups v1 with cpu, memory, pids, freezer, devices")
}

// smallLimits tells what small limits of the kernel mean; nothing of it stops a start.
func smallLimits(sys string) []kernel.Finding {
	var out []kernel.Finding
	for _, l := range []struct {
		name  string
		least int
	}{{"fs/inotify/max_user_instances", 512}, {"kernel/keys/maxkeys", 1000}, {"kernel/pid_max", 100000}} {
		b, err := os.ReadFile(filepath.Join(sys, l.name))
		if err != nil {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || n >= l.least {
			continue
		}
		name := strings.ReplaceAll(l.name, "/", ".")
		out = append(out, Warning(fmt.Sprintf("sysctl -w %s=%d", name, l.least), "%s is %d: enough for some hundred tasks",
			name, n)...)
	}
	return out
}
