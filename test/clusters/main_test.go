package clusters

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

// readyLimit is how long a cluster may take to become ready on a busy machine; settleLimit is for what is quick on an
// idle one.
const (
	readyLimit  = 8 * time.Minute
	settleLimit = 3 * time.Minute
	pace        = 200 * time.Millisecond // between two looks into a cluster
)

// proberImage has prober in it.
const proberImage = "marina.test/prober:1"

// world is the datacenter with two clusters that tests share.
type world struct {
	*testbed.Datacenter
	dc       *testbed.Client
	one, two *hosted // of the newest minor with two nodes; of the one before with one node
	archive  string  // of proberImage
}

var (
	shop   = sync.OnceValues(testbed.OpenWorkshop)
	shared = sync.OnceValues(open)
	opened *testbed.Datacenter // guarded by shared
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "4") // tests wait most of the time
	code := m.Run()
	if err := closeAll(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: the datacenter that tests shared:", err)
		code = 1
	}
	os.Exit(code)
}

func closeAll() error {
	var err error
	if opened != nil {
		err = opened.Close()
	}
	if w, werr := shop(); werr == nil {
		err = errors.Join(err, w.Close())
	}
	return err
}

// minors are those whose programs are built, newest first.
func minors(w *testbed.Workshop) (built []string) {
	for _, minor := range []string{"1.37", "1.36"} {
		if _, err := os.Stat(filepath.Join(w.Bundle("v"+minor), "VERSION")); err == nil {
			built = append(built, minor)
		}
	}
	return built
}

// built is where the programs of clusters are, or skips the test.
func built(t *testing.T) *testbed.Workshop {
	t.Helper()
	required := os.Getenv("MARINA_REQUIRE_REAL") != ""
	w, err := shop()
	if errors.Is(err, testbed.ErrNotReal) && !required {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, bundle := range []string{"node", "addons"} {
		_, err := os.Stat(filepath.Join(w.Bundle(bundle), "VERSION"))
		if err != nil && required {
			t.Fatalf("%v: make -C bundle/kubernetes builds it", err)
		}
		if err != nil {
			t.Skipf("%v: make -C bundle/kubernetes builds it", err)
		}
	}
	switch built := minors(w); {
	case len(built) < 2 && required:
		t.Fatalf("only %v are built: make -C bundle/kubernetes all", built)
	case len(built) == 0:
		t.Skip("no minor of Kubernetes is built: make -C bundle/kubernetes all")
	}
	return w
}

// enter opens the shared datacenter, if it is not open, or skips the test.
func enter(t *testing.T) *world {
	t.Helper()
	built(t)
	x, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("clusters:\n%s", x.Run("cluster", "show", x.one.name).Out+x.Run("cluster", "show", x.two.name).Out)
		}
	})
	x.KeepLogs(t)
	return x
}

// open makes the datacenter and both clusters, at the same time.
func open() (*world, error) {
	w, err := shop()
	if err != nil {
		return nil, err
	}
	x := &world{}
	if x.archive, err = w.Image(proberImage, "test/clusters/prober", "-user", "0:0"); err != nil {
		return nil, err
	}
	if opened, err = w.Open(); err != nil {
		return nil, err
	}
	x.Datacenter = opened
	if x.dc, err = x.Client(); err != nil {
		return nil, err
	}
	built := minors(w)
	newest, before := built[0], built[len(built)-1]
	begin := time.Now()
	for _, c := range []struct {
		into  **hosted
		name  string
		minor string
		nodes string
	}{{&x.one, "one", newest, "2"}, {&x.two, "two", before, "1"}} {
		*c.into = &hosted{world: x, name: c.name, minor: c.minor}
		if err := failed(x.create(c.name, "--version", c.minor, "--nodes", c.nodes)); err != nil {
			return nil, err
		}
	}
	for _, c := range x.both() {
		if err := failed(x.Run("cluster", "wait", c.name, "--timeout", readyLimit.String())); err != nil {
			return nil, err
		}
		if err := c.connect(); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(os.Stderr, "both clusters are ready after %v\n", time.Since(begin).Round(100*time.Millisecond))
	return x, failed(x.Run("image", "load", x.archive, "--cluster", "one,two"))
}

func (x *world) both() []*hosted { return []*hosted{x.one, x.two} }

// create asks for a small cluster and does not wait for it.
func (x *world) create(name string, flags ...string) testbed.Output {
	return x.Run(append([]string{"cluster", "create", name, "--no-wait", "--cpus", "0.25", "--disk", "3Gi", "--control-plane-cpus", "0.1",
		"--control-plane-disk", "512Mi"}, flags...)...)
}

// failed is the error of a command that did not end well.
func failed(o testbed.Output) error {
	if o.Code == 0 {
		return nil
	}
	return fmt.Errorf("marina ended with %d: %s", o.Code, strings.TrimSpace(o.Err+o.Out))
}

// inBoth runs a test in both clusters at the same time.
func inBoth(t *testing.T, f func(*testing.T, *hosted)) {
	x := enter(t)
	for _, c := range x.both() {
		t.Run(c.name+" of "+c.minor, func(t *testing.T) {
			t.Parallel()
			f(t, c)
		})
	}
}
