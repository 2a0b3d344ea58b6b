package reservation

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/placement"
)

// with is a spec placed with a reservation of one volume.
func with(name string, gib int64) *kernel.Spec {
	return &kernel.Spec{Framework: "f", Owner: "/o", Role: "/r", Reservation: &kernel.Reservation{Name: name,
		Volumes: []kernel.ReservedVolume{{Name: "data", Bytes: gib * kernel.GiB}}}}
}

// TestWhatIsPlacedIsReleased places, releases and gives up at random: a reservation has one holder at a time, is given
// up without one only, and each change of its row is reported.
func TestWhatIsPlacedIsReleased(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := map[string]kernel.ReservationView{}
		var table *Table
		table = New(func(c *Reservation) {
			if rows[c.ID()] = c.ReservationView; table.Get(c.ID()) == nil {
				delete(rows, c.ID())
			}
		})
		holders := map[string]kernel.InstanceID{}
		for n := range rapid.IntRange(1, 50).Draw(t, "steps") {
			name := fmt.Sprint("c", rapid.IntRange(0, 2).Draw(t, "name"))
			k := with(name, int64(1+n/10))
			c := table.Of(k)
			switch step := rapid.IntRange(0, 4).Draw(t, "step"); {
			case step < 2 && c == nil:
				c = table.Add(k, placement.Placement{Agent: "a"})
				fallthrough
			case step < 2:
				if ok, refusal := c.Available(); ok != (holders[name] == "" && !c.Released) || ok == (len(refusal.Reasons) > 0) {
					t.Fatalf("%s, held by %q, released %v: available is %v: %v", name, holders[name], c.Released, ok, refusal)
				} else if ok && table.Check(k) == nil {
					holders[name] = kernel.InstanceID(fmt.Sprint("i", n))
					table.Place(c, k, holders[name])
				}
			case step == 2 && c != nil && holders[name] != "":
				if held := table.HeldBy(k, holders[name]); held != c || table.HeldBy(k, "other") != nil {
					t.Fatalf("%s holds %v, want %v", holders[name], held, c)
				}
				table.Release(c)
				holders[name] = ""
			case step == 3:
				found, err := table.GiveUp("f", []string{name})
				if (err != nil) != (holders[name] != "") || err != nil && !errdefs.IsFailedPrecondition(err) {
					t.Fatalf("giving up %s, held by %q: got %v", name, holders[name], err)
				}
				for _, c := range found {
					table.MarkReleased(c)
				}
			case step == 4 && c != nil && c.Released:
				table.Drop(c)
			}
			for c := range table.All {
				if c.Holder() != holders[c.Name] || c.Released && c.Holder() != "" {
					t.Fatalf("%s is held by %q, want %q; released %v", c.Name, c.Holder(), holders[c.Name], c.Released)
				}
			}
		}
		shown := table.Views("f")
		if len(shown) != len(rows) {
			t.Fatalf("%d reservations, %d rows", len(shown), len(rows))
		}
		next := New(func(*Reservation) {})
		for id, row := range rows {
			raw, err := json.Marshal(row)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(id, raw)
			if err != nil {
				t.Fatal(err)
			}
			next.Load(c)
		}
		if a, b := fmt.Sprintf("%+v", shown), fmt.Sprintf("%+v", next.Views("f")); a != b {
			t.Fatalf("the next leader has\n%s, want\n%s", b, a)
		}
	})
}

func TestASpecKeepsTheVolumesThatThereAre(t *testing.T) {
	table := New(func(*Reservation) {})
	k := with("c", 2)
	table.Place(table.Add(k, placement.Placement{Agent: "a"}), k, "i")
	for gib, ok := range map[int64]bool{1: false, 2: true, 3: true} {
		if err := table.Check(with("c", gib)); (err == nil) != ok || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%d GiB of 2: got %v, want it allowed to be %v", gib, err, ok)
		}
	}
	if other := with("other", 1); table.Check(other) != nil || table.Of(other) != nil || table.Of(&kernel.Spec{}) != nil {
		t.Error("a reservation that is not there is in the way")
	}
	table.MarkReleased(table.Of(k))
	if err := table.Check(k); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("one that was released: got %v", err)
	}
}

func TestARemovedMachineLosesWhatHasVolumes(t *testing.T) {
	written := map[string]bool{} // what is reported, as lost or not
	table := New(func(c *Reservation) { written[c.Name] = c.Lost })
	full, empty, gone := with("full", 1), with("empty", 1), with("gone", 1)
	empty.Reservation.Volumes = nil
	for _, k := range []*kernel.Spec{full, empty, gone} {
		c := table.Add(k, placement.Placement{Agent: "a"})
		table.Place(c, k, "i")
		table.Release(c)
	}
	table.MarkReleased(table.Of(gone))
	if got := table.ReleasedOn("a"); len(got) != 1 || got[0] != "f/gone" || table.ReleasedOn("b") != nil {
		t.Errorf("to be deleted: got %v, want f/gone on its machine only", got)
	}
	for _, c := range table.On("a") {
		if kept := table.MarkLost(c); kept != (c.Name == "full") {
			t.Errorf("%s: kept is %v", c.Name, kept)
		}
	}
	if !written["full"] || written["empty"] || written["gone"] {
		t.Errorf("reported as lost: got %v, want the one with volumes", written)
	}
	c := table.Of(full)
	if ok, why := c.Available(); ok || c == nil || !c.Lost || len(table.On("a")) != 0 || table.Of(empty) != nil ||
		table.Of(gone) != nil {
		t.Errorf("after the removal: got %v, available %v: %v", c, ok, why)
	}
}

func TestARowOfAnotherIsRefused(t *testing.T) {
	if _, err := Parse("f/a", []byte(`{"framework":"f","name":"b"}`)); err == nil {
		t.Error("got no error")
	}
	if _, err := Parse("f/a", []byte("{")); err == nil {
		t.Error("half a row: got no error")
	}
}
