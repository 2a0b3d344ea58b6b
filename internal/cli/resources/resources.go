package resources

import (
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/kernel"
)

// Amounts are flags with an amount of each resource, by its component's name: --cpus, --mem, --disk, --gpus.
type Amounts [len(kernel.Components)]string

// Flags adds them to a set; before and after stand around each in its help.
func (a *Amounts) Flags(f *pflag.FlagSet, before, after string) {
	for i, what := range []string{"cores", "memory in MiB", "disk in MiB", "GPUs"} {
		f.StringVar(&a[i], kernel.Components[i], "", before+what+after)
	}
}

// Read changes the components that were given. Where none may be said, it has no limit.
func (a *Amounts) Read(c *cobra.Command, r *kernel.Resources, mayNone bool) error {
	for i, name := range kernel.Components {
		if c.Flags().Changed(name) {
			if err := Set(r, name, a[i], mayNone); err != nil {
				return err
			}
		}
	}
	return nil
}

// Set reads an amount of one component as people give it: cores, MiB, or devices.
func Set(r *kernel.Resources, name, text string, mayNone bool) error {
	n, err := strconv.ParseFloat(text, 64)
	expected := "a number"
	if mayNone {
		expected = "a number, or none"
		if text == "none" {
			n, err = kernel.Unlimited, nil
		} else if n < 0 {
			return exit.Usage("", "%s %s: a limit cannot be negative: none has no limit", name, text)
		}
	}
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || n < 0 && n != kernel.Unlimited {
		return exit.Usage("marina quota set --help", "%s %q: expected %s", name, text, expected)
	}
	scaled := func(by float64) int64 {
		if n == kernel.Unlimited {
			return kernel.Unlimited
		}
		return int64(min(n*by, math.MaxInt64/2))
	}
	switch name {
	case "cpus":
		r.MilliCPU = scaled(1000)
	case "mem":
		r.Mem = scaled(float64(kernel.MiB))
	case "disk":
		r.Disk = scaled(float64(kernel.MiB))
	case "gpus":
		r.GPUs = scaled(1)
	default:
		return exit.Usage("marina quota set --help", "%q is not among %s", name, strings.Join(kernel.Components[:], ", "))
	}
	return nil
}

// RolePath is a role as a path of the API.
func RolePath(role string) string {
	var out strings.Builder
	for _, part := range strings.Split(strings.Trim(role, "/"), "/") {
		out.WriteString("/" + url.PathEscape(part))
	}
	return out.String()
}
