package density

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

var (
	maxClusters = flag.Int("clusters", 40, "most clusters to create")
	step        = flag.Int("step", 1, "clusters to create between two looks at what they use")
	settleFor   = flag.Duration("settle", 30*time.Second, "how long they are left alone before they are looked at")
	idleFor     = flag.Duration("idle", time.Minute, "how long they are looked at")
	patience    = flag.Duration("patience", 5*time.Minute, "how long one cluster may take to come or to go")
	enough      = flag.Float64("enough", 0.5, "cores that idle clusters may use together")
	nodeCPUs    = flag.Float64("node-cpus", 0.1, "processors guaranteed to a node")
	nodeMem     = flag.Int("node-mem", 512, "MiB of a node")
	planeCPUs   = flag.Float64("plane-cpus", 0.01, "processors guaranteed to a control plane")
	planeMem    = flag.Int("plane-mem", 192, "MiB guaranteed to a control plane")
)

var shop = sync.OnceValues(testbed.OpenWorkshop)

// rows are the lines of the table, in the order they were measured.
var rows [][4]string

// row adds a line: what, how much, the budget or peer beside it, and what it was measured with.
func row(what, got, budget, how string) {
	fmt.Fprintf(os.Stderr, "%s: %s\n", what, got)
	rows = append(rows, [4]string{what, got, budget, how})
}

func TestMain(m *testing.M) {
	code := m.Run()
	if len(rows) > 0 {
		fmt.Print("\n| what | measured | budget | how |\n|---|---|---|---|\n")
		for _, r := range rows {
			fmt.Printf("| %s | %s | %s | %s |\n", r[0], r[1], r[2], r[3])
		}
	}
	if len(rows) == 0 {
		os.Exit(code) // no workshop was opened
	}
	if w, err := shop(); err == nil {
		if err := w.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// open starts a datacenter that is taken away at the end.
func open(b *testing.B) (*testbed.Datacenter, *testbed.Client) {
	b.Helper()
	w, err := shop()
	if errors.Is(err, testbed.ErrNotReal) {
		b.Skip(err)
	}
	if err != nil {
		b.Fatal(err)
	}
	h, err := w.Open()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := h.Close(); err != nil {
			b.Error(err)
		}
	})
	c, err := h.Client()
	if err != nil {
		b.Fatal(err)
	}
	return h, c
}

// rest leaves everything alone for a while.
func rest(b *testing.B, during time.Duration) {
	testbed.Always(b, during, "rest", func() error { return nil })
}

// spread says the middle and the worst of some times.
func spread(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	return fmt.Sprintf("p50 %s, max %s", brief(testbed.Percentile(times, 0.5)), brief(slices.Max(times)))
}

func tail(times []time.Duration) string {
	return fmt.Sprintf("p50 %s, p99 %s", brief(testbed.Percentile(times, 0.5)), brief(testbed.Percentile(times, 0.99)))
}

func brief(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// several says the mean of some values, with the least and the most if there are several.
func several(values []float64, form string) string {
	if len(values) == 0 {
		return "none"
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	out := fmt.Sprintf(form, sum/float64(len(values)))
	if least, most := slices.Min(values), slices.Max(values); len(values) > 1 && math.Round(10*least) != math.Round(10*most) {
		out += fmt.Sprintf(" ("+form+" to "+form+")", least, most)
	}
	return out
}
