package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
)

// fake returns a tree of plain directories and files, of either version: what the kernel would answer is not in it,
// but which files are read and written is.
func fake(t *testing.T, unified bool) (
	tree *Tree, put func(controller, name, content string), get func(controller, name string) string) {
	t.Helper()
	root := t.TempDir()
	tree = &Tree{root: "/marina-test", at: map[string]string{}, unified: unified, making: map[string]int{}}
	for _, controller := range []string{"", "cpu", "cpuacct", "memory", "pids"} {
		if unified == (controller == "") {
			tree.at[controller] = filepath.Join(root, "mount-"+controller)
		}
	}
	for _, dir := range tree.Dirs("/marina-test/group/task") {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g := tree.Group("/marina-test/group/task")
	put = func(controller, name, content string) {
		t.Helper()
		if err := os.WriteFile(g.path(controller, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	get = func(controller, name string) string {
		t.Helper()
		b, err := os.ReadFile(g.path(controller, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return tree, put, get
}

func TestPathsStayBelowTheDatacenters(t *testing.T) {
	tree, _, _ := fake(t, true)
	if got, err := tree.Path("group/task"); err != nil || got != "/marina-test/group/task" || !tree.Has(got) {
		t.Errorf("got %q, %v, want it below the root", got, err)
	}
	for _, bad := range []string{"", ".", "..", "../other", "a/../../b", "/absolute", "a//b", "a/", "./a"} {
		if got, err := tree.Path(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %q, %v, want an invalid argument", bad, got, err)
		}
	}
	for _, other := range []string{"/marina-test", "/marina-tests/x", "/marina", "/", ""} {
		if tree.Has(other) {
			t.Errorf("%q is taken for one of the tree", other)
		}
	}
}

func TestLimitsAreWrittenAsEachVersionHasThem(t *testing.T) {
	limits := []runtime.Limits{{MilliCPU: 500, CPULimit: 2000, MemLimit: 1 << 20}, {MilliCPU: 1, CPULimit: 1}}
	t.Run("v1", func(t *testing.T) {
		tree, put, get := fake(t, false)
		put("memory", "cgroup.procs", "")
		put("memory", "memory.memsw.limit_in_bytes", "")
		for i, want := range []string{"512 100000 200000 1048576 1048576", "2 100000 1000 -1 -1"} {
			if err := tree.Group("/marina-test/group/task").Update(limits[i]); err != nil {
				t.Fatal(err)
			}
			got := strings.Join([]string{get("cpu", "cpu.shares"), get("cpu", "cpu.cfs_period_us"),
				get("cpu", "cpu.cfs_quota_us"), get("memory", "memory.limit_in_bytes"),
				get("memory", "memory.memsw.limit_in_bytes")}, " ")
			if got != want {
				t.Errorf("%+v: got %q, want %q", limits[i], got, want)
			}
		}
		if err := tree.Group("/marina-test/group/task").Throttle(0); err != nil || get("cpu", "cpu.cfs_quota_us") != "-1" {
			t.Errorf("without a limit: got %q, %v, want -1", get("cpu", "cpu.cfs_quota_us"), err)
		}
	})
	t.Run("v2", func(t *testing.T) {
		tree, put, get := fake(t, true)
		put("memory", "cgroup.procs", "")
		put("memory", "memory.stat", "anon 1000\nfile 999999999\nshmem 24\nkernel_stack 0\ninactive_file 5\n")
		for i, want := range []string{"20 200000 100000 1048576", "1 1000 100000 max"} {
			if err := tree.Group("/marina-test/group/task").Update(limits[i]); err != nil {
				t.Fatal(err)
			}
			got := strings.Join([]string{get("cpu", "cpu.weight"), get("cpu", "cpu.max"), get("memory", "memory.max")}, " ")
			if got != want {
				t.Errorf("%+v: got %q, want %q", limits[i], got, want)
			}
		}
		err := tree.Group("/marina-test/group/task").Update(runtime.Limits{MilliCPU: 1, MemLimit: 1023})
		if !errdefs.IsFailedPrecondition(err) || get("memory", "memory.max") != "max" {
			t.Errorf("less than is in use: got %v and a limit of %s, want a failed precondition and the old one",
				err, get("memory", "memory.max"))
		}
		if err := tree.Group("/marina-test/group/task").Throttle(0); err != nil || get("cpu", "cpu.max") != "max 100000" {
			t.Errorf("without a limit: got %q, %v", get("cpu", "cpu.max"), err)
		}
	})
}

func TestLimitsOfAContainerThatEndedAreNoError(t *testing.T) {
	for _, unified := range []bool{false, true} {
		tree, _, _ := fake(t, unified)
		gone := tree.Group("/marina-test/group/gone")
		limits := runtime.Limits{MilliCPU: 100, CPULimit: 100, MemLimit: 1}
		if err := errors.Join(gone.Update(limits), gone.Throttle(100)); err != nil {
			t.Errorf("unified %t: got %v", unified, err)
		}
		if n, err := gone.Signal(0, unix.SIGTERM); n != 0 || err != nil {
			t.Errorf("unified %t: signalled %d, %v, want nobody", unified, n, err)
		}
		if gone.OOM() {
			t.Errorf("unified %t: memory is to blame for what is not known", unified)
		}
		if _, err := gone.Stats(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("unified %t: stats: got %v, want that it does not exist", unified, err)
		}
	}
}

func TestStatsAreReadFromEitherVersion(t *testing.T) {
	tree, put, _ := fake(t, false)
	put("pids", "pids.current", "7\n")
	put("cpu", "cpu.stat", "nr_periods 1\nnr_throttled 1\nthrottled_time 3000\n")
	put("cpuacct", "cpuacct.usage", "5000\n")
	put("memory", "memory.usage_in_bytes", "1000\n")
	put("memory", "memory.stat", "inactive_file 1\ntotal_inactive_file 400\n")
	put("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
	g := tree.Group("/marina-test/group/task")
	got, err := g.Stats()
	if d := cmp.Diff(runtime.Stats{Mem: 600, CPU: 5000, PIDs: 7, Throttle: 3000}, got); d != "" || err != nil {
		t.Errorf("v1: %v (-want +got):\n%s", err, d)
	}
	if !g.OOM() {
		t.Error("v1: two processes were killed for memory, and it is not told")
	}
	put("memory", "memory.usage_in_bytes", "none\n")
	if _, err := g.Stats(); err == nil {
		t.Error("v1: a file with no number in it is taken for one")
	}

	tree, put, _ = fake(t, true)
	put("", "pids.current", "max\n")
	put("", "cpu.stat", "usage_usec 5\nuser_usec 1\nthrottled_usec 3\n")
	put("", "memory.current", "100\n")
	put("", "memory.stat", "anon 1\ninactive_file 400\n")
	put("", "memory.events", "low 0\noom 1\noom_kill 0\n")
	g = tree.Group("/marina-test/group/task")
	got, err = g.Stats()
	want := runtime.Stats{CPU: 5 * time.Microsecond, Throttle: 3 * time.Microsecond} // memory is never less than none
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("v2: %v (-want +got):\n%s", err, d)
	}
	if g.OOM() {
		t.Error("v2: no process was killed for memory, and it is told")
	}
}

func TestParentsAreLeftWhileAnotherIsMadeThere(t *testing.T) {
	tree, _, _ := fake(t, false)
	there := func(cgroup string) bool {
		for _, dir := range tree.Dirs(cgroup) {
			if _, err := os.Stat(dir); err != nil {
				return false
			}
		}
		return true
	}
	first, second := tree.Make("/marina-test/group/other"), tree.Make("/marina-test/group/third")
	for _, dir := range tree.Dirs("/marina-test/group/task") {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, done := range []func(){func() {}, first} {
		done()
		if err := tree.Prune("/marina-test/group/task"); err != nil || !there("/marina-test/group") {
			t.Fatalf("while another is made: got %v, parents there: %t", err, there("/marina-test/group"))
		}
	}
	second()
	if err := tree.Prune("/marina-test/group/task"); err != nil || there("/marina-test/group") || !there("/marina-test") {
		t.Errorf("got %v, want the parent gone and the datacenter's own left", err)
	}
}

func TestAParentInUseIsLeft(t *testing.T) {
	tree, _, _ := fake(t, true)
	if err := os.MkdirAll(tree.Dirs("/marina-test/group/task2")[0], 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tree.Prune("/marina-test/group/gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tree.Dirs("/marina-test/group/task2")[0]); err != nil {
		t.Errorf("the other container's: %v", err)
	}
}

func TestAListOfProcessesThatIsNoneIsAnError(t *testing.T) {
	tree, put, _ := fake(t, true)
	put("", "cgroup.procs", "0\n") // of another namespace: nobody that could be killed
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := killTrees(ctx, tree.Dirs("")); err != nil {
		t.Errorf("nobody to kill: %v", err)
	}
	put("", "cgroup.procs", "word\n")
	if err := tree.Remove(ctx, ""); err == nil {
		t.Error("a list of processes that is none: removed")
	}
}
