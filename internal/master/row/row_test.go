package row

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/store"
)

func someRow(t *rapid.T) Row {
	r := Row{Kind: Kind(rapid.IntRange(int(Spec), int(Assigned)).Draw(t, "kind")),
		ID: rapid.StringN(1, 20, 200).Draw(t, "id")}
	if r.Kind >= Ended {
		r.Chunk = rapid.IntRange(0, 300).Draw(t, "chunk")
	}
	return r
}

func TestARowIsReadBackFromItsKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := someRow(t)
		if got, ok := Parse(r.Key()); !ok || got != r {
			t.Fatalf("%+v has key %q, which is read as %+v, %v", r, r.Key(), got, ok)
		}
		if !strings.HasPrefix(r.Key(), All) {
			t.Fatalf("%q is not among all rows, %q", r.Key(), All)
		}
	})
}

func TestAKeyOfNoRowIsNotRead(t *testing.T) {
	for _, key := range []string{"", "kernel/specs", "kernel/others/a", "kernel/specs/a/1", "kernel/assigned/a",
		"kernel/assigned/a/-1",
		"kernel/assigned/a/01", "kernel/assigned/a/x", "kernel/ended/a/1/2"} {
		if r, ok := Parse(key); ok {
			t.Errorf("%q: got %+v", key, r)
		}
	}
}

func TestRowsAreGroupedByKind(t *testing.T) {
	a, b, v := Row{Kind: Agent, ID: "a"}, Row{Kind: Agent, ID: "b"}, Row{Kind: VIP, ID: "v"}
	var items []store.Item
	for _, key := range []string{a.Key(), v.Key(), "kernel/others/x", b.Key()} {
		items = append(items, store.Item{Key: key, Value: []byte(key)})
	}
	byKind, problems := Group(items)
	want := map[Kind][]Item{Agent: {{a, []byte(a.Key())}, {b, []byte(b.Key())}}, VIP: {{v, []byte(v.Key())}}}
	if diff := cmp.Diff(want, byKind); diff != "" || len(problems) != 1 {
		t.Errorf("%d problems, want one; by kind (-want +got):\n%s", len(problems), diff)
	}
}

// TestWhatRefersComesAfterAndGoesBefore encodes rows of all kinds, half of which are gone.
func TestWhatRefersComesAfterAndGoesBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfNDistinct(rapid.Custom(someRow), 0, 12, func(r Row) Row { return r }).Draw(t, "rows")
		slices.SortFunc(rows, Row.Compare)
		gone := func(r Row) bool { return len(r.ID)%2 == 0 }
		ops, err := Ops(rows, func(r Row) any {
			if gone(r) {
				return nil
			}
			return Address{}
		})
		if err != nil || len(ops) != len(rows) {
			t.Fatalf("got %d operations and %v for %d rows", len(ops), err, len(rows))
		}
		last := Row{}
		deleting := false
		for _, op := range ops {
			r, _ := Parse(op.Key)
			if gone(r) != (op.Kind == store.OpDelete) || deleting && op.Kind != store.OpDelete {
				t.Fatalf("row %+v: operation %+v, after a deletion: %v", r, op, deleting)
			}
			if op.Kind == store.OpDelete && !deleting {
				deleting, last = true, Row{Kind: Assigned}
			}
			if deleting && r.Kind > last.Kind || !deleting && r.Kind < last.Kind {
				t.Fatalf("row %+v comes after %+v, deleting %v", r, last, deleting)
			}
			last = r
		}
	})
}

func TestInstancesArePacked(t *testing.T) {
	want := []kernel.Assignment{{ID: "i", Spec: "s", Goal: kernel.GoalRun}}
	ops, err := Ops([]Row{{Kind: Assigned, ID: "a"}, {Kind: VIP, ID: "v"}}, func(r Row) any {
		if r.Kind == Assigned {
			return []*kernel.Assignment{&want[0]}
		}
		return Address{}
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := kernel.UnpackAssignments(ops[0].Value)
	if err != nil || len(got) != 1 || got[0].ID != "i" {
		t.Errorf("packed: got %+v, %v", got, err)
	}
	if diff := cmp.Diff(`{"addr":""}`, string(ops[1].Value)); diff != "" {
		t.Errorf("an address (-want +got):\n%s", diff)
	}
}
