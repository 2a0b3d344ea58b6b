package archtest

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
)

type kind string

// entry is one line of the table.
type entry struct {
	kind     kind
	imports  []string // of internal/, in order
	others   []string // packages outside of its room that may import a part
	isPure   bool
	standard bool // imports the standard library only
}

func room(imports string) entry   { return entry{kind: "room", imports: strings.Fields(imports)} }
func wiring(imports string) entry { return entry{kind: "wiring", imports: strings.Fields(imports)} }
func part(imports string) entry   { return entry{kind: "part", imports: strings.Fields(imports)} }
func suite(imports string) entry  { return entry{kind: "suite", imports: strings.Fields(imports)} }
func implementation(imports string) entry {
	return entry{kind: "implementation", imports: strings.Fields(imports)}
}
func program(imports string) entry { return entry{kind: "program", imports: strings.Fields(imports)} }

// pure holds the whole package to the rule of deciding code.
func (e entry) pure() entry { e.isPure = true; return e }

// onlyStandard forbids all but the standard library, so that other modules can have the package for nothing.
func (e entry) onlyStandard() entry { e.standard = true; return e }

// For names the packages outside of the room that import this part.
func (e entry) For(others string) entry { e.others = strings.Fields(others); return e }

func TestPackagesImportExactlyWhatTheTableSays(t *testing.T) {
	actual := map[string][]string{}
	for _, p := range load(t) {
		if name, ours := strings.CutPrefix(p.Path, "internal/"); ours && !p.onlyTests() {
			actual[name] = p.Imports()
		}
	}
	report(t, breaches(table, actual))
}

func TestTheRestOfTheProductImportsWhatItMay(t *testing.T) {
	for dir, allowed := range outside {
		var got []string
		for _, p := range load(t) {
			if p.Path == dir || strings.HasPrefix(p.Path, dir+"/") {
				got = append(got, p.Imports()...)
			}
		}
		slices.Sort(got)
		got = slices.Compact(got)
		for _, imp := range got {
			if !slices.Contains(strings.Fields(allowed), imp) {
				t.Errorf("%s imports internal/%s: `outside` in table_test.go does not allow it", dir, imp)
			}
		}
		for _, imp := range strings.Fields(allowed) {
			if !slices.Contains(got, imp) {
				t.Errorf("%s does not import internal/%s: remove it from `outside` in table_test.go", dir, imp)
			}
		}
	}
}

// breaches compares the table with what the packages import.
func breaches(table map[string]entry, actual map[string][]string) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(actual)) {
		e, known := table[name]
		if !known {
			say("internal/%s is not in the table: add a line to table_test.go, doc.go of archtest says of which kind", name)
			continue
		}
		for _, imp := range actual[name] {
			if !slices.Contains(e.imports, imp) {
				say("internal/%s imports %s, which its line in table_test.go does not allow", name, imp)
			}
		}
		for _, imp := range e.imports {
			if !slices.Contains(actual[name], imp) {
				say("internal/%s does not import %s: remove that permit from its line in table_test.go", name, imp)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if _, exists := actual[name]; !exists {
			say("internal/%s is in the table and not in the house: remove its line, or move it with the package", name)
		}
		out = append(out, wrongKind(table, name)...)
	}
	if c := circle(table); c != nil {
		say("rooms import each other in a circle: %s", strings.Join(c, " -> "))
	}
	return out
}

// wrongKind says where a line of the table contradicts its own kind, or imports what is not for it.
func wrongKind(table map[string]entry, name string) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	e, parent := table[name], path.Dir(name)
	child := parent != "."
	top := e.kind == "room" || e.kind == "wiring"
	switch {
	case child == top:
		say("internal/%s: directories of internal/ are rooms or wiring, and nothing below them is; it is a %s", name, e.kind)
	case e.kind == "implementation" && !slices.Contains(e.imports, parent):
		say("internal/%s: an implementation imports its parent's contract; if %s imports it, it is a part", name, parent)
	case e.kind == "part" && slices.Contains(e.imports, parent):
		say("internal/%s: a part never imports its parent; if it does, it is an implementation", name)
	case e.kind == "suite" && !strings.HasSuffix(name, "test"):
		say("internal/%s: the name of a suite ends in test", name)
	case e.kind != "part" && len(e.others) > 0:
		say("internal/%s: For is of parts only", name)
	}
	if e.standard && len(e.imports) > 0 {
		say("internal/%s imports only the standard library, says its line, and so nothing of internal/", name)
	}
	inUse := false
	for other, o := range table {
		inUse = inUse || slices.Contains(o.imports, name) && roomOf(other) == roomOf(name)
	}
	if e.kind == "part" && !inUse {
		say("internal/%s: a part is imported by its parent or a sibling, and none does", name)
	}
	for _, other := range e.others {
		if !slices.Contains(table[other].imports, name) {
			say("internal/%s: its line has For %s, which does not import it", name, other)
		}
	}
	for _, imp := range e.imports {
		target, known := table[imp]
		if why := forbidden(name, e, imp, target); known && why != "" {
			say("internal/%s imports %s: %s", name, imp, why)
		}
	}
	return out
}

// forbidden says why a package must not import another, whatever its line allows; empty when it may.
func forbidden(name string, e entry, imp string, target entry) string {
	switch {
	case e.isPure && !target.isPure:
		return "a pure package imports only pure ones"
	case target.kind == "wiring":
		return "nothing imports a room that does the wiring"
	case target.kind == "suite":
		return "only tests import a suite"
	case target.kind == "program":
		return "nothing imports a program"
	case target.kind == "implementation" && e.kind != "wiring":
		return "only wiring imports implementations"
	case target.kind == "part" && roomOf(name) != roomOf(imp) && !slices.Contains(target.others, name):
		return "it is a part of another room, and its line has no For " + name
	}
	return ""
}

func roomOf(name string) string {
	room, _, _ := strings.Cut(name, "/")
	return room
}

// circle finds rooms that import each other, with all that lies below them; suites aside, which only tests import.
func circle(table map[string]entry) []string {
	next := map[string]map[string]bool{}
	for name, e := range table {
		for _, imp := range e.imports {
			if from, to := roomOf(name), roomOf(imp); from != to && e.kind != "suite" {
				if next[from] == nil {
					next[from] = map[string]bool{}
				}
				next[from][to] = true
			}
		}
	}
	done := map[string]bool{}
	var way []string
	var visit func(string) []string
	visit = func(room string) []string {
		if i := slices.Index(way, room); i >= 0 {
			return append(slices.Clone(way[i:]), room)
		}
		if done[room] {
			return nil
		}
		done[room] = true
		way = append(way, room)
		for _, to := range slices.Sorted(maps.Keys(next[room])) {
			if c := visit(to); c != nil {
				return c
			}
		}
		way = way[:len(way)-1]
		return nil
	}
	for _, room := range slices.Sorted(maps.Keys(next)) {
		if c := visit(room); c != nil {
			return c
		}
	}
	return nil
}

func TestDecidingCodeIsPure(t *testing.T) {
	for _, p := range load(t) {
		name, ours := strings.CutPrefix(p.Path, "internal/")
		for _, f := range p.Files {
			if !ours || f.Test || !table[name].isPure && !slices.Contains(pureFiles, f.Name) {
				continue
			}
			for _, imp := range f.Imports {
				if isImpure(imp) {
					t.Errorf("%s is deciding code and imports %s", f.Path, imp)
				}
			}
			for _, i := range f.Impure {
				t.Errorf("%s:%d: deciding code has a %s", f.Path, i.Line, i.What)
			}
		}
	}
}

func isImpure(imp string) bool {
	below := func(of string) bool { return imp == of || strings.HasPrefix(imp, of+"/") }
	return slices.ContainsFunc(impure, below) && !slices.ContainsFunc(spared, below)
}

func TestLibrariesStayWithThePackageThatKeepsThem(t *testing.T) {
	used := map[string]bool{}
	for _, p := range load(t) {
		name, ours := strings.CutPrefix(p.Path, "internal/")
		for _, f := range p.Files {
			if !ours || f.Test {
				continue
			}
			for _, imp := range f.Imports {
				if table[name].standard && strings.Contains(roomOf(imp), ".") {
					t.Errorf("%s imports %s: its line allows the standard library only", f.Path, imp)
				}
				for lib, keeper := range kept {
					if !strings.HasPrefix(imp, lib) {
						continue
					}
					used[lib] = true
					if name != keeper && !strings.HasPrefix(name, keeper+"/") {
						t.Errorf("%s: %s belongs to internal/%s", f.Path, imp, keeper)
					}
				}
			}
		}
	}
	for lib, keeper := range kept {
		if _, exists := table[keeper]; !exists || !used[lib] {
			t.Errorf("%s is kept for internal/%s, which is not there or does not import it: change `kept` in table_test.go",
				lib, keeper)
		}
	}
}

func TestEveryPackageSaysOnceWhatItIs(t *testing.T) {
	for _, p := range load(t) {
		var in []string
		for _, f := range p.Files {
			if f.Doc != "" && !f.Test {
				in = append(in, f.Path)
			}
		}
		if len(in) != 1 && !p.onlyTests() {
			t.Errorf("%s has %d package comments, in %s: one belongs into doc.go", p.Path, len(in), strings.Join(in, ", "))
		}
	}
}

func TestNoPackageIsNamedForNothing(t *testing.T) {
	for _, p := range load(t) {
		for word := range strings.SplitSeq(p.Path, "/") {
			if slices.Contains(emptyNames, word) {
				t.Errorf("%s: %q is not a noun of this field", p.Path, word)
			}
		}
	}
}

func TestMainIsShort(t *testing.T) {
	b, err := os.ReadFile("../../cmd/marina/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 40 {
		t.Errorf("cmd/marina/main.go has %d lines, the house allows 40", n)
	}
}

var loadOnce = sync.OnceValues(func() ([]*Package, error) {
	return Load("../..", "bench", "bundle", "cmd", "examples", "internal", "test")
})

func load(t *testing.T) []*Package {
	t.Helper()
	ps, err := loadOnce()
	if err != nil {
		t.Fatal(err)
	}
	if len(ps) < 20 {
		t.Fatalf("saw %d packages: the walk is broken", len(ps))
	}
	return ps
}

// onlyTests reports a package without code.
func (p *Package) onlyTests() bool {
	return !slices.ContainsFunc(p.Files, func(f *File) bool { return !f.Test })
}

func report(t *testing.T, lines []string) {
	t.Helper()
	for _, l := range lines {
		t.Error(l)
	}
}
