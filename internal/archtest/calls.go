package archtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Flow says how calls run between the files of one package.
//
// A call is a function, and a function or method of the same package in another file that its body names, counted
// once for each such pair; what stands outside of functions counts as one function of its file. A method of an
// interface belongs to the file that declares the interface. The files are then put into the order in which the
// fewest calls run from a later to an earlier file: those are the calls that run up. Files that do not reach each
// other in a circle are ordered by their calls alone, so only strongly connected files are searched: exactly up to
// 18 of them, and above that by moving one file at a time from several first orders until nothing gets better, so
// that the number may be slightly too high there, and never too low.
type Flow struct {
	Path     string   `json:"package"` // internal/agent
	Order    []string `json:"order"`   // files, callers first
	Calls    int      `json:"calls"`
	Up       int      `json:"up"`
	Arrows   int      `json:"arrows"`   // pairs of files with a call from one to the other
	ArrowsUp int      `json:"arrowsUp"` // of those, the ones against the order
	Knot     int      `json:"knot"`     // files in the largest set that all reach each other
}

// Flows measures every package of the module at root that the patterns of the go command match. It compiles what
// they import.
func Flows(root string, patterns ...string) ([]Flow, error) {
	list, err := goList(root, patterns)
	if err != nil {
		return nil, err
	}
	export := map[string]string{}
	for _, p := range list {
		export[p.ImportPath] = p.Export
	}
	var out []Flow
	for _, p := range list {
		if p.DepOnly || len(p.GoFiles) == 0 {
			continue
		}
		calls, err := p.calls(export)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.ImportPath, err)
		}
		f := order(p.GoFiles, calls)
		f.Path = strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, Module), "/")
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Flow) int { return cmp.Compare(a.Path, b.Path) })
	return out, nil
}

// listed is go list's answer for a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
	ImportMap               map[string]string
}

func goList(root string, patterns []string) ([]*listed, error) {
	const fields = "-json=ImportPath,Dir,Export,GoFiles,DepOnly,ImportMap"
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps", fields}, patterns...)...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = root, &stderr
	b, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var out []*listed
	for dec := json.NewDecoder(bytes.NewReader(b)); ; {
		p := new(listed)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		out = append(out, p)
	}
}

// calls counts the calls between files, by the names of the two.
func (p *listed) calls(export map[string]string) (map[[2]string]int, error) {
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if mapped, ok := p.ImportMap[path]; ok {
			path = mapped
		}
		return os.Open(export[path])
	})}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	pkg, err := conf.Check(p.ImportPath, fset, files, info)
	if err != nil {
		return nil, err
	}
	type pair struct {
		caller string // the file and where the function begins; the file alone outside of functions
		callee *types.Func
	}
	seen := map[pair]bool{}
	out := map[[2]string]int{}
	for _, f := range files {
		from := filepath.Base(fset.Position(f.Pos()).Filename)
		for _, d := range f.Decls {
			caller := from
			if fn, ok := d.(*ast.FuncDecl); ok {
				caller = fmt.Sprint(from, fset.Position(fn.Pos()).Offset)
			}
			ast.Inspect(d, func(n ast.Node) bool {
				id, ok := n.(*ast.Ident)
				if !ok {
					return true
				}
				callee, ok := info.Uses[id].(*types.Func)
				if !ok || callee.Pkg() != pkg {
					return true
				}
				callee = callee.Origin()
				to := filepath.Base(fset.Position(callee.Pos()).Filename)
				if to != from && !seen[pair{caller, callee}] {
					seen[pair{caller, callee}] = true
					out[[2]string{from, to}]++
				}
				return true
			})
		}
	}
	return out, nil
}

// order finds the order of the files against which the fewest calls run.
func order(files []string, calls map[[2]string]int) Flow {
	names := slices.Sorted(slices.Values(files))
	index := map[string]int{}
	for i, n := range names {
		index[n] = i
	}
	w := make([][]int, len(names))
	for i := range w {
		w[i] = make([]int, len(names))
	}
	out := Flow{Arrows: len(calls)}
	for pair, n := range calls {
		w[index[pair[0]]][index[pair[1]]] = n
		out.Calls += n
	}
	place := map[string]int{}
	for _, set := range components(w) {
		out.Knot = max(out.Knot, len(set))
		for _, i := range arrange(set, w) {
			place[names[i]] = len(out.Order)
			out.Order = append(out.Order, names[i])
		}
	}
	for pair, n := range calls {
		if place[pair[0]] > place[pair[1]] {
			out.Up += n
			out.ArrowsUp++
		}
	}
	return out
}

// components are the strongly connected sets of nodes, callers before what they call (Tarjan).
func components(w [][]int) [][]int {
	var out [][]int
	var stack []int
	number, low, on := make([]int, len(w)), make([]int, len(w)), make([]bool, len(w))
	count := 0
	var visit func(int)
	visit = func(v int) {
		count++
		number[v], low[v] = count, count
		stack, on[v] = append(stack, v), true
		for to, n := range w[v] {
			switch {
			case n == 0:
			case number[to] == 0:
				visit(to)
				low[v] = min(low[v], low[to])
			case on[to]:
				low[v] = min(low[v], number[to])
			}
		}
		if low[v] != number[v] {
			return
		}
		var set []int
		for {
			top := stack[len(stack)-1]
			stack, on[top] = stack[:len(stack)-1], false
			set = append(set, top)
			if top == v {
				break
			}
		}
		slices.Sort(set)
		out = append(out, set)
	}
	for v := range w {
		if number[v] == 0 {
			visit(v)
		}
	}
	slices.Reverse(out)
	return out
}

const exactly = 18 // nodes; a table of 2^18 sets

// arrange orders a set of nodes so that the least weight runs from a later to an earlier one.
func arrange(set []int, w [][]int) []int {
	if len(set) <= exactly {
		return arrangeExactly(set, w)
	}
	best, least := []int(nil), 0
	for _, first := range firstOrders(set, w) {
		o := improve(first, w)
		if up := weightUp(o, w); best == nil || up < least {
			best, least = o, up
		}
	}
	return best
}

// arrangeExactly extends the best order of every subset by each node that may come next.
func arrangeExactly(set []int, w [][]int) []int {
	n := len(set)
	const unknown = int(^uint(0) >> 1)
	least, last := make([]int, 1<<n), make([]int, 1<<n)
	for s := 1; s < 1<<n; s++ {
		least[s] = unknown
		for i := range n {
			if s&(1<<i) == 0 {
				continue
			}
			before := s &^ (1 << i)
			up := least[before]
			for j := range n {
				if before&(1<<j) != 0 {
					up += w[set[i]][set[j]]
				}
			}
			if up < least[s] {
				least[s], last[s] = up, i
			}
		}
	}
	out := make([]int, n)
	for s, at := 1<<n-1, n-1; at >= 0; at-- {
		out[at] = set[last[s]]
		s &^= 1 << last[s]
	}
	return out
}

// firstOrders are orders to begin with: by calls made less calls received, and as the files are named, forward and
// backward.
func firstOrders(set []int, w [][]int) [][]int {
	byCalls := slices.Clone(set)
	made := map[int]int{}
	for _, a := range set {
		for _, b := range set {
			made[a] += w[a][b] - w[b][a]
		}
	}
	slices.SortStableFunc(byCalls, func(a, b int) int { return cmp.Compare(made[b], made[a]) })
	out := [][]int{byCalls, slices.Clone(set)}
	for i := range 2 {
		o := slices.Clone(out[i])
		slices.Reverse(o)
		out = append(out, o)
	}
	for turn := 1; turn < len(set); turn++ {
		out = append(out, append(slices.Clone(byCalls[turn:]), byCalls[:turn]...))
	}
	return out
}

// improve moves single nodes to where they save most, until none does.
func improve(o []int, w [][]int) []int {
	o = slices.Clone(o)
	for {
		gain, from, to := 0, 0, 0
		for i := range o {
			saved := 0
			for j := i - 1; j >= 0; j-- { // i before j
				saved += w[o[i]][o[j]] - w[o[j]][o[i]]
				if saved > gain {
					gain, from, to = saved, i, j
				}
			}
			saved = 0
			for j := i + 1; j < len(o); j++ { // i behind j
				saved += w[o[j]][o[i]] - w[o[i]][o[j]]
				if saved > gain {
					gain, from, to = saved, i, j
				}
			}
		}
		if gain == 0 {
			return o
		}
		v := o[from]
		o = slices.Insert(slices.Delete(o, from, from+1), to, v)
	}
}

func weightUp(o []int, w [][]int) int {
	up := 0
	for i := range o {
		for j := range i {
			up += w[o[i]][o[j]]
		}
	}
	return up
}

// Arrows lists which room imports which, and from how many of its files; suites are left out, which only tests
// import.
func Arrows(packages []*Package) map[[2]string]int {
	out := map[[2]string]int{}
	for _, p := range packages {
		name, ours := strings.CutPrefix(p.Path, "internal/")
		if !ours || strings.HasSuffix(name, "test") && strings.Contains(name, "/") {
			continue
		}
		from, _, _ := strings.Cut(name, "/")
		for _, f := range p.Files {
			rooms := map[string]bool{}
			for _, imp := range f.Imports {
				if rest, ours := strings.CutPrefix(imp, Module+"/internal/"); ours && !f.Test {
					to, _, _ := strings.Cut(rest, "/")
					rooms[to] = to != from
				}
			}
			for to, other := range rooms {
				if other {
					out[[2]string{from, to}]++
				}
			}
		}
	}
	return out
}

// Circles lists the sets of rooms, or of anything else, that reach each other by the arrows.
func Circles(arrows map[[2]string]int) [][]string {
	all := map[string]bool{}
	for a := range arrows {
		all[a[0]], all[a[1]] = true, true
	}
	names := slices.Sorted(maps.Keys(all))
	w := make([][]int, len(names))
	for i, from := range names {
		w[i] = make([]int, len(names))
		for j, to := range names {
			w[i][j] = arrows[[2]string{from, to}]
		}
	}
	var out [][]string
	for _, set := range components(w) {
		if len(set) > 1 {
			var in []string
			for _, i := range set {
				in = append(in, names[i])
			}
			out = append(out, in)
		}
	}
	return out
}
