package archtest

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// house is a small one that keeps the law, for tests to break.
func house() map[string]entry {
	return map[string]entry{
		"kernel":           room("").pure(),
		"kernel/suitetest": suite("kernel"),
		"store":            room("store/lines").pure(),
		"store/disk":       implementation("store"),
		"store/lines":      part("").pure(),
		"master":           room("kernel master/core store"),
		"master/core":      part("kernel master/names store").pure().For("sim"),
		"master/names":     part("kernel").pure(),
		"sim":              wiring("master/core store/disk"),
	}
}

// set puts a line into the table.
func set(name string, e entry) func(map[string]entry) {
	return func(h map[string]entry) { h[name] = e }
}

// breaks are ways to break the law, and what is said of each.
var breaks = map[string]struct {
	change func(table map[string]entry)
	house  func(actual map[string][]string) // what the packages import, where it differs from the table
	want   string
}{
	"a house that keeps the law": {},
	"a permit nobody uses": {
		house: func(a map[string][]string) { a["master"] = []string{"kernel", "master/core"} },
		want:  "internal/master does not import store: remove that permit",
	},
	"an import without a permit": {
		house: func(a map[string][]string) { a["store"] = []string{"kernel"} },
		want:  "internal/store imports kernel, which its line in table_test.go does not allow",
	},
	"a package without a line": {
		house: func(a map[string][]string) { a["jobs"] = nil },
		want:  "internal/jobs is not in the table",
	},
	"a line without a package": {
		house: func(a map[string][]string) { delete(a, "store/disk") },
		want:  "internal/store/disk is in the table and not in the house",
	},
	"a part that imports its parent": {
		change: set("store/disk", part("store")),
		want:   "a part never imports its parent",
	},
	"an implementation that does not": {
		change: set("store/disk", implementation("kernel")),
		want:   "imports its parent's contract",
	},
	"a part that nobody uses": {
		change: set("kernel/part", part("")),
		want:   "a part is imported by its parent or a sibling, and none does",
	},
	"a room below a room": {
		change: set("store/disk", room("store")),
		want:   "directories of internal/ are rooms",
	},
	"an implementation at the top": {
		change: set("disk", implementation("store")),
		want:   "directories of internal/ are rooms",
	},
	"a suite by another name": {
		change: set("kernel/suite", suite("kernel")),
		want:   "the name of a suite ends in test",
	},
	"code that imports a suite": {
		change: set("gateway", room("kernel/suitetest")),
		want:   "only tests import a suite",
	},
	"a room that imports an implementation": {
		change: set("gateway", room("store/disk")),
		want:   "only wiring imports implementations",
	},
	"a sibling that imports an implementation": {
		change: set("store/other", implementation("store store/disk")),
		want:   "only wiring imports implementations",
	},
	"wiring that is imported": {
		change: set("gateway", room("sim")),
		want:   "nothing imports a room that does the wiring",
	},
	"a program that is imported": {
		change: func(h map[string]entry) { h["kernel/run"] = program(""); h["gateway"] = room("kernel/run") },
		want:   "nothing imports a program",
	},
	"another room's part": {
		change: set("gateway", room("master/core")),
		want:   "its line has no For gateway",
	},
	"another room's part, though the room wires": {
		change: set("daemon", wiring("master/names")),
		want:   "its line has no For daemon",
	},
	"a For that nobody uses": {
		change: set("master/names", part("kernel").pure().For("sim")),
		want:   "its line has For sim, which does not import it",
	},
	"a For of a room": {
		change: set("store", room("").pure().For("sim")),
		want:   "For is of parts only",
	},
	"a pure package that imports another": {
		change: set("store", room("")),
		want:   "internal/master/core imports store: a pure package imports only pure ones",
	},
	"a package of the standard library alone": {
		change: set("master/names", part("kernel").pure().onlyStandard()),
		want:   "imports only the standard library, says its line",
	},
	"rooms in a circle, by a child": {
		change: set("store/disk", implementation("store master")),
		want:   "master -> store -> master",
	},
}

func TestTheTableIsExactAndKindsHold(t *testing.T) {
	for name, tc := range breaks {
		t.Run(name, func(t *testing.T) {
			table := house()
			if tc.change != nil {
				tc.change(table)
			}
			actual := map[string][]string{}
			for name, e := range table {
				actual[name] = e.imports
			}
			if tc.house != nil {
				tc.house(actual)
			}
			got := breaches(table, actual)
			wanted := func(s string) bool { return strings.Contains(s, tc.want) }
			if tc.want == "" && len(got) > 0 || tc.want != "" && !slices.ContainsFunc(got, wanted) {
				t.Errorf("got %q, want one that says %q", got, tc.want)
			}
		})
	}
}

func TestTheRatchetOnlyTurnsOneWay(t *testing.T) {
	ms := []measure{
		{what: "methods", limit: 40, unit: "methods", step: 1, named: true},
		{what: "wide", limit: 0, unit: "wide lines", step: 10},
	}
	for name, tc := range map[string]struct {
		ratchet, measured []mark
		next              []mark
		worse, slack      string // what the first of them says; empty when there is none
	}{
		"within the limit": {measured: []mark{{"methods", "a.T", 40, ""}, {"wide", "code", 0, ""}}},
		"over it for the first time": {
			measured: []mark{{"methods", "a.T", 41, ""}},
			worse:    "a.T: 41 methods, the limit is 40",
		},
		"over it as before": {
			ratchet:  []mark{{"methods", "a.T", 50, "kept"}, {"wide", "code", 20, ""}},
			measured: []mark{{"methods", "a.T", 50, ""}, {"wide", "code", 15, ""}},
			next:     []mark{{"methods", "a.T", 50, "kept"}, {"wide", "code", 20, ""}},
		},
		"grown": {
			ratchet:  []mark{{"methods", "a.T", 50, ""}, {"wide", "code", 20, ""}},
			measured: []mark{{"methods", "a.T", 51, ""}, {"wide", "code", 20, ""}},
			worse:    "a.T: 51 methods, 50 were there",
		},
		"smaller": {
			ratchet:  []mark{{"methods", "a.T", 50, ""}, {"wide", "code", 40, ""}},
			measured: []mark{{"methods", "a.T", 45, ""}, {"wide", "code", 24, ""}},
			next:     []mark{{"methods", "a.T", 45, ""}, {"wide", "code", 30, ""}},
		},
		"no longer over it": {
			ratchet:  []mark{{"methods", "a.T", 50, ""}},
			measured: []mark{{"methods", "a.T", 40, ""}},
			slack:    "methods a.T is within its limit, or gone",
		},
		"moved": {
			ratchet:  []mark{{"methods", "a.T", 50, "kept"}},
			measured: []mark{{"methods", "a/b.T", 48, ""}},
			next:     []mark{{"methods", "a/b.T", 48, "kept"}},
			slack:    "a.T seems to have moved to a/b.T",
		},
		"moved and grown": {
			ratchet:  []mark{{"methods", "a.T", 50, ""}},
			measured: []mark{{"methods", "a/b.T", 51, ""}},
			worse:    "a/b.T: 51 methods, the limit is 40",
			slack:    "methods a.T is within its limit, or gone",
		},
	} {
		t.Run(name, func(t *testing.T) {
			next, worse, slack := judge(ms, tc.ratchet, tc.measured)
			if d := cmp.Diff(tc.next, next, cmp.AllowUnexported(mark{})); d != "" && tc.worse == "" {
				t.Errorf("the next ratchet, -want +got:\n%s", d)
			}
			for _, l := range []struct {
				name, want string
				got        []string
			}{{"worse", tc.worse, worse}, {"slack", tc.slack, slack}} {
				if l.want == "" && len(l.got) > 0 || l.want != "" && (len(l.got) == 0 || !strings.Contains(l.got[0], l.want)) {
					t.Errorf("%s: got %q, want %q", l.name, l.got, l.want)
				}
			}
		})
	}
}

func TestTheRatchetFileIsReadAsItIsWritten(t *testing.T) {
	want := []mark{{"package", "internal/a", 2600, "2026-11-30 issue 10"}, {"methods", "internal/a.T", 50, ""}}
	got, err := parseRatchet(formatRatchet(want))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mark{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestLinesOfCodeHoldNeitherBlanksNorComments(t *testing.T) {
	for src, want := range map[string]int{
		"package a\n": 1,
		"// a\npackage a // b\n\n/* c\n d */\nvar x = 1\n": 2,
		"package a\n\nvar x = `one\n\nthree`\n":            4,
		"package a; var x = 1; var y = 2\n":                1,
		"package a\n\nvar x = f( // why\n\t1,\n\n\t2,\n)":  5,
	} {
		if got := codeLines([]byte(src)); got != want {
			t.Errorf("%q: got %d lines of code, want %d", src, got, want)
		}
	}
}

func TestPurityIsAskedByThePackageAndNotByItsName(t *testing.T) {
	for imp, want := range map[string]bool{
		"net": true, "net/http": true, "net/netip": false, "os": true, "os/exec": true, "math/rand/v2": true, "math": false,
		"log/slog": true, "golang.org/x/sys/unix": true, "golang.org/x/sync/errgroup": false, "crypto/rand": true,
		"crypto/sha256": false,
	} {
		if got := isImpure(imp); got != want {
			t.Errorf("%s: got impure %v, want %v", imp, got, want)
		}
	}
}
