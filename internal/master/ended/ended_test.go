package ended

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

func id(n int) kernel.InstanceID { return kernel.InstanceID(fmt.Sprint("i", n)) }

// TestTheLastIDsAreRememberedAcrossLeaders ends more than a ring takes, and after it loads the rows as Add reported
// them: the next leader remembers the same.
func TestTheLastIDsAreRememberedAcrossLeaders(t *testing.T) {
	var e, next IDs
	rows := map[int]Row{}
	const all = perSlot*slots + 3*perSlot/2
	for n := range all {
		slot := e.Add("f", id(n))
		row, ok := e.Row("f", slot)
		if !ok || row.Groups[len(row.Groups)-1] != id(n) {
			t.Fatalf("slot %d has no row with the id that was added to it", slot)
		}
		rows[slot] = row
	}
	for slot, row := range rows {
		next.Load("f", slot, row)
	}
	for _, of := range []*IDs{&e, &next} {
		for n := range all {
			if recent := n >= all-perSlot*(slots-1); of.Has("f", id(n)) != recent && (recent || n < all-perSlot*slots) {
				t.Fatalf("id %d of %d: remembered is %v", n, all, !recent)
			}
		}
		if of.Has("other", id(all-1)) {
			t.Error("another framework's id is taken for its own")
		}
	}
	if slot := next.Add("f", "more"); !next.Has("f", "more") || slot != e.Add("f", "more") {
		t.Errorf("the next leader goes on in slot %d, want where the one before would", slot)
	}
}

func TestRowsThatNoRingHasAreIgnored(t *testing.T) {
	var e IDs
	e.Load("f", slots, Row{Groups: []kernel.InstanceID{"a"}})
	e.Load("f", 0, Row{Groups: make([]kernel.InstanceID, perSlot+1)})
	if _, ok := e.Row("f", 0); ok || e.Has("f", "a") {
		t.Error("they are loaded")
	}
}

// TestThePastShowsTheLast adds records at random and finds the newest of them, and no other.
func TestThePastShowsTheLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p Past
		all := rapid.SampledFrom([]int{1, pastKept, pastKept + 1, 2*pastKept + 7}).Draw(t, "records")
		for n := range all {
			i := kernel.Instance{Assignment: kernel.Assignment{ID: id(n)},
				Statuses: []kernel.Status{{Task: kernel.TaskID(id(n) + ".t")}}}
			p.Add(i.Record())
		}
		n := rapid.IntRange(0, all-1).Draw(t, "of")
		r, _, ok := p.Find(kernel.TaskID(id(n) + ".t"))
		if ok != (n >= all-pastKept) || ok && r.ID() != id(n) {
			t.Fatalf("record %d of %d: found is %v", n, all, ok)
		}
	})
}
