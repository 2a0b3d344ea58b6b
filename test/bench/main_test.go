package bench

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

var shop = sync.OnceValues(testbed.OpenWorkshop)

// rows are the lines of the table, in the order they were measured.
var rows [][4]string

// row adds a line: what, how much, the budget or peer beside it, and what it was measured with.
func row(b *testing.B, what, got, budget, how string) {
	b.Helper()
	fmt.Fprintf(os.Stderr, "%s: %s\n", what, got)
	rows = append(rows, [4]string{what, got, budget, how})
}

func TestMain(m *testing.M) {
	code := m.Run()
	if w, err := shop(); err == nil {
		if err := w.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if len(rows) > 0 {
		fmt.Print("\n| what | measured | budget | how |\n|---|---|---|---|\n")
		for _, r := range rows {
			fmt.Printf("| %s | %s | %s | %s |\n", r[0], r[1], r[2], r[3])
		}
	}
	os.Exit(code)
}

func workshop(b *testing.B) *testbed.Workshop {
	b.Helper()
	w, err := shop()
	if errors.Is(err, testbed.ErrNotReal) {
		b.Skip(err)
	}
	if err != nil {
		b.Fatal(err)
	}
	return w
}

// open starts a datacenter that is taken away at the end.
func open(b *testing.B, flags ...string) (*testbed.Datacenter, *testbed.Client) {
	b.Helper()
	w := workshop(b)
	ranges, err := testbed.Ranges()
	if err != nil {
		b.Fatal(err)
	}
	h, err := w.New(append(ranges, flags...)...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := h.Close(); err != nil {
			b.Error(err)
		}
	})
	if _, err := h.Up(); err != nil {
		b.Fatal(err)
	}
	if err := h.Load(w.Probe); err != nil {
		b.Fatal(err)
	}
	c, err := h.Client()
	if err != nil {
		b.Fatal(err)
	}
	return h, c
}

// spread says the middle and the 99th of a hundred of some times.
func spread(times []time.Duration) string {
	return fmt.Sprintf("p50 %s, p99 %s", brief(testbed.Percentile(times, 0.5)), brief(testbed.Percentile(times, 0.99)))
}

func brief(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func middle(times []time.Duration) time.Duration { return testbed.Percentile(slices.Clone(times), 0.5) }
