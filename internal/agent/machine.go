package agent

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/machine"
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
		Kernel: machine.KernelRelease(), Cgroup: machine.CgroupVersion(), Warnings: append([]string(nil), a.cfg.Warnings...),
		Bundles: a.cfg.BundleVersions()}
	if !machine.ReleaseAtLeast(out.Kernel, 5, 15) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("kernel %s is older than 5.15", out.Kernel))
	}
	if a.rt.IDs().Count == 0 {
		attributes := map[string]string{}
		maps.Copy(attributes, out.Attributes)
		attributes[kernel.UserNamespaces] = "no"
		out.Attributes = attributes
		out.Warnings = append(out.Warnings, "there are no user namespaces: root in a container is root of the machine, "+
			"with fewer rights")
	}
	if a.cfg.Total != nil {
		out.Total = *a.cfg.Total
		return out
	}
	memory, err := machine.Memory()
	if err != nil {
		out.Warnings = append(out.Warnings, "memory unknown: "+err.Error())
	}
	total := kernel.Resources{MilliCPU: int64(runtime.NumCPU()) * 1000, Mem: memory, Disk: a.self.Disk}
	kept := a.cfg.Reserve
	kept.Mem = cmp.Or(kept.Mem, memory/memoryKept)
	kept.Disk = cmp.Or(kept.Disk, a.self.Disk/diskKept)
	out.Total = total.Sub(kept)
	out.Total.MilliCPU, out.Total.Mem, out.Total.Disk = max(0, out.Total.MilliCPU), max(0, out.Total.Mem),
		max(0, out.Total.Disk)
	return out
}
