package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/archtest"
)

const (
	longFunc  = 60
	wideLine  = 120
	bigType   = 40
	aimRatio  = 0.8
	aimUp     = 10 // percent
	aimCode   = 2500
	shownType = 20 // methods from which on a type is named
)

// house holds the survey's findings.
type house struct {
	Packages []row      `json:"packages"`
	Rooms    []row      `json:"rooms"` // rooms of more than one package, with all that is below
	Arrows   []arrow    `json:"arrows"`
	Circles  [][]string `json:"circles"`
	Total    total      `json:"total"`
}

type row struct {
	Path  string         `json:"path"`
	Files int            `json:"files"`
	Code  int            `json:"code"`
	Tests int            `json:"tests"`
	Ratio float64        `json:"ratio"`
	Types []typ          `json:"types,omitempty"`
	Long  []fn           `json:"long,omitempty"` // functions of more than 60 lines, tests aside
	Wide  int            `json:"wide"`           // lines of more than 120 characters, tests aside
	Flow  *archtest.Flow `json:"flow,omitempty"`
}

type typ struct {
	Name    string `json:"name"`
	Methods int    `json:"methods"`
}

type fn struct {
	Name  string `json:"name"`
	At    string `json:"at"`
	Lines int    `json:"lines"`
}

type arrow struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Files int    `json:"files"` // of From that import To
}

type total struct {
	Code       int     `json:"code"`  // of internal, bundle and cmd
	Tests      int     `json:"tests"` // of the same, and all of test/
	Ratio      float64 `json:"ratio"`
	WithSuites float64 `json:"withSuites"` // the ratio with suites and sim among the tests
	Calls      int     `json:"calls"`
	Up         int     `json:"up"`
}

func main() {
	asJSON := flag.Bool("json", false, "print JSON, with the order of the files of each package")
	root := flag.String("root", ".", "the top of the repository")
	flag.Parse()
	if err := run(*root, *asJSON, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "survey:", err)
		os.Exit(1)
	}
}

func run(root string, asJSON bool, out io.Writer) error {
	packages, err := archtest.Load(root, "bundle", "cmd", "internal", "test")
	if err != nil {
		return err
	}
	flows, err := archtest.Flows(root, "./internal/...", "./cmd/...")
	if err != nil {
		return err
	}
	h := measure(packages, flows)
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(h)
	}
	return h.print(out)
}

func measure(packages []*archtest.Package, flows []archtest.Flow) house {
	var h house
	suites := 0
	for _, p := range packages {
		if strings.HasPrefix(p.Path, "test/") {
			h.Total.Tests += p.Code(false) + p.Code(true)
			continue
		}
		r := rowOf(p)
		for i := range flows {
			if flows[i].Path == p.Path {
				r.Flow = &flows[i]
				h.Total.Calls += flows[i].Calls
				h.Total.Up += flows[i].Up
			}
		}
		h.Packages = append(h.Packages, r)
		h.Total.Code += r.Code
		h.Total.Tests += r.Tests
		if p.Path == "internal/sim" || strings.HasSuffix(p.Path, "test") {
			suites += r.Code
		}
	}
	h.Total.Ratio = ratio(h.Total.Tests, h.Total.Code)
	h.Total.WithSuites = ratio(h.Total.Tests+suites, h.Total.Code-suites)
	h.Rooms = rooms(h.Packages)
	arrows := archtest.Arrows(packages)
	for a, n := range arrows {
		h.Arrows = append(h.Arrows, arrow{a[0], a[1], n})
	}
	slices.SortFunc(h.Arrows, func(a, b arrow) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	h.Circles = archtest.Circles(arrows)
	return h
}

func rowOf(p *archtest.Package) row {
	r := row{Path: p.Path, Code: p.Code(false), Tests: p.Code(true)}
	r.Ratio = ratio(r.Tests, r.Code)
	for name, n := range p.Methods() {
		if n >= shownType {
			r.Types = append(r.Types, typ{name, n})
		}
	}
	slices.SortFunc(r.Types, func(a, b typ) int {
		return cmp.Or(cmp.Compare(b.Methods, a.Methods), cmp.Compare(a.Name, b.Name))
	})
	for _, f := range p.Files {
		if f.Test {
			continue
		}
		r.Files++
		for _, w := range f.Widths {
			if w > wideLine {
				r.Wide++
			}
		}
		for _, d := range f.Funcs {
			if d.Lines > longFunc {
				name := strings.TrimPrefix(d.Receiver+"."+d.Name, ".")
				r.Long = append(r.Long, fn{name, fmt.Sprint(f.Path, ":", d.Line), d.Lines})
			}
		}
	}
	return r
}

// rooms sums the rooms that have more than one package.
func rooms(packages []row) []row {
	sums, members := map[string]row{}, map[string]int{}
	for _, p := range packages {
		name, ours := strings.CutPrefix(p.Path, "internal/")
		if !ours {
			continue
		}
		room, _, _ := strings.Cut(name, "/")
		s := sums[room]
		sums[room] = row{
			Path: "internal/" + room + "/...", Files: s.Files + p.Files, Wide: s.Wide + p.Wide,
			Code: s.Code + p.Code, Tests: s.Tests + p.Tests, Long: append(s.Long, p.Long...),
		}
		members[room]++
	}
	var out []row
	for _, room := range slices.Sorted(maps.Keys(sums)) {
		if s := sums[room]; members[room] > 1 {
			s.Ratio = ratio(s.Tests, s.Code)
			out = append(out, s)
		}
	}
	return out
}

func ratio(tests, code int) float64 {
	if code == 0 {
		return 0
	}
	return float64(tests) / float64(code)
}

func (h house) print(out io.Writer) error {
	fmt.Fprintf(out, "%-40s %5s %5s  %5s %5s %4s %4s %5s %4s %3s  %6s %4s %4s  %s\n",
		"package", "files", "code", "tests", "ratio", "long", "wide", "calls", "up", "%", "arrows", "up", "knot", "types")
	for _, r := range h.Packages {
		r.print(out)
	}
	fmt.Fprintln(out)
	for _, r := range h.Rooms {
		r.print(out)
	}
	fmt.Fprintf(out, `
long: functions of more than %d lines; wide: lines of more than %d characters, tests aside; up: calls, or arrows between
files, that run against the best order of the files; knot: files that all reach each other.
* is over the aim: %d lines of code, %d methods, %d %% of the calls.
`, longFunc, wideLine, aimCode, bigType, aimUp)
	h.printLong(out)
	fmt.Fprintf(out, "\narrows between rooms: %d", len(h.Arrows))
	from := ""
	for _, a := range h.Arrows {
		if a.From != from {
			fmt.Fprintf(out, "\n  %-12s", a.From)
		}
		from = a.From
		fmt.Fprintf(out, " %s", a.To)
	}
	fmt.Fprintf(out, "\ncircles of rooms: %d %v\n", len(h.Circles), h.Circles)
	t := h.Total
	const text = `the whole: %d lines of code, %d of tests, %.2f (aim %.1f); %.2f with sim and the suites as tests
calls between files: %d, of which %d run up, %d %% (aim %d)
`
	_, err := fmt.Fprintf(out, text, t.Code, t.Tests, t.Ratio, aimRatio, t.WithSuites,
		t.Calls, t.Up, percent(t.Up, t.Calls), aimUp)
	return err
}

func (h house) printLong(out io.Writer) {
	var long []fn
	for _, r := range h.Packages {
		long = append(long, r.Long...)
	}
	slices.SortFunc(long, func(a, b fn) int {
		return cmp.Or(cmp.Compare(b.Lines, a.Lines), cmp.Compare(a.At, b.At))
	})
	fmt.Fprintf(out, "\nfunctions of more than %d lines: %d\n", longFunc, len(long))
	for _, f := range long {
		fmt.Fprintf(out, "  %3d  %s  %s\n", f.Lines, f.Name, f.At)
	}
}

func (r row) print(w io.Writer) {
	over := r.Code > aimCode && !strings.HasSuffix(r.Path, "...")
	fmt.Fprintf(w, "%-40s %5d %5d%s %5d %5.2f %4d %4d",
		r.Path, r.Files, r.Code, star(over), r.Tests, r.Ratio, len(r.Long), r.Wide)
	if f := r.Flow; f != nil && f.Calls > 0 {
		up := percent(f.Up, f.Calls)
		over := 100*f.Up > aimUp*f.Calls
		fmt.Fprintf(w, " %5d %4d %3d%s %6d %4d %4d  ", f.Calls, f.Up, up, star(over), f.Arrows, f.ArrowsUp, f.Knot)
	} else {
		fmt.Fprintf(w, "%39s", "")
	}
	var names []string
	for i, t := range r.Types {
		if i < 3 {
			names = append(names, fmt.Sprint(t.Name, " ", t.Methods, strings.TrimSpace(star(t.Methods > bigType))))
		}
	}
	fmt.Fprintln(w, strings.Join(names, ", "))
}

func star(is bool) string {
	if is {
		return "*"
	}
	return " "
}

func percent(n, of int) int {
	if of == 0 {
		return 0
	}
	return (100*n + of/2) / of
}
