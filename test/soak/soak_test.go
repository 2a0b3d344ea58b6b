package soak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

const (
	busybox  = "docker.io/marinaos/busybox:1.35.0" // every node has it
	settle   = 2 * time.Minute                     // for what goes on its own after a cluster is gone
	lookEach = 3 * time.Second
	maxNames = 40 // of what stayed, told by name

	memoryEach = 10 // rounds between two looks at what the long-lived processes have
)

// setting is a number from the environment.
func setting(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number of at least 1", name, text)
	}
	return n
}

func TestSoak(t *testing.T) {
	if os.Getenv("ROUNDS") == "" {
		t.Skip("ROUNDS is not set: make soak")
	}
	rounds, several := setting(t, "ROUNDS", 0), setting(t, "SEVERAL", 2)
	h := testbed.Open(t)
	var with *counted // one cluster; what is not seen then would not be seen when it stays
	if err := round(h, "first", func() error {
		err := h.Witness()
		if err == nil {
			with, err = look(h)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	quiet(h, nil)
	before, err := look(h)
	if err != nil {
		t.Fatal(err)
	}
	begin, failed := time.Now(), 0
	var took []time.Duration
	var memory []string
	begins := private(h)
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, several)
	for n := range rounds {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			begin := time.Now()
			err := round(h, fmt.Sprintf("soak-%d", n+1), nil)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(begin))
			if err != nil {
				failed++
				t.Errorf("round %d: %v", n+1, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %v\n", n+1, rounds, time.Since(begin).Round(time.Second))
			if len(took)%memoryEach == 0 {
				memory = append(memory, fmt.Sprintf("%5d   %s", len(took), private(h)))
			}
		})
	}
	wg.Wait()
	quiet(h, before)
	after, err := look(h)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\n%d clusters created and deleted, %d at a time, %d failed, in %v; a round took p50 %v, max %v\n\n",
		rounds, several, failed,
		time.Since(begin).Round(time.Second), testbed.Percentile(took, 0.5).Round(time.Second),
		slices.Max(took).Round(time.Second))
	fmt.Printf("private memory, MiB\nround   %s\n    0   %s\n%s\n\n", strings.Join(longLived, "  "), begins,
		strings.Join(memory, "\n"))
	compare(t, with, before, after, rounds)
}

// round is the life of one cluster: it comes, runs a pod, is looked at if somebody wants to, and goes.
func round(h *testbed.Datacenter, name string, look func() error) error {
	steps := [][]string{
		{"cluster", "create", name, "--cpus", "0.25", "--mem", "512Mi", "--disk", "2Gi", "--control-plane-cpus", "0.25",
			"--control-plane-mem", "192Mi",
			"--control-plane-disk", "512Mi", "--quiet", "--timeout", "210s"},
		{"cluster", "kubectl", name, "--", "run", "mine", "--image=" + busybox, "--restart=Never", "--command", "--",
			"sleep", "1000000"},
		{"cluster", "kubectl", name, "--", "wait", "--for=condition=Ready", "pod/mine", "--timeout=120s"},
	}
	var err error
	for _, args := range steps {
		if o := h.Run(args...); o.Code != 0 {
			err = fmt.Errorf("marina %s: %d %.2000s", strings.Join(args, " "), o.Code, o.Err+o.Out)
			break
		}
	}
	if err == nil && look != nil {
		err = look()
	}
	if o := h.Run("cluster", "delete", name, "--yes", "--quiet"); o.Code != 0 {
		err = errors.Join(err, fmt.Errorf("delete %s: %d %.2000s", name, o.Code, o.Err+o.Out))
	}
	return err
}

// quiet waits until no cluster is left and what has to be exact is as before; without a before, until it no longer
// moves. That it does not become so is compare's to tell.
func quiet(h *testbed.Datacenter, before *counted) {
	want := before
	_ = testbed.Wait(settle, lookEach, func() error {
		o := h.Run("cluster", "list", "--names")
		now, err := look(h)
		if o.Code != 0 || strings.TrimSpace(o.Out) != "" || err != nil {
			return fmt.Errorf("clusters are left: %s%s, %w", o.Out, o.Err, err)
		}
		if want != nil && now.like(want) {
			return nil
		}
		if before == nil {
			want = now
		}
		return errors.New("it moves")
	})
}

// like reports whether of everything that has to be exact there is as much.
func (c *counted) like(other *counted) bool {
	for i, x := range c.counts {
		if x.exact && x.n != other.counts[i].n {
			return false
		}
	}
	return true
}

// compare prints the table and what stayed by name; what has to be exact and is not is an error.
func compare(t *testing.T, with, before, after *counted, rounds int) {
	fmt.Print("| what | with a cluster | before | after | difference | a round |\n|---|---|---|---|---|---|\n")
	for i, a := range after.counts {
		b := before.counts[i]
		if a.comes && with.counts[i].n <= b.n {
			t.Errorf("%s: a cluster adds none: it is looked for in the wrong place", a.what)
		}
		fmt.Printf("| %s | %d | %d | %d | %+d | %+.2f |\n", a.what, with.counts[i].n, b.n, a.n, a.n-b.n,
			float64(a.n-b.n)/float64(rounds))
	}
	for i, a := range after.values {
		b := before.values[i]
		what := a.what
		if a.unit != "" {
			what += ", " + a.unit
		}
		fmt.Printf("| %s | %.1f | %.1f | %.1f | %+.1f | %+.2f |\n", what, with.values[i].n, b.n, a.n, a.n-b.n,
			(a.n-b.n)/float64(rounds))
	}
	for i, a := range after.counts {
		stayed := slices.DeleteFunc(slices.Clone(a.names), func(name string) bool {
			_, was := slices.BinarySearch(before.counts[i].names, name)
			return was
		})
		if len(stayed) == 0 {
			continue
		}
		fmt.Printf("\n%s, new: %d\n", a.what, len(stayed))
		if len(stayed) > maxNames {
			fmt.Print(byDir(stayed))
			stayed = stayed[:maxNames/4]
		}
		for _, name := range stayed {
			fmt.Printf("  %s\n", name)
		}
		if a.exact && a.n > before.counts[i].n {
			t.Errorf("%s: %d were there before, %d after %d rounds", a.what, before.counts[i].n, a.n, rounds)
		}
	}
}

// byDir counts paths by what they begin with.
func byDir(names []string) string {
	dirs := map[string]int{}
	for _, name := range names {
		parts := strings.SplitN(strings.TrimPrefix(name, "/"), "/", 4)
		dirs["/"+strings.Join(parts[:min(len(parts), 3)], "/")]++
	}
	var lines []string
	for dir, n := range dirs {
		lines = append(lines, fmt.Sprintf("  %6d %s\n", n, dir))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(b, a) })
	return strings.Join(lines[:min(len(lines), maxNames)], "")
}

// deviceOf returns a file's device and how many blocks of 512 bytes it takes.
func deviceOf(info fs.FileInfo) (device uint64, blocks int64) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Dev), s.Blocks
	}
	return 0, 0
}
