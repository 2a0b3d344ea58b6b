package kernel

import (
	"fmt"
	"math"
	"strings"
)

// Unlimited as a component of a limit means that the machine sets no bound.
const Unlimited = -1

// MiB and GiB are byte counts; Marathon's "mem" and "disk" are MiB.
const (
	MiB = int64(1) << 20
	GiB = int64(1) << 30
)

// Resources is an amount of what a machine gives away. The zero value is nothing.
type Resources struct {
	MilliCPU int64 `json:"milliCPU,omitempty"` // thousandths of a core
	Mem      int64 `json:"mem,omitempty"`      // bytes
	Disk     int64 `json:"disk,omitempty"`     // bytes
	GPUs     int64 `json:"gpus,omitempty"`     // whole devices
}

// Add returns r plus o; a sum that would overflow is the largest value.
func (r Resources) Add(o Resources) Resources {
	return Resources{add(r.MilliCPU, o.MilliCPU), add(r.Mem, o.Mem), add(r.Disk, o.Disk), add(r.GPUs, o.GPUs)}
}

// Sub returns r minus o; components may become negative, which Fits treats as nothing free.
func (r Resources) Sub(o Resources) Resources {
	return Resources{add(r.MilliCPU, -o.MilliCPU), add(r.Mem, -o.Mem), add(r.Disk, -o.Disk), add(r.GPUs, -o.GPUs)}
}

// Neg returns r with all signs turned: what gives r back where r was added.
func (r Resources) Neg() Resources { return Resources{}.Sub(r) }

// Times returns r n times over, saturating.
func (r Resources) Times(n int64) Resources {
	return Resources{mul(r.MilliCPU, n), mul(r.Mem, n), mul(r.Disk, n), mul(r.GPUs, n)}
}

// Fits reports whether r can be taken out of free.
func (r Resources) Fits(free Resources) bool {
	return r.MilliCPU <= free.MilliCPU && r.Mem <= free.Mem && r.Disk <= free.Disk && r.GPUs <= free.GPUs
}

// Components are the names of the parts of Resources, in the order in which they are judged and shown.
var Components = [...]string{"cpus", "mem", "disk", "gpus"}

// Parts are the amounts of each of the Components.
func (r Resources) Parts() [len(Components)]int64 {
	return [...]int64{r.MilliCPU, r.Mem, r.Disk, r.GPUs}
}

// Most is the larger of each component of both.
func (r Resources) Most(o Resources) Resources {
	return Resources{max(r.MilliCPU, o.MilliCPU), max(r.Mem, o.Mem), max(r.Disk, o.Disk), max(r.GPUs, o.GPUs)}
}

// Least is the smaller of each component of both.
func (r Resources) Least(o Resources) Resources {
	return Resources{min(r.MilliCPU, o.MilliCPU), min(r.Mem, o.Mem), min(r.Disk, o.Disk), min(r.GPUs, o.GPUs)}
}

// Lacking returns the names of the components of which free has less than r.
func (r Resources) Lacking(free Resources) []string {
	if r.Fits(free) {
		return nil
	}
	var out []string
	have := free.Parts()
	for c, want := range r.Parts() {
		if want > have[c] {
			out = append(out, Components[c])
		}
	}
	return out
}

// Amount is one component for people: "0.5", "128 MiB".
func (r Resources) Amount(name string) string {
	switch name {
	case "cpus":
		return fmt.Sprintf("%g", float64(r.MilliCPU)/1000)
	case "mem":
		return FormatBytes(r.Mem)
	case "disk":
		return FormatBytes(r.Disk)
	default:
		return fmt.Sprint(r.GPUs)
	}
}

// IsZero reports whether nothing is asked or held.
func (r Resources) IsZero() bool { return r == Resources{} }

// Valid reports whether no component is negative.
func (r Resources) Valid() bool { return r.MilliCPU >= 0 && r.Mem >= 0 && r.Disk >= 0 && r.GPUs >= 0 }

// String is for people: "0.5 cpus, 128 MiB mem".
func (r Resources) String() string {
	var parts []string
	if r.MilliCPU != 0 {
		parts = append(parts, fmt.Sprintf("%g cpus", float64(r.MilliCPU)/1000))
	}
	for _, c := range []struct {
		name  string
		bytes int64
	}{{"mem", r.Mem}, {"disk", r.Disk}} {
		if c.bytes != 0 {
			parts = append(parts, FormatBytes(c.bytes)+" "+c.name)
		}
	}
	if r.GPUs != 0 {
		parts = append(parts, fmt.Sprintf("%d gpus", r.GPUs))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// FormatBytes writes a byte count in the largest binary unit that keeps it readable: "512 MiB", "1.5 GiB".
func FormatBytes(n int64) string {
	switch {
	case n >= GiB || n <= -GiB:
		return trimFloat(float64(n)/float64(GiB)) + " GiB"
	case n >= MiB || n <= -MiB:
		return trimFloat(float64(n)/float64(MiB)) + " MiB"
	default:
		return fmt.Sprintf("%d B", n)
	}
}

func trimFloat(f float64) string { return fmt.Sprintf("%g", math.Round(f*10)/10) }

// add and mul saturate, so that an absurd request is refused for being too large and never wraps into a small one.
func add(a, b int64) int64 {
	s := a + b
	switch {
	case a > 0 && b > 0 && s < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && s >= 0:
		return math.MinInt64
	}
	return s
}

func mul(a, n int64) int64 {
	if a == 0 || n == 0 {
		return 0
	}
	p := a * n
	if p/n != a || (a == math.MinInt64 && n == -1) {
		if (a > 0) == (n > 0) {
			return math.MaxInt64
		}
		return math.MinInt64
	}
	return p
}
