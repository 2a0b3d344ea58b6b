package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCodenamesAreReadAsYAMLMeansThem(t *testing.T) {
	got, err := codenames("- testname: One\n  codename: '[sig-a] it''s\n    folded [Conformance]'\n  description: x\n- testname: Two\n  codename: plain\n    and folded\n  release: v1\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"[sig-a] it's folded [Conformance]", "plain and folded"}, got); diff != "" {
		t.Errorf("codenames (-want +got):\n%s", diff)
	}
}

func TestTestsAreSortedByTheirNamesWithoutTags(t *testing.T) {
	for name, want := range map[string]string{
		"[sig-apps] CronJob should not schedule jobs when suspended [Slow] [Conformance]":                             "api",
		"[sig-apps] CronJob should not schedule jobs when suspended [Conformance] [Slow]":                             "api",
		"[sig-api-machinery] Namespaces [Serial] should patch a Namespace [Conformance]":                              "api",
		"[sig-apps] Daemon set [Serial] should run and stop simple daemon [Conformance]":                              "serial",
		"[sig-network] DNS should provide DNS for the cluster [Conformance]":                                          "dns",
		"[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http [X]":        "network",
		"[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should honor timeout [Conformance]":           "network",
		"[sig-storage] EmptyDir volumes should support (root,0644,tmpfs) [LinuxOnly] [NodeConformance] [Conformance]": "node",
	} {
		if got := class(name); got != want {
			t.Errorf("class(%q) = %s, want %s", name, got, want)
		}
	}
}

// upstream's trees that are in the module cache; nothing is fetched for a test.
func sources(t *testing.T) map[string]string {
	trees, err := filepath.Glob(filepath.Join(moduleCache(t), "k8s.io", "kubernetes@v*"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, dir := range trees {
		_, version, _ := strings.Cut(filepath.Base(dir), "@")
		mod, err := os.ReadFile(filepath.Join(version[:strings.LastIndex(version, ".")], "go.mod"))
		if err == nil && strings.Contains(string(mod), "k8s.io/kubernetes "+version+"\n") {
			out[version] = dir
		}
	}
	if len(out) == 0 {
		t.Skip("no source of Kubernetes in the module cache")
	}
	return out
}

func moduleCache(t *testing.T) string {
	if dir := os.Getenv("GOMODCACHE"); dir != "" {
		return dir
	}
	if dir := os.Getenv("GOPATH"); dir != "" {
		return filepath.Join(filepath.SplitList(dir)[0], "pkg", "mod")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip(err)
	}
	return filepath.Join(home, "go", "pkg", "mod")
}

func TestEveryRuleIsForATestThatUpstreamHas(t *testing.T) {
	used := map[string]bool{}
	all := sources(t)
	for release, dir := range all {
		tests, err := readTests(dir)
		if err != nil {
			t.Fatal(err)
		}
		yaml, err := os.ReadFile(filepath.Join(dir, "test", "conformance", "testdata", "conformance.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Count(string(yaml), "\n  codename: "); len(tests) != want {
			t.Errorf("%s: %d tests, want %d", release, len(tests), want)
		}
		byName := map[string]string{}
		for _, test := range tests {
			p := plain(test.Name)
			if other, twice := byName[p]; twice {
				t.Errorf("%s: %q and %q differ by their tags only", release, test.Name, other)
			}
			byName[p] = test.Name
			used[p] = true
			if !strings.Contains(test.Name, "[Conformance]") {
				t.Errorf("%s: %q is not tagged as a conformance test", release, test.Name)
			}
		}
	}
	if len(all) < 2 {
		t.Skip("one minor alone does not have a test for every rule")
	}
	for _, r := range rules {
		found := false
		for p := range used {
			found = found || r.fits(p)
		}
		if !found {
			t.Errorf("shards.txt: %s %s fits no test", r.class, r.name)
		}
	}
	for name := range leftOut {
		if !used[name] {
			t.Errorf("leftout.txt: there is no test %q", name)
		}
	}
}

const junit = `<testsuites><testsuite>
<testcase name="[SynchronizedBeforeSuite]" status="passed" time="1"></testcase>
<testcase name="[It] good" status="passed" time="1.5"></testcase>
<testcase name="[It] bad" status="failed" time="2"><failure type="failed">it was 2&#xA;at x.go:3</failure></testcase>
<testcase name="[It] stopped" status="interrupted" time="2"><error type="interrupted">stop</error></testcase>
<testcase name="[It] other" status="skipped" time="0"><skipped message="skipped"></skipped></testcase>
<testcase name="[It] unwilling" status="skipped" time="0.1"><skipped message="skipped - needs GPUs"></skipped></testcase>
</testsuite></testsuites>`

func TestOutcomesAreThoseOfTheReport(t *testing.T) {
	got := map[string]Result{}
	if err := parseReport([]byte(junit), got); err != nil {
		t.Fatal(err)
	}
	want := map[string]Result{
		"good":      {Outcome: passed, Seconds: 1.5},
		"bad":       {Outcome: failed, Seconds: 2, Message: "it was 2\nat x.go:3"},
		"unwilling": {Outcome: failed, Seconds: 0.1, Message: "skipped - needs GPUs"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
}

func TestLaterRunsReplaceResultsAndKeepOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	r, err := readResults(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.add(map[string]Result{"a": {Outcome: failed}, "b": {Outcome: passed}}); err != nil {
		t.Fatal(err)
	}
	if r, err = readResults(path); err != nil {
		t.Fatal(err)
	}
	if err := r.add(map[string]Result{"a": {Outcome: passed, Time: time.Unix(0, 0).UTC()}}); err != nil {
		t.Fatal(err)
	}
	tests := []Test{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d", LeftOut: "why"}, {Name: "e", Class: "dns"}}
	got := r.count(tests, func(t Test) bool { return t.Class == "" })
	if want := (Count{All: 4, Passed: 2, LeftOut: 1, NotRun: 1}); got != want {
		t.Errorf("count = %+v, want %+v", got, want)
	}
}

func TestFilesGoThroughDebiansLinks(t *testing.T) {
	r := newRootfs()
	r.file("bin/sh", 0o755, []byte("x"))
	r.link("usr/bin/sh", "busybox")
	b, err := r.layer()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]byte{}
	for in := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds[h.Name] = h.Typeflag
	}
	if kinds["usr/bin/sh"] != tar.TypeReg || kinds["bin"] != tar.TypeSymlink || kinds["bin/sh"] != 0 {
		t.Errorf("usr/bin/sh is %q, bin is %q, bin/sh %q; want a file, a link, nothing", kinds["usr/bin/sh"], kinds["bin"], kinds["bin/sh"])
	}
}
