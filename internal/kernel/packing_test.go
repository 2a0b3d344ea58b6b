package kernel

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func drawGroup(t *rapid.T) *Assignment {
	g := &Assignment{ID: InstanceID(rapid.SampledFrom([]string{"", "a", "prod_web.instance-",
		"prod_web.instance-0E43A2A2-1234-4567-89ab-0123456789ab",
		"0e43a2a2-1234-4567-89ab-0123456789ab"}).Draw(t, "id") +
		rapid.SampledFrom([]string{"", "0e43a2a2-1234-4567-89ab-0123456789ab", "0e43a2a2-1234-4567-89ab-0123456789ac"}).Draw(
			t, "uuid") +
		rapid.SampledFrom([]string{"", "._app.2", "-"}).Draw(t, "after")),
		Spec:   SpecID(rapid.SampledFrom([]string{"s1", "0e43a2a2", "0E43", ""}).Draw(t, "spec")),
		Placed: time.Unix(0, rapid.Int64().Draw(t, "placed")).UTC(), Goal: GoalRun}
	if rapid.Bool().Draw(t, "stop") {
		g.Goal, g.Why = GoalStop, rapid.String().Draw(t, "why")
	}
	if n := rapid.SampledFrom([]int{0, 4, 16}).Draw(t, "address"); n > 0 {
		g.Address, _ = netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "bytes"))
	}
	if rapid.Bool().Draw(t, "ports") {
		g.HostPorts = rapid.SliceOfN(rapid.Uint16(), 0, 3).Draw(t, "numbers")
		if g.HostPorts == nil {
			g.HostPorts = []uint16{}
		}
	}
	if rapid.Bool().Draw(t, "resized") {
		g.Sizes = []Size{{Guarantee: Resources{MilliCPU: rapid.Int64().Draw(t, "cpu")}}}
	}
	return g
}

func TestInstancesComeOutOfTheirRowAsTheyWentIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := rapid.SliceOfN(rapid.Custom(drawGroup), 0, 5).Draw(t, "groups")
		packed, err := PackAssignments(groups)
		if err != nil {
			t.Fatal(err)
		}
		got, err := UnpackAssignments(packed)
		if err != nil {
			t.Fatalf("%v of % x", err, packed)
		}
		want := make([]Assignment, len(groups))
		for k, g := range groups {
			want[k] = *g
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Fatalf("groups (-want +got):\n%s", diff)
		}
	})
}

func TestRowsOfAnEarlierReleaseAreRead(t *testing.T) {
	want := []Assignment{{ID: "a", Spec: "s", Goal: GoalRun, Placed: time.Unix(1, 0).UTC()}}
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := UnpackAssignments(raw)
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || diff != "" {
		t.Errorf("%v, groups (-want +got):\n%s", err, diff)
	}
}

func TestARowWithWhatNoInstanceHasIsRefused(t *testing.T) {
	if _, err := UnpackAssignments([]byte(`[{"id":"a","spec":"s","goal":"rest"}]`)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a goal that there is not: got %v, want an errdefs.ErrInvalidArgument", err)
	}
	packed, err := PackAssignments([]*Assignment{{ID: "a", Spec: "s", Goal: GoalRun, HostPorts: []uint16{65535}}})
	if err != nil {
		t.Fatal(err)
	}
	packed[len(packed)-1]++ // 65535 is 0xff 0xff 0x03
	if _, err := UnpackAssignments(packed); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a port above 65535: got %v, want an errdefs.ErrInvalidArgument", err)
	}
}

func FuzzUnpackInstances(f *testing.F) {
	packed, err := PackAssignments([]*Assignment{{ID: "prod_web.instance-0e43a2a2-1234-4567-89ab-0123456789ab", Spec: "s",
		Goal: GoalStop, Why: "x",
		Address: netip.MustParseAddr("10.0.0.1"), HostPorts: []uint16{80}, Sizes: []Size{{}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	for n := range packed {
		f.Add(packed[:n])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if groups, err := UnpackAssignments(b); err == nil && len(groups) > len(b) {
			t.Errorf("%d groups of %d bytes", len(groups), len(b))
		}
	})
}

// A row is what a disk gave back. Whatever became of it, reading it ends with all of it understood or with an error;
// what was understood is written and read again as the same.
func TestARowWithWrongBytesIsRefusedOrReadWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row, err := PackAssignments(rapid.SliceOfN(rapid.Custom(drawGroup), 1, 4).Draw(t, "groups"))
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 4).Draw(t, "faults") {
			at := rapid.IntRange(0, len(row)-1).Draw(t, "at")
			switch rapid.IntRange(0, 2).Draw(t, "fault") {
			case 0:
				row[at] = rapid.Byte().Draw(t, "byte")
			case 1:
				row = append(row[:at:at], row[at+1:]...)
			case 2:
				row = append(row[:at:at], append(rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "more"), row[at:]...)...)
			}
			if len(row) == 0 {
				return
			}
		}
		got, err := UnpackAssignments(row)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("got %v, want an errdefs.ErrInvalidArgument", err)
			}
			return
		}
		pointers := make([]*Assignment, len(got))
		for k := range got {
			pointers[k] = &got[k]
		}
		again, err := PackAssignments(pointers)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := UnpackAssignments(again)
		if diff := cmp.Diff(got, twice, cmpopts.EquateComparable(netip.Addr{})); err != nil || diff != "" {
			t.Fatalf("%v, written and read again (-want +got):\n%s", err, diff)
		}
	})
}

func TestInstancesAreTheSameInRowsAndInFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGroup(t)
		if g.Placed.Year() < 0 || g.Placed.Year() > 9999 {
			t.Skip("JSON has no such time")
		}
		raw, err := json.Marshal(Down{Epoch: 1, Seq: 2, Assignments: []Assignment{*g}})
		if err != nil {
			t.Fatal(err)
		}
		var frame Down
		if err := json.Unmarshal(raw, &frame); err != nil {
			t.Fatal(err)
		}
		if len(g.HostPorts) == 0 {
			g.HostPorts = nil // JSON leaves it out
		}
		g.Why = string([]rune(g.Why))
		if diff := cmp.Diff([]Assignment{*g}, frame.Assignments, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Fatalf("a frame (-want +got):\n%s", diff)
		}
	})
}
