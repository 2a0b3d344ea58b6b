package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Module is the import path of the repository.
const Module = "github.com/marinaos/marina"

// Package is a directory with Go files, tests included.
type Package struct {
	Path  string // from the top of the repository: internal/agent
	Files []*File
}

// File holds the facts of one source file that the law asks for.
type File struct {
	Path, Name string // internal/agent/run.go, run.go
	Test       bool
	Doc        string   // the package comment
	Imports    []string // as they are written, each once
	Code       int      // lines that hold more than blanks and comments
	Widths     []int    // of each line, in characters; a tab counts as one
	Funcs      []Func
	Impure     []Impurity
}

// Func is a declared function or method.
type Func struct {
	Receiver, Name string // the receiver's type without its star; empty for functions
	Line, Lines    int    // where it begins, and how many lines it takes from func to its closing brace
}

// Impurity is a place that asks the clock or starts a goroutine.
type Impurity struct {
	Line int
	What string // time.Now, go statement
}

// clock lists the functions that read or wait for the clock, by package.
var clock = map[string][]string{
	"time":    {"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"},
	"context": {"WithTimeout", "WithTimeoutCause", "WithDeadline", "WithDeadlineCause"},
}

// Load reads the packages below the given directories of the repository at root, ordered by path. Directories called
// testdata or bin and hidden ones are not read.
func Load(root string, dirs ...string) ([]*Package, error) {
	byPath := map[string]*Package{}
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir():
				if n := d.Name(); n == "testdata" || n == "bin" || strings.HasPrefix(n, ".") && n != "." && n != ".." {
					return filepath.SkipDir
				}
				return nil
			case !strings.HasSuffix(p, ".go"):
				return nil
			}
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			f, err := read(p, filepath.ToSlash(rel))
			if err != nil {
				return err
			}
			dir := path.Dir(f.Path)
			if byPath[dir] == nil {
				byPath[dir] = &Package{Path: dir}
			}
			byPath[dir].Files = append(byPath[dir].Files, f)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out := make([]*Package, 0, len(byPath))
	for _, p := range byPath {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Package) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func read(name, rel string) (*File, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, rel, src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	f := &File{Path: rel, Name: path.Base(rel), Test: strings.HasSuffix(rel, "_test.go")}
	f.Doc, f.Code = tree.Doc.Text(), codeLines(src)
	for line := range bytes.Lines(src) {
		f.Widths = append(f.Widths, utf8.RuneCount(bytes.TrimRight(line, "\r\n")))
	}
	names := map[string]string{} // how a package is called in this file
	for _, imp := range tree.Imports {
		p, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			return nil, err
		}
		f.Imports = append(f.Imports, p)
		if imp.Name != nil {
			names[imp.Name.Name] = p
		} else {
			names[path.Base(p)] = p
		}
	}
	f.Funcs, f.Impure = declared(fset, tree), impurities(fset, tree, names)
	return f, nil
}

func declared(fset *token.FileSet, tree *ast.File) []Func {
	var out []Func
	for _, d := range tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		at, end := fset.Position(fn.Pos()), fset.Position(fn.End())
		f := Func{Name: fn.Name.Name, Line: at.Line, Lines: end.Line - at.Line + 1}
		if fn.Recv != nil && len(fn.Recv.List) == 1 {
			f.Receiver = typeName(fn.Recv.List[0].Type)
		}
		out = append(out, f)
	}
	return out
}

// typeName is the name under a receiver's star and type parameters.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ParenExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	}
	return ""
}

func impurities(fset *token.FileSet, tree *ast.File, names map[string]string) []Impurity {
	var out []Impurity
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			out = append(out, Impurity{Line: fset.Position(n.Pos()).Line, What: "go statement"})
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if ok && slices.Contains(clock[names[x.Name]], n.Sel.Name) {
				out = append(out, Impurity{Line: fset.Position(n.Pos()).Line, What: names[x.Name] + "." + n.Sel.Name})
			}
		}
		return true
	})
	return out
}

// codeLines counts the lines on which a token lies that is no comment.
func codeLines(src []byte) int {
	fset := token.NewFileSet()
	file := fset.AddFile("", -1, len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, 0)
	n, last := 0, 0
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return n
		}
		if tok == token.SEMICOLON && lit == "\n" {
			continue // inserted, at the end of a line that has been counted
		}
		first := file.Line(pos)
		end := first + strings.Count(lit, "\n")
		n += end - max(first, last+1) + 1
		last = end
	}
}

// Code counts the lines of code of a package, of its tests or of all else.
func (p *Package) Code(tests bool) int {
	n := 0
	for _, f := range p.Files {
		if f.Test == tests {
			n += f.Code
		}
	}
	return n
}

// Methods counts the methods of each type that the package declares outside of its tests.
func (p *Package) Methods() map[string]int {
	out := map[string]int{}
	for _, f := range p.Files {
		for _, fn := range f.Funcs {
			if !f.Test && fn.Receiver != "" {
				out[fn.Receiver]++
			}
		}
	}
	return out
}

// Imports lists the packages of internal/ that the package's code imports, without internal/, each once and in
// order.
func (p *Package) Imports() []string {
	var out []string
	for _, f := range p.Files {
		for _, imp := range f.Imports {
			if rest, ours := strings.CutPrefix(imp, Module+"/internal/"); ours && !f.Test {
				out = append(out, rest)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
