package cluster

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kubernetes"
)

// cores is a flag for processors: "0.5", or "500m" as Kubernetes writes it.
type cores float64

func (c *cores) String() string { return output.Number(float64(*c)) }

// Type names it in the help.
func (c *cores) Type() string { return "cpus" }

// Set reads it.
func (c *cores) Set(s string) error {
	number, milli := strings.CutSuffix(s, "m")
	f, err := strconv.ParseFloat(number, 64)
	if milli {
		f /= 1000
	}
	if err != nil || !(f > 0 && f < 1<<20) {
		return errors.New("write a number of processors: 2, 0.5 or 500m")
	}
	*c = cores(f)
	return nil
}

// mebibytes is a flag for memory and disk: a number of MiB, or "2Gi".
type mebibytes float64

func (m *mebibytes) String() string {
	if *m == 0 {
		return ""
	}
	return output.MiB(float64(*m))
}

// Type names it in the help.
func (m *mebibytes) Type() string { return "size" }

// Set reads it.
func (m *mebibytes) Set(s string) error {
	number, factor := strings.TrimSuffix(s, "B"), 1.0
	for suffix, f := range map[string]float64{"Ki": 1.0 / 1024, "Mi": 1, "Gi": 1024, "Ti": 1 << 20} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, factor = n, f
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if f *= factor; err != nil || !(f > 0 && f < 1<<40) {
		return errors.New("write 2Gi, 512Mi, or a number of MiB")
	}
	*m = mebibytes(math.Ceil(f))
	return nil
}

// sizes are the flags for what members are granted; zero is not said.
type sizes struct {
	cpus, planeCPUs                cores
	mem, disk, planeMem, planeDisk mebibytes
}

func (s *sizes) flags(c *cobra.Command) {
	f := c.Flags()
	f.Var(&s.cpus, "cpus", "processors guaranteed to each node, 0.5 or 500m")
	f.Var(&s.mem, "mem", "memory of each node, 2Gi or a number of MiB")
	f.Var(&s.disk, "disk", "disk of each node for images, logs and volumes")
	f.Var(&s.planeCPUs, "control-plane-cpus", "processors guaranteed to the control plane")
	f.Var(&s.planeMem, "control-plane-mem", "memory guaranteed to the control plane; it may use four times as much")
	f.Var(&s.planeDisk, "control-plane-disk", "disk of the control plane, for etcd")
}

// put writes what was said into a definition and reports whether anything was.
func (s *sizes) put(d *kubernetes.Definition) bool {
	said := false
	set := func(to *float64, value float64) {
		if value != 0 {
			*to, said = value, true
		}
	}
	set(&d.Nodes.CPUs, float64(s.cpus))
	set(&d.Nodes.Mem, float64(s.mem))
	set(&d.Nodes.Disk, float64(s.disk))
	set(&d.ControlPlane.CPUs, float64(s.planeCPUs))
	set(&d.ControlPlane.Mem, float64(s.planeMem))
	set(&d.ControlPlane.Disk, float64(s.planeDisk))
	return said
}
