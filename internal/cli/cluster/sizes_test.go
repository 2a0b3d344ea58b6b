package cluster

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kubernetes"
)

func TestProcessorsAreWrittenAsKubernetesOrAsANumber(t *testing.T) {
	for text, want := range map[string]cores{"2": 2, "0.5": 0.5, "500m": 0.5, "1500m": 1.5, "1e1": 10, "0.1m": 0.0001} {
		var c cores
		if err := c.Set(text); err != nil || math.Abs(float64(c-want)) > 1e-9 {
			t.Errorf("%s: got %v, %v, want %v", text, c, err, want)
		}
	}
	for _, text := range []string{"", "m", "0", "-1", "NaN", "Inf", "1e9", "two", "1 m", "1M"} {
		c := cores(7)
		if err := c.Set(text); err == nil || c != 7 {
			t.Errorf("%q: became %v, %v, want it refused", text, c, err)
		}
	}
	if c := cores(1.5); c.String() != "1.5" || c.Type() != "cpus" {
		t.Errorf("%s %s", c.String(), c.Type())
	}
}

func TestSizesAreWrittenInBinaryUnitsOrAsMiB(t *testing.T) {
	for text, want := range map[string]mebibytes{"512": 512, "512Mi": 512, "512MiB": 512, "2Gi": 2048,
		"1.5GiB": 1536, "1Ti": 1 << 20,
		"1024Ki": 1, "1Ki": 1, "0.5": 1} {
		var m mebibytes
		if err := m.Set(text); err != nil || m != want {
			t.Errorf("%s: got %v, %v, want %v", text, m, err, want)
		}
	}
	for _, text := range []string{"", "Gi", "0", "0Gi", "-1Gi", "NaN", "Inf", "2G", "2g", "99999999Ti", "two"} {
		m := mebibytes(7)
		if err := m.Set(text); err == nil || m != 7 {
			t.Errorf("%q: became %v, %v, want it refused", text, m, err)
		}
	}
	if m := mebibytes(0); m.String() != "" || m.Type() != "size" {
		t.Errorf("nothing said is %q", m.String())
	}
	rapid.Check(t, func(t *rapid.T) { // a default in the help is read again
		m := mebibytes(rapid.IntRange(1, 1023).Draw(t, "MiB") * rapid.SampledFrom([]int{1, 1024}).Draw(t, "unit"))
		var again mebibytes
		if err := again.Set(m.String()); err != nil || again != m {
			t.Fatalf("%v is written %s and read as %v, %v", float64(m), m.String(), float64(again), err)
		}
	})
}

func TestOnlyTheSizesThatWereSaidAreChanged(t *testing.T) {
	was := kubernetes.Definition{Nodes: kubernetes.Nodes{CPUs: 1, Mem: 1024, Disk: 8192},
		ControlPlane: kubernetes.ControlPlane{CPUs: 0.5, Mem: 512, Disk: 2048}}
	d := was
	if (&sizes{}).put(&d) || d != was {
		t.Errorf("nothing was said: %+v", d)
	}
	if !(&sizes{cpus: 2, planeDisk: 4096}).put(&d) {
		t.Error("what was said counts as nothing")
	}
	want := was
	want.Nodes.CPUs, want.ControlPlane.Disk = 2, 4096
	if d != want {
		t.Errorf("got %+v, want %+v", d, want)
	}
}
