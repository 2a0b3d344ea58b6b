package agent

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
)

// What a machine keeps for itself when the configuration does not say: shares of it.
const (
	memoryKept = 16 // one part of so many
	diskKept   = 10
)

// describe is the machine as the master is told of it. What cannot be found out is left out and warned about.
func (a *Agent) describe() kernel.Agent {
	out := kernel.Agent{ID: a.self.ID, Hostname: a.cfg.Hostname, Address: a.cfg.Address, Attributes: a.cfg.Attributes,
		Region: a.cfg.Region, Zone: a.cfg.Zone, Ports: a.cfg.Ports, Version: a.cfg.Version,
		Kernel: kernelRelease(), Cgroup: cgroupVersion(), Warnings: append([]string(nil), a.cfg.Warnings...), Bundles: a.cfg.BundleVersions()}
	if !kernelAtLeast(out.Kernel, 5, 15) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("kernel %s is older than 5.15", out.Kernel))
	}
	if a.rt.IDs().Count == 0 {
		attributes := map[string]string{}
		maps.Copy(attributes, out.Attributes)
		attributes[kernel.UserNamespaces] = "no"
		out.Attributes = attributes
		out.Warnings = append(out.Warnings, "there are no user namespaces: root in a container is root of the machine, with fewer rights")
	}
	if a.cfg.Total != nil {
		out.Total = *a.cfg.Total
		return out
	}
	memory, err := totalMemory()
	if err != nil {
		out.Warnings = append(out.Warnings, "memory unknown: "+err.Error())
	}
	total := kernel.Resources{MilliCPU: int64(runtime.NumCPU()) * 1000, Mem: memory, Disk: a.self.Disk}
	kept := a.cfg.Reserve
	kept.Mem = either(kept.Mem, memory/memoryKept)
	kept.Disk = either(kept.Disk, a.self.Disk/diskKept)
	out.Total = total.Sub(kept)
	out.Total.MilliCPU, out.Total.Mem, out.Total.Disk = max(0, out.Total.MilliCPU), max(0, out.Total.Mem), max(0, out.Total.Disk)
	return out
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// kernelAtLeast compares a release such as "6.18.0-rc1"; one that is not of that form is taken for new.
func kernelAtLeast(release string, major, minor int) bool {
	a, rest, _ := strings.Cut(release, ".")
	b, _, _ := strings.Cut(rest, ".")
	x, errA := strconv.Atoi(a)
	y, errB := strconv.Atoi(b)
	return errA != nil || errB != nil || x > major || x == major && y >= minor
}

// cgroupVersion is "v2" where the unified hierarchy has controllers to give, else "v1".
func cgroupVersion() string {
	if b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil && len(strings.TrimSpace(string(b))) > 0 {
		return "v2"
	}
	return "v1"
}

func totalMemory() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemTotal:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo does not say MemTotal")
}
