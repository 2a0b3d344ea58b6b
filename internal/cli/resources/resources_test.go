package resources

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/kernel"
)

func TestAmountsAreReadAsPeopleGiveThem(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		mayNone    bool
		want       kernel.Resources
	}{
		{"cpus", "0.5", false, kernel.Resources{MilliCPU: 500}},
		{"cpus", "2", false, kernel.Resources{MilliCPU: 2000}},
		{"mem", "512", false, kernel.Resources{Mem: 512 * kernel.MiB}},
		{"mem", "0.5", false, kernel.Resources{Mem: kernel.MiB / 2}},
		{"disk", "1024", false, kernel.Resources{Disk: kernel.GiB}},
		{"gpus", "3", false, kernel.Resources{GPUs: 3}},
		{"cpus", "none", true, kernel.Resources{MilliCPU: kernel.Unlimited}},
		{"mem", "none", true, kernel.Resources{Mem: kernel.Unlimited}},
		{"mem", "1e300", false, kernel.Resources{Mem: 1 << 62}}, // no overflow
	} {
		var got kernel.Resources
		if err := Set(&got, tc.name, tc.text, tc.mayNone); err != nil || got != tc.want {
			t.Errorf("%s %s: %+v (%v), want %+v", tc.name, tc.text, got, err, tc.want)
		}
	}
}

func TestAmountsThatAreNoneAreRefusedByName(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		mayNone    bool
		says       string
	}{
		{"cpus", "many", false, `cpus "many": expected a number`},
		{"cpus", "many", true, "expected a number, or none"},
		{"cpus", "none", false, "expected a number"},
		{"mem", "NaN", false, "expected a number"},
		{"mem", "Inf", true, "expected a number"},
		{"mem", "-2", false, "expected a number"},
		{"mem", "-1", true, "a limit cannot be negative"},
		{"", "1", false, `"" is not among cpus, mem, disk, gpus`},
		{"ram", "1", false, `"ram" is not among`},
	} {
		r := kernel.Resources{MilliCPU: 7}
		err := Set(&r, tc.name, tc.text, tc.mayNone)
		if !exit.Is(err, exit.BadUsage) || !strings.Contains(err.Error(), tc.says) || r != (kernel.Resources{MilliCPU: 7}) {
			t.Errorf("%s %q: %v and %+v, want %q and nothing changed", tc.name, tc.text, err, r, tc.says)
		}
	}
}

func TestOnlyWhatWasSaidIsChanged(t *testing.T) {
	var a Amounts
	c := &cobra.Command{Use: "set"}
	a.Flags(c.Flags(), "limit: ", ", or none")
	if usage := c.Flags().Lookup("mem").Usage; usage != "limit: memory in MiB, or none" {
		t.Errorf("the help of --mem is %q", usage)
	}
	if err := c.ParseFlags([]string{"--cpus", "4", "--disk", "none"}); err != nil {
		t.Fatal(err)
	}
	r := kernel.Resources{MilliCPU: 1, Mem: 2, Disk: 3, GPUs: 4}
	if err := a.Read(c, &r, true); err != nil || r != (kernel.Resources{MilliCPU: 4000, Mem: 2, Disk: kernel.Unlimited,
		GPUs: 4}) {
		t.Errorf("read %+v (%v), want cpus and disk changed alone", r, err)
	}
	if err := a.Read(c, &r, false); !exit.Is(err, exit.BadUsage) {
		t.Errorf("none where there is none: %v, want it refused", err)
	}
}

func TestRolesArePaths(t *testing.T) {
	for role, want := range map[string]string{"/prod": "/prod", "prod/web": "/prod/web", "/": "/",
		"/a b/c?": "/a%20b/c%3F", "/a/": "/a"} {
		if got := RolePath(role); got != want {
			t.Errorf("%q: %q, want %q", role, got, want)
		}
	}
}
