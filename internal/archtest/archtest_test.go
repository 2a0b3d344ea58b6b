package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/marinaos/marina"

// rooms says what each room of internal/ may import of the others. A child (agent/containerd) may import its parent, its
// siblings' parent's allowance, and nothing more; a parent never imports its child. Test files may import anything: they
// are checked for nothing but a package comment.
var rooms = map[string][]string{
	"kernel":     {},
	"durable":    {},
	"store":      {},
	"allocator":  {"kernel"},
	"placement":  {"kernel"},
	"invariant":  {"kernel"},
	"access":     {},
	"audit":      {"kernel"},
	"metrics":    {},
	"identity":   {"store", "access", "audit"},
	"disk":       {},
	"images":     {"kernel", "store", "disk"},
	"network":    {"kernel"},
	"agent":      {"kernel"},
	"master":     {"kernel", "store", "allocator", "placement", "invariant"},
	"scheduler":  {"kernel", "store"},
	"services":   {"kernel", "store", "scheduler"},
	"kubernetes": {"kernel", "store", "identity", "disk"},
	"gateway":    {"identity", "access", "audit", "metrics"},
	"cli":        {"kernel", "services", "kubernetes"},
	"daemon":     {"kernel", "store", "allocator", "placement", "invariant", "identity", "images", "network", "agent", "master", "services", "kubernetes", "gateway", "access", "audit", "metrics"},
	"sim":        {"kernel", "store", "allocator", "placement", "invariant", "master", "services"},
	"archtest":   {},
}

// children lists the packages below a room that others than the room's own tree may import: daemon wires them, sim drives
// the in-memory store, tests run the conformance suites.
var wiring = map[string]bool{"daemon": true, "sim": true}

// kept names libraries that only one room (and its children) may import.
var kept = map[string]string{
	"go.etcd.io/":                       "store",
	"github.com/vishvananda/netlink":    "network",
	"github.com/google/nftables":        "network",
	"github.com/miekg/dns":              "network",
	"github.com/containernetworking/":   "network",
	"github.com/containerd/containerd/": "agent",
	"github.com/spf13/cobra":            "cli",
	"github.com/golang-jwt/":            "identity",
	"github.com/prometheus/":            "metrics",
}

// pure lists the rooms whose code takes snapshots and time and gives actions and reasons: they never ask the clock, the
// network, the disk or chance.
var pure = []string{"kernel", "allocator", "placement", "invariant"}

var impure = []string{"net", "net/http", "os", "os/exec", "math/rand", "math/rand/v2", "crypto/rand", "syscall", "log/slog"}

// pureFiles are files of other rooms held to the same rule.
var pureFiles = []string{"decide.go", "step.go"}

type file struct {
	room, pkg, name string // "agent", "internal/agent/containerd", "run.go"
	imports         []string
	clock           []string // positions of time.Now, time.Since, time.After and their like
	doc             bool
}

func TestRoomsImportOnlyWhatTheTableAllows(t *testing.T) {
	for _, f := range files(t) {
		allowed, known := rooms[f.room]
		if !known {
			t.Errorf("%s: room %q is not in the table of internal/archtest", f.pkg, f.room)
			continue
		}
		for _, imp := range f.imports {
			rest, ours := strings.CutPrefix(imp, module+"/internal/")
			if !ours {
				continue
			}
			other, child, isChild := strings.Cut(rest, "/")
			switch {
			case other == f.room:
				if f.pkg == "internal/"+f.room && isChild && !wiring[f.room] {
					t.Errorf("%s/%s: a parent never imports its child %s", f.pkg, f.name, child)
				}
			case !slices.Contains(allowed, other):
				t.Errorf("%s/%s: room %s may not import %s", f.pkg, f.name, f.room, other)
			case isChild && !wiring[f.room] && !strings.HasSuffix(child, "test") && other+"/"+child != "identity/ca":
				t.Errorf("%s/%s: only daemon wires children of other rooms, %s is one", f.pkg, f.name, rest)
			}
		}
	}
}

func TestLibrariesStayInTheRoomThatKeepsThem(t *testing.T) {
	for _, f := range files(t) {
		for _, imp := range f.imports {
			for lib, room := range kept {
				if strings.HasPrefix(imp, lib) && f.room != room {
					t.Errorf("%s/%s: %s belongs to room %s", f.pkg, f.name, imp, room)
				}
			}
		}
	}
}

func TestDecidingCodeIsPure(t *testing.T) {
	for _, f := range files(t) {
		if !slices.Contains(pure, f.room) && !slices.Contains(pureFiles, f.name) {
			continue
		}
		for _, imp := range f.imports {
			if slices.Contains(impure, imp) {
				t.Errorf("%s/%s is deciding code and imports %s", f.pkg, f.name, imp)
			}
		}
		for _, at := range f.clock {
			t.Errorf("%s/%s is deciding code and asks the clock: %s", f.pkg, f.name, at)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	said := map[string]bool{}
	for _, f := range files(t) {
		said[f.pkg] = said[f.pkg] || f.doc
	}
	for pkg, ok := range said {
		if !ok {
			t.Errorf("%s has no package comment", pkg)
		}
	}
}

func TestNoRoomIsNamedForNothing(t *testing.T) {
	for _, f := range files(t) {
		for _, word := range []string{"util", "utils", "common", "helper", "helpers", "misc", "types", "base"} {
			if slices.Contains(strings.Split(f.pkg, "/"), word) {
				t.Errorf("%s: %q is not a noun of this field", f.pkg, word)
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

func files(t *testing.T) []file {
	t.Helper()
	var out []file
	fset := token.NewFileSet()
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "testdata" {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, describe(fset, p, f))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("saw %d files: the walk is broken", len(out))
	}
	return out
}

func describe(fset *token.FileSet, p string, f *ast.File) file {
	rel := filepath.ToSlash(strings.TrimPrefix(p, "../"))
	room, _, _ := strings.Cut(rel, "/")
	out := file{room: room, pkg: path.Join("internal", path.Dir(rel)), name: path.Base(rel), doc: f.Doc != nil}
	for _, imp := range f.Imports {
		s, _ := strconv.Unquote(imp.Path.Value)
		out.imports = append(out.imports, s)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" &&
			slices.Contains([]string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"}, sel.Sel.Name) {
			out.clock = append(out.clock, fset.Position(sel.Pos()).String())
		}
		return true
	})
	return out
}
