package definition

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// Minors are the minors of Kubernetes that clusters can have, newest first; bundle/kubernetes has a directory for each.
var Minors = []string{"1.37", "1.36"}

var (
	nameForm  = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)
	groupForm = regexp.MustCompile(`^/([a-z0-9]([a-z0-9-]*[a-z0-9])?(/[a-z0-9]([a-z0-9-]*[a-z0-9])?)*)?$`)
)

// Bounds of what members are granted, in MiB and cores.
const (
	minNodeCPUs, maxCPUs = 0.1, 512
	minNodeMem, maxMem   = 384, 4 << 20
	minNodeDisk, maxDisk = 2048, 64 << 20
	minPlaneCPUs         = 0.01
	minPlaneMem          = 192
	minPlaneDisk         = 512
	defaultNodeCPUs      = 0.5
	defaultNodeMem       = 1024
	defaultNodeDisk      = 8192
	defaultPlaneCPUs     = 0.1
	defaultPlaneMem      = 256
	defaultPlaneDisk     = 2048
	defaultPods          = "10.244.0.0/16"
	defaultServices      = "10.96.0.0/16"
	nodePrefix           = 24 // of each node's pods
	minServices          = 24 // longest prefix of a service range
	maxServices          = 12
)

// Complete fills in defaults and refuses what cannot be, with an errdefs.ErrInvalidArgument that names the field.
func (d Cluster) Complete() (Cluster, error) {
	if len(d.Name) > MaxName || !nameForm.MatchString(d.Name) {
		return d, invalid("name %.60q: expected a to z, 0 to 9 and dashes inside, beginning with a letter, at most %d in all",
			d.Name, MaxName)
	}
	set(&d.Group, "/")
	if len(d.Group) > 256 || !groupForm.MatchString(d.Group) {
		return d, invalid("group %.60q: expected a path of the quota tree, such as /team-a", d.Group)
	}
	d.Version = strings.TrimPrefix(d.Version, "v")
	set(&d.Version, Minors[0])
	if !slices.Contains(Minors, d.Version) {
		return d, invalid("version %.20q: there are %s (the newest release of each)", d.Version,
			strings.Join(Minors, " and "))
	}
	if d.Nodes.Count == nil {
		d.Nodes.Count = new(1)
	}
	if n := *d.Nodes.Count; n < 0 || n > MaxNodes {
		return d, invalid("nodes.count %d: expected 0 (a control plane alone) to %d", n, MaxNodes)
	}
	if d.Encryption == nil {
		d.Encryption = new(true)
	}
	for _, f := range []struct {
		name              string
		value             *float64
		otherwise         float64
		smallest, largest float64
	}{
		{"nodes.cpus", &d.Nodes.CPUs, defaultNodeCPUs, minNodeCPUs, maxCPUs},
		{"nodes.mem", &d.Nodes.Mem, defaultNodeMem, minNodeMem, maxMem},
		{"nodes.disk", &d.Nodes.Disk, defaultNodeDisk, minNodeDisk, maxDisk},
		{"controlPlane.cpus", &d.ControlPlane.CPUs, defaultPlaneCPUs, minPlaneCPUs, maxCPUs},
		{"controlPlane.mem", &d.ControlPlane.Mem, defaultPlaneMem, minPlaneMem, maxMem},
		{"controlPlane.disk", &d.ControlPlane.Disk, defaultPlaneDisk, minPlaneDisk, maxDisk},
	} {
		set(f.value, f.otherwise)
		if v := *f.value; math.IsNaN(v) || v < f.smallest || v > f.largest {
			return d, invalid("%s %s: expected %s to %s", f.name, number(v), number(f.smallest), number(f.largest))
		}
	}
	return d, d.ranges()
}

// number is a float as people write it.
func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// ranges fills in and checks the address ranges.
func (d *Cluster) ranges() error {
	set(&d.PodCIDR, defaultPods)
	set(&d.ServiceCIDR, defaultServices)
	pods, err := netip.ParsePrefix(d.PodCIDR)
	if err != nil || !pods.Addr().Is4() || pods != pods.Masked() || pods.Bits() > nodePrefix || pods.Bits() < 8 {
		return invalid("podCIDR %.40q: expected an IPv4 range of /8 to /%d, such as %s", d.PodCIDR, nodePrefix, defaultPods)
	}
	if room := 1 << (nodePrefix - pods.Bits()); *d.Nodes.Count > room {
		return invalid("podCIDR %s: each node takes a /%d of it, which is enough for %d nodes and not for %d", d.PodCIDR,
			nodePrefix, room, *d.Nodes.Count)
	}
	services, err := netip.ParsePrefix(d.ServiceCIDR)
	if err != nil || !services.Addr().Is4() || services != services.Masked() || services.Bits() > minServices ||
		services.Bits() < maxServices {
		return invalid("serviceCIDR %.40q: expected an IPv4 range of /%d to /%d, such as %s", d.ServiceCIDR, maxServices,
			minServices, defaultServices)
	}
	if pods.Overlaps(services) {
		return invalid("podCIDR %s and serviceCIDR %s overlap: choose another for one of them", d.PodCIDR, d.ServiceCIDR)
	}
	return nil
}

// Clear reports a range of the cluster that the datacenter uses itself: nodes could not tell the two apart.
func (d *Cluster) Clear(pool, vips netip.Prefix) error {
	for _, f := range []struct{ name, cidr string }{{"podCIDR", d.PodCIDR}, {"serviceCIDR", d.ServiceCIDR}} {
		p := netip.MustParsePrefix(f.cidr)
		for what, of := range map[string]netip.Prefix{"addresses of tasks": pool, "VIPs": vips} {
			if of.IsValid() && p.Overlaps(of) {
				return invalid("%s %s overlaps %s, the datacenter's %s: choose another", f.name, f.cidr, of, what)
			}
		}
	}
	return nil
}

// Change is the definition that an update makes of d. What never changes is an errdefs.ErrInvalidArgument if it would.
func (d Cluster) Change(to Cluster) (Cluster, error) {
	for _, f := range []struct {
		name     string
		had, now *string
	}{{"group", &d.Group, &to.Group}, {"version", &d.Version, &to.Version}, {"podCIDR", &d.PodCIDR, &to.PodCIDR},
		{"serviceCIDR", &d.ServiceCIDR, &to.ServiceCIDR}} {
		if *f.now == "" {
			*f.now = *f.had
		}
		if f.name == "version" {
			*f.now = strings.TrimPrefix(*f.now, "v")
		}
		if *f.now != *f.had {
			return d, invalid("%s of cluster %s is %s and never changes: create another cluster", f.name, d.Name, *f.had)
		}
	}
	if to.Encryption != nil && *to.Encryption != *d.Encryption || to.Audit && !d.Audit ||
		to.Privileged != nil && d.Privileged != nil && *to.Privileged != *d.Privileged {
		return d, invalid("audit, encryption and privileged of cluster %s never change: create another cluster", d.Name)
	}
	to.Audit, to.Encryption, to.Privileged = d.Audit, d.Encryption, d.Privileged
	if to.Nodes.Count == nil {
		to.Nodes.Count = d.Nodes.Count
	}
	for _, f := range []struct{ had, now *float64 }{{&d.Nodes.CPUs, &to.Nodes.CPUs}, {&d.Nodes.Mem, &to.Nodes.Mem},
		{&d.Nodes.Disk, &to.Nodes.Disk},
		{&d.ControlPlane.CPUs, &to.ControlPlane.CPUs}, {&d.ControlPlane.Mem, &to.ControlPlane.Mem},
		{&d.ControlPlane.Disk, &to.ControlPlane.Disk}} {
		set(f.now, *f.had)
	}
	if to.Nodes.Disk != d.Nodes.Disk || to.ControlPlane.Disk != d.ControlPlane.Disk {
		return d, invalid("disks of cluster %s never change: create another cluster", d.Name)
	}
	return to.Complete()
}

// Guarantee returns the resources that all of a cluster takes from the pool.
func (d *Cluster) Guarantee() kernel.Resources {
	return d.PlaneSize().Guarantee.Add(kernel.Resources{Disk: MiB(d.ControlPlane.Disk)}).
		Add(d.NodeSize().Guarantee.Add(kernel.Resources{Disk: MiB(d.Nodes.Disk)}).Times(int64(*d.Nodes.Count)))
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
