package store

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

type app struct {
	Instances int `json:"instances"`
}

func TestBrokenRowHidesNoOther(t *testing.T) {
	apps := NewTable[app]("apps")
	snap := &Snapshot{Revision: 7, Items: []Item{
		{Key: apps.Key("/a"), Value: []byte(`{"instances":1}`), Revision: 3},
		{Key: apps.Key("/b"), Value: []byte(`{"instances":`), Revision: 4},
		{Key: apps.Key("/c"), Value: []byte(`{"instances":3}`), Revision: 5},
		{Key: apps.Key("/d"), Value: []byte(`{"instances":4} trailing`), Revision: 6},
		{Key: NewTable[app]("apps2").Key("/e"), Value: []byte(`{"instances":5}`)},
		{Key: NewTable[app]("apps", "deep").Key("/f"), Value: []byte(`{"instances":6}`)},
	}}
	rows := apps.Rows(snap)
	got := map[string]int{}
	for id, a := range rows.All() {
		got[id] = a.Instances
	}
	if diff := cmp.Diff(map[string]int{"/a": 1, "/c": 3}, got); diff != "" {
		t.Errorf("readable rows (-want +got):\n%s", diff)
	}
	var broken []string
	for _, e := range rows.Broken {
		if !errors.Is(e, errdefs.ErrDataLoss) {
			t.Errorf("broken row: got %v, want an errdefs.ErrDataLoss", e)
		}
		broken = append(broken, e.Item.Key)
	}
	if diff := cmp.Diff([]string{apps.Key("/b"), apps.Key("/d")}, broken); diff != "" {
		t.Errorf("broken rows (-want +got):\n%s", diff)
	}
}

func TestRowsGoThroughATableUnchanged(t *testing.T) {
	apps := NewTable[app]("apps")
	op, err := apps.Put("/group/../%2F", app{Instances: 2})
	if err != nil {
		t.Fatal(err)
	}
	row, err := apps.Decode(Item{Key: op.Key, Value: op.Value, Revision: 9, Created: 8})
	want := Row[app]{ID: "/group/../%2F", Value: app{Instances: 2}, Revision: 9, Created: 8}
	if diff := cmp.Diff(want, row); err != nil || diff != "" {
		t.Errorf("row (-want +got), error %v:\n%s", err, diff)
	}
	if _, err := NewTable[any]("x").Put("id", func() {}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("put of a function: got %v, want an errdefs.ErrInvalidArgument", err)
	}
	if _, err := apps.Put("", app{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("put without an id: got %v, want an errdefs.ErrInvalidArgument", err)
	}
}
