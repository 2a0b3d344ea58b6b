package core

import (
	"github.com/marinaos/marina/internal/marathon"
	"slices"
	"strings"
)

// Cyclic reports whether a chain of dependencies leads from one of some apps, or from what it depends on, back to
// itself. root is all apps.
func Cyclic(root map[string]*marathon.App, from []string) bool {
	return newDependencies(root).Cyclic(from)
}

// dependencies is the graph of what apps name as their dependencies: other apps, or groups, which stand for all apps
// below them. A group is a node of its own, so that its apps are looked at once and not once for everybody who names
// it: the whole costs one look at each name that an app gives (MaxItems at most), and at each app for each of the
// groups above it.
type dependencies struct {
	root   map[string]*marathon.App
	ids    []string       // of root, sorted: those below a group stand together
	depths map[string]int // of nodes, as far as they are known
	looked int            // edges that were followed
}

func newDependencies(root map[string]*marathon.App) *dependencies {
	return &dependencies{root: root, ids: sortedKeys(root), depths: map[string]int{}}
}

// groupNode is the node of a group. No app's id begins like it.
func groupNode(group string) string { return "*" + group }

// below lists the apps of a group. It is shared.
func (g *dependencies) below(group string) []string {
	if group == "/" {
		return g.ids
	}
	from, _ := slices.BinarySearch(g.ids, group+"/")
	to, _ := slices.BinarySearch(g.ids, group+"0") // "0" follows "/"
	return g.ids[from:to]
}

// edges lists the nodes that a node leads to. An app that names a group which it is in depends on all others of that,
// and cannot do so by the group's node: there can be but one such app for each group, or the graph has a cycle.
func (g *dependencies) edges(node string) []string {
	if group, ok := strings.CutPrefix(node, "*"); ok {
		return g.below(group)
	}
	a := g.root[node]
	if a == nil || len(a.Dependencies) == 0 {
		return nil
	}
	out := []string{}
	for _, dep := range slices.Compact(slices.Sorted(slices.Values(a.Dependencies))) {
		switch {
		case g.root[dep] != nil:
			out = append(out, dep)
		case marathon.Under(node, dep):
			out = append(out, slices.DeleteFunc(slices.Clone(g.below(dep)), func(other string) bool { return other == node })...)
		default:
			out = append(out, groupNode(dep))
		}
	}
	return out
}

// depth is the length of the longest chain of dependencies below an app. The graph has no cycles.
func (g *dependencies) depth(id string) int {
	if k, ok := g.depths[id]; ok {
		return k
	}
	g.depths[id] = 0
	most := 0
	for _, next := range g.edges(id) {
		g.looked++
		k := g.depth(next)
		if group, ok := strings.CutPrefix(next, "*"); !ok || len(g.below(group)) > 0 {
			most = max(most, 1+k)
		}
	}
	if strings.HasPrefix(id, "*") && most > 0 {
		most-- // a group is as deep as the deepest of its apps
	}
	g.depths[id] = most
	return most
}

// cyclic reports whether a chain of dependencies leads from one of the apps, or from what it depends on, back to
// itself.
func (g *dependencies) Cyclic(from []string) bool {
	const open, closed = 1, 2
	marks := map[string]int{}
	var visit func(string) bool
	visit = func(node string) bool {
		g.looked++
		switch marks[node] {
		case open:
			return true
		case closed:
			return false
		}
		marks[node] = open
		if slices.ContainsFunc(g.edges(node), visit) {
			return true
		}
		marks[node] = closed
		return false
	}
	return slices.ContainsFunc(from, visit)
}
