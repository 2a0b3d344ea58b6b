package clusters

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/marinaos/marina/test/testbed"
)

// quotaOf is how much of a group's quota is used, as the quota's own document tells it.
func (x *world) quotaOf(t testing.TB, group string) string {
	t.Helper()
	var q struct {
		Quotas []struct {
			Role string          `json:"role"`
			Used json.RawMessage `json:"used"`
		} `json:"quotas"`
	}
	x.dc.Ask(t, "GET", "/quota/v1", nil, 200, &q)
	for _, one := range q.Quotas {
		if one.Role == group {
			return string(one.Used)
		}
	}
	return ""
}

func TestAGroupsQuotaBoundsItsClusters(t *testing.T) {
	x := enter(t)
	x.Must(t, "quota", "set", "/small", "--cpus", "0.3")
	t.Cleanup(func() { x.Must(t, "quota", "set", "/small", "--none") })
	before := x.quotaOf(t, "/small")
	o := x.create("wide", "--group", "/small", "--nodes", "1") // 0.35
	if o.Code == 0 {
		x.Must(t, "cluster", "delete", "wide", "--yes", "--wait")
	}
	for _, want := range []string{"/small", "0.35", "0.3"} {
		if o.Code == 0 || !strings.Contains(o.Err, want) {
			t.Errorf("create beyond the quota ends with %d: %s, want %s in it", o.Code, o.Err, want)
		}
	}
	c := x.third(t, "bound", "--group", "/small", "--nodes", "0") // 0.1
	testbed.Eventually(t, settleLimit, pace, "the quota's use", func() error {
		if now := x.quotaOf(t, "/small"); now == before {
			return fmt.Errorf("it is %s", now)
		}
		return nil
	})
	o = x.Run("cluster", "scale", c.name, "1")
	for _, want := range []string{"/small", "0.25", "0.3", "0.1"} {
		if o.Code == 0 || !strings.Contains(o.Err, want) {
			t.Errorf("scale beyond the quota ends with %d: %s, want %s in it", o.Code, o.Err, want)
		}
	}
	x.Must(t, "cluster", "delete", c.name, "--yes", "--wait")
	testbed.Eventually(t, settleLimit, pace, "the quota to be free", func() error {
		if now := x.quotaOf(t, "/small"); now != before {
			return fmt.Errorf("%s of it is used, %s was before", now, before)
		}
		return nil
	})
}

func TestCreatingAndDeletingAgainAndAgainLeavesNothing(t *testing.T) {
	x := enter(t)
	var before map[string][]string
	for round := range 3 {
		begin := time.Now()
		c := &hosted{world: x, name: "round", minor: x.one.minor}
		if round == 0 {
			before = x.remains(t)
		}
		if err := failed(x.create(c.name, "--version", c.minor)); err != nil {
			t.Fatal(err)
		}
		if round < 2 { // the last is deleted while it comes
			x.ready(t, c.name, readyLimit)
		}
		if err := c.connect(); round < 2 && err != nil {
			t.Fatal(err)
		}
		if round == 0 { // a used one has more to leave
			x.Must(t, "image", "load", x.archive, "--cluster", c.name)
			(&space{c, "default"}).start(t, prober("pod"))
			if now := x.remains(t); len(more(before, now)) < 6 {
				t.Fatalf("a running cluster shows no more than %v: the search looks in the wrong place", slices.Sorted(maps.Keys(more(before, now))))
			}
		}
		x.Must(t, "cluster", "delete", c.name, "--yes", "--wait")
		t.Logf("round %d: cluster gone after %v", round+1, time.Since(begin).Round(time.Second))
		testbed.Eventually(t, settleLimit, pace, fmt.Sprintf("nothing to be left after round %d", round+1), func() error {
			var errs []error
			for kind, list := range more(before, x.remains(t)) {
				errs = append(errs, fmt.Errorf("%d of %s: %.2000s", len(list), kind, strings.Join(list, "\n")))
			}
			return errors.Join(errs...)
		})
	}
}

// more is what there is now and was not before, by kind.
func more(before, now map[string][]string) map[string][]string {
	out := map[string][]string{}
	for kind, list := range now {
		if extra := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(before[kind], s) }); len(extra) > 0 {
			out[kind] = extra
		}
	}
	return out
}

// remains is everything of the datacenter that clusters could leave, in terms that stay the same while nothing happens.
func (x *world) remains(t testing.TB) map[string][]string {
	t.Helper()
	trace, err := x.Trace(nil)
	if err != nil {
		t.Fatal(err)
	}
	out := maps.Clone(trace.Kinds)
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range loops {
		if b, _ := os.ReadFile(name); strings.Contains(string(b), x.State) {
			out["loop device"] = append(out["loop device"], strings.TrimSpace(string(b)))
		}
	}
	out["rule"] = x.rules(t)
	out["cgroup"] = nil
	walk(t, "/sys/fs/cgroup", func(path string, dir bool) bool {
		if dir && strings.Contains(path, "marina-"+x.ID) {
			out["cgroup"] = append(out["cgroup"], path)
		}
		return dir
	})
	// Besides stores and logs, the sandboxes of ended tasks: they are kept for a while on purpose.
	skip := []string{"etcd", "log", "agent/sandboxes", "runtime/root/io.containerd.content.v1.content", "runtime/root/io.containerd.metadata.v1.bolt", "agent/volumes/kubernetes/one.", "agent/volumes/kubernetes/two."}
	walk(t, x.State, func(path string, dir bool) bool {
		rel, _ := filepath.Rel(x.State, path)
		if slices.ContainsFunc(skip, func(s string) bool { return strings.HasPrefix(rel, s) }) {
			return false
		}
		out["file"] = append(out["file"], rel)
		return true
	})
	out["use"] = []string{x.Run("quota", "show", "/").Out}
	return out
}

// rules is what the datacenter's tables hold.
func (x *world) rules(t testing.TB) (out []string) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if !strings.Contains(table.Name, x.ID) {
			continue
		}
		sets, err := c.GetSets(table)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range sets {
			elements, err := c.GetSetElements(set)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range elements {
				out = append(out, fmt.Sprintf("%s %x", set.Name, e.Key))
			}
		}
		chains, err := c.ListChainsOfTableFamily(table.Family)
		if err != nil {
			t.Fatal(err)
		}
		for _, chain := range chains {
			if chain.Table.Name != table.Name {
				continue
			}
			rules, err := c.GetRules(table, chain)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%d rules of %s", len(rules), chain.Name))
		}
	}
	return out
}

// walk calls f with everything below a directory until it says no; what goes meanwhile is no matter.
func walk(t testing.TB, root string, f func(path string, dir bool) bool) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if !f(path, d.IsDir()) && d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
