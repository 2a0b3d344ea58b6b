package core

import (
	"fmt"
	"slices"
	"testing"

	"github.com/marinaos/marina/internal/marathon"
	"pgregory.net/rapid"
)

// plainly multiplies dependencies on groups out, as the words say: it is slow, and right.
func plainly(id string, root map[string]*marathon.App) (out []string) {
	for _, dep := range root[id].Dependencies {
		for other := range root {
			if other == dep || root[dep] == nil && marathon.Under(other, dep) && other != id {
				out = append(out, other)
			}
		}
	}
	return out
}

// reaches reports whether a chain of dependencies leads from one app to another.
func reaches(from, to string, root map[string]*marathon.App, seen map[string]bool) bool {
	return slices.ContainsFunc(plainly(from, root), func(next string) bool {
		if next == to {
			return true
		}
		if seen[next] {
			return false
		}
		seen[next] = true
		return reaches(next, to, root, seen)
	})
}

func longest(id string, root map[string]*marathon.App) (most int) {
	for _, next := range plainly(id, root) {
		most = max(most, 1+longest(next, root))
	}
	return most
}

func TestDependenciesMeanWhatTheyMultiplyOutTo(t *testing.T) {
	app := rapid.StringMatching(`(/[ab]){1,3}/[xyz]`)
	rapid.Check(t, func(t *rapid.T) {
		root := map[string]*marathon.App{}
		for _, id := range rapid.SliceOfN(app, 1, 8).Draw(t, "apps") {
			root[id] = &marathon.App{ID: id}
		}
		ids := sortedKeys(root)
		for range rapid.IntRange(0, 6).Draw(t, "edges") {
			a := root[rapid.SampledFrom(ids).Draw(t, "app")]
			a.Dependencies = append(a.Dependencies, rapid.OneOf(rapid.SampledFrom(ids), rapid.StringMatching(`(/[ab]){1,3}`),
				rapid.Just("/")).Draw(t, "names"))
		}
		cyclic := false
		for _, id := range ids {
			cyclic = cyclic || reaches(id, id, root, map[string]bool{})
		}
		if got := newDependencies(root).Cyclic(ids); got != cyclic {
			t.Fatalf("cyclic: got %v, want %v", got, cyclic)
		}
		if cyclic {
			return
		}
		g := newDependencies(root)
		for _, id := range ids {
			if got, want := g.depth(id), longest(id, root); got != want {
				t.Fatalf("depth of %s: got %d, want %d", id, got, want)
			}
		}
	})
}

// crowd is 10,000 apps of one group, and some beside it that name it over and over.
func crowd(beside int) (root map[string]*marathon.App, ids []string) {
	root = map[string]*marathon.App{}
	for n := range 10_000 {
		id := fmt.Sprintf("/g/app-%05d", n)
		root[id] = &marathon.App{ID: id}
	}
	for n := range beside {
		id := fmt.Sprintf("/beside-%d", n)
		root[id] = &marathon.App{ID: id, Dependencies: slices.Repeat([]string{"/g"}, marathon.MaxItems)}
		ids = append(ids, id)
	}
	return root, ids
}

func TestAGroupIsLookedAtOnceHoweverOftenItIsNamed(t *testing.T) {
	root, ids := crowd(400)
	g := newDependencies(root)
	if g.Cyclic(ids) || g.depth(ids[0]) != 1 || g.depth(ids[399]) != 1 {
		t.Errorf("got a cycle or depths %d and %d, want none, 1 and 1", g.depth(ids[0]), g.depth(ids[399]))
	}
	if most := 3 * len(root); g.looked > most {
		t.Errorf("edges followed: got %d, want at most %d", g.looked, most)
	}
}

func BenchmarkDependenciesOnAGroup(b *testing.B) {
	for _, beside := range []int{1, 400} {
		b.Run(fmt.Sprint(beside), func(b *testing.B) {
			root, ids := crowd(beside)
			changes := []Change{}
			for _, id := range ids {
				changes = append(changes, Change{App: id, To: root[id]})
			}
			for b.Loop() {
				if newDependencies(root).Cyclic(ids) {
					b.Fatal("a cycle")
				}
				NewDeployment("d", "", changes, root, func(string, string) bool { return false })
			}
		})
	}
}
