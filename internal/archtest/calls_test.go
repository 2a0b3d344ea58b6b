package archtest

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestTheOrderHasTheFewestCallsUp(t *testing.T) {
	for name, tc := range map[string]struct {
		files []string
		calls map[[2]string]int
		want  Flow
	}{
		"downward only": {
			files: []string{"a", "b", "c"},
			calls: map[[2]string]int{{"c", "a"}: 2, {"a", "b"}: 1, {"c", "b"}: 1},
			want:  Flow{Order: []string{"c", "a", "b"}, Calls: 4, Arrows: 3, Knot: 1},
		},
		"two that call each other": {
			files: []string{"a", "b"},
			calls: map[[2]string]int{{"a", "b"}: 3, {"b", "a"}: 5},
			want:  Flow{Order: []string{"b", "a"}, Calls: 8, Up: 3, Arrows: 2, ArrowsUp: 1, Knot: 2},
		},
		"a circle is cut where it is thinnest": {
			files: []string{"a", "b", "c", "d"},
			calls: map[[2]string]int{{"a", "b"}: 4, {"b", "c"}: 1, {"c", "a"}: 4, {"c", "d"}: 9},
			want:  Flow{Order: []string{"c", "a", "b", "d"}, Calls: 18, Up: 1, Arrows: 4, ArrowsUp: 1, Knot: 3},
		},
	} {
		if d := cmp.Diff(tc.want, order(tc.files, tc.calls)); d != "" {
			t.Errorf("%s: -want +got:\n%s", name, d)
		}
	}
}

// The search by single moves is compared with the exact one where both can be had.
func TestMovingFilesOneAtATimeComesCloseToTheBestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "files")
		w, set := make([][]int, n), make([]int, n)
		total := 0
		for i := range w {
			w[i], set[i] = make([]int, n), i
			for j := range w[i] {
				if i != j {
					w[i][j] = max(0, rapid.IntRange(-3, 5).Draw(t, "calls"))
					total += w[i][j]
				}
			}
		}
		exact := weightUp(arrangeExactly(set, w), w)
		found := total
		for _, first := range firstOrders(set, w) {
			o := improve(first, w)
			seen := map[int]bool{}
			for _, v := range o {
				seen[v] = true
			}
			if len(seen) != n || len(o) != n {
				t.Fatalf("order %v of %d files", o, n)
			}
			found = min(found, weightUp(o, w))
		}
		if found < exact || found > exact+max(2, total/20) {
			t.Errorf("%d calls up, and %d at the least, of %d", found, exact, total)
		}
	})
}

func TestCallsAreCountedOnceForEachFunctionThatMakesThem(t *testing.T) {
	dir := t.TempDir()
	for name, src := range map[string]string{
		"a.go": `package p

type T[X any] struct{}

func (T[X]) Do() { help(); help(); other() }

func other() {}

var start = help
`,
		"b.go": `package p

type doer interface{ Do() }

func help() { var d doer = T[int]{}; d.Do(); T[int]{}.Do(); T[string]{}.Do() }
`,
		"c.go":   "package p\n\nimport \"strings\"\n\nfunc use(d doer) string { d.Do(); return strings.ToUpper(\"x\") }\n",
		"go.mod": "module p\n\ngo 1.26\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list, err := goList(dir, []string{"."})
	if err != nil {
		t.Fatal(err)
	}
	export := map[string]string{}
	for _, p := range list {
		export[p.ImportPath] = p.Export
	}
	got, err := list[len(list)-1].calls(export)
	if err != nil {
		t.Fatal(err)
	}
	want := map[[2]string]int{
		{"a.go", "b.go"}: 2, // Do and start name help
		{"b.go", "a.go"}: 1, // help calls T.Do, of whatever X
		{"c.go", "b.go"}: 1, // the interface's method
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCirclesOfRoomsAreFound(t *testing.T) {
	got := Circles(map[[2]string]int{{"a", "b"}: 1, {"b", "c"}: 2, {"c", "b"}: 1, {"d", "a"}: 1})
	if d := cmp.Diff([][]string{{"b", "c"}}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
