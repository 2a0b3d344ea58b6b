package spec

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/expose"
	"github.com/marinaos/marina/internal/master/vip"
	"github.com/marinaos/marina/internal/placement"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func tables(changed func(kernel.SpecID)) (*vip.Table, *expose.Table, *Table) {
	vips := vip.New(netip.MustParsePrefix("198.18.0.0/24"), time.Minute, func(string) {})
	exposed := expose.New(vips)
	return vips, exposed, New(placement.NewPool(kernel.StrategySpread), vips, exposed, changed)
}

func sealed(t interface{ Fatal(...any) }, owner string, change func(*kernel.Spec)) kernel.Spec {
	k := kernel.Spec{Framework: "f", Owner: owner, Version: "1", Role: "/",
		Network: kernel.Network{Mode: kernel.NetworkHost},
		Tasks:   []kernel.TaskSpec{{Name: "t", Suffix: ".t", Shell: "true", Guarantee: kernel.Resources{MilliCPU: 1000}}}}
	if change != nil {
		change(&k)
	}
	k, err := k.Seal()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func named(name string) func(*kernel.Spec) {
	return func(k *kernel.Spec) {
		k.Tasks[0].Ports = []kernel.Port{{Protocol: "tcp", Container: 80, Service: 10000, Publish: true,
			VIPs: []kernel.VIP{{Name: name, Port: 80}}}}
	}
}

// TestASpecIsThereWhileSomethingUsesIt begins and ends uses at random: a spec and its VIP are there as long as one is
// left, and its row from its first instance until then.
func TestASpecIsThereWhileSomethingUsesIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := map[kernel.SpecID]bool{}
		var table *Table
		vips, _, table := tables(func(id kernel.SpecID) { _, rows[id] = table.Stored(id) })
		type model struct{ waits, placed int }
		models := map[string]*model{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			owner := fmt.Sprint("/o", rapid.IntRange(0, 2).Draw(t, "owner"))
			k := sealed(t, owner, named("v"+owner[1:]))
			m := models[owner]
			if m == nil {
				m = &model{}
				models[owner] = m
			}
			switch step := rapid.IntRange(0, 3).Draw(t, "step"); {
			case step == 0:
				sp, err := table.Add(k, start)
				if err != nil {
					t.Fatal(err)
				}
				n := rapid.IntRange(0, 3).Draw(t, "wait")
				table.Wait(sp, n)
				table.FreeUnused(sp, start)
				m.waits += n
			case step == 1 && m.waits > 0:
				sp := table.Get(k.ID)
				table.Place(sp)
				table.Unuse(sp, 1, start)
				m.waits, m.placed = m.waits-1, m.placed+1
			case step == 2 && m.waits > 0:
				table.Unuse(table.Get(k.ID), m.waits, start)
				m.waits = 0
			case step == 3 && m.placed > 0:
				table.Release(table.Get(k.ID), start)
				m.placed--
			}
			placed := 0
			for owner, m := range models {
				k := sealed(t, owner, named("v"+owner[1:]))
				sp := table.Get(k.ID)
				if used := m.waits+m.placed > 0; used != (sp != nil) || used && sp.Uses() != m.waits+m.placed {
					t.Fatalf("%s with %d waiting and %d placed is %v", owner, m.waits, m.placed, sp)
				}
				if _, stored := table.Stored(k.ID); stored != rows[k.ID] || m.placed > 0 && !stored || sp == nil && stored {
					t.Fatalf("%s with %d placed has a row: %v, reported %v", owner, m.placed, stored, rows[k.ID])
				}
				if vips.Expire(start.Add(time.Hour)); vips.Get("v"+owner[1:]+".f").IsValid() != (sp != nil) {
					t.Fatalf("%s with %d uses has VIP %v", owner, m.waits+m.placed, vips.Get("v"+owner[1:]+".f"))
				}
				placed += m.placed
			}
			if table.Placed("f") != placed || table.Placed("") != placed || table.Placed("other") != 0 {
				t.Fatalf("%d are placed, want %d", table.Placed("f"), placed)
			}
		}
	})
}

func TestASpecThatCannotBeIsRefused(t *testing.T) {
	for name, change := range map[string]func(*kernel.Spec){
		"a role that is none":     func(k *kernel.Spec) { k.Role = "/a//b" },
		"a framework with no end": func(k *kernel.Spec) { k.Framework = strings.Repeat("f", 200) },
		"a VIP with no end":       named(strings.Repeat("v", 300)),
		"a constraint that is none": func(k *kernel.Spec) {
			k.Constraints = []kernel.Constraint{{Field: "hostname", Operator: "LIKE", Value: "("}}
		},
	} {
		vips, _, table := tables(func(kernel.SpecID) {})
		k := sealed(t, "/o", nil)
		change(&k)
		if sp, err := table.Add(k, start); !errdefs.IsInvalidArgument(err) || sp != nil {
			t.Errorf("%s: got %v, %v, want it refused", name, sp, err)
		}
		for sp := range table.All {
			t.Errorf("%s: %v is kept", name, sp)
		}
		for name := range vips.All {
			t.Errorf("%s is held", name)
		}
	}
}

func TestLoadedSpecsThatNothingUsesAreFreed(t *testing.T) {
	freed := 0
	_, _, table := tables(func(kernel.SpecID) { freed++ })
	used, unused := sealed(t, "/used", nil), sealed(t, "/unused", nil)
	for _, k := range []kernel.Spec{used, unused} {
		if err := table.Load(k); err != nil {
			t.Fatal(err)
		}
	}
	table.Place(table.Get(used.ID))
	if table.FreeAllUnused(); freed != 1 || table.Get(used.ID) == nil || table.Get(unused.ID) != nil {
		t.Errorf("%d rows are reported, want the one that nothing uses", freed)
	}
}

func TestAnOwnersPortsGoWithItsSpecs(t *testing.T) {
	_, exposed, table := tables(func(kernel.SpecID) {})
	row := expose.Row{Framework: "f", Owner: "/o", Ports: []kernel.Port{{Name: "more", Protocol: "tcp", Container: 81}}}
	made, err := exposed.Make(row, start)
	if err != nil {
		t.Fatal(err)
	}
	exposed.Set("f", "/o", made, start)
	sp, err := table.Add(sealed(t, "/o", named("v")), start)
	if err != nil {
		t.Fatal(err)
	}
	other, err := table.Add(sealed(t, "/other", nil), start)
	if err != nil {
		t.Fatal(err)
	}
	if len(sp.More) != 1 || len(other.More) != 0 || len(sp.Serves[0]) != 1 || !sp.Serves[0][0].VIPs[0].Addr.IsValid() {
		t.Errorf("got %v and %v, for another %v, want its own port with an address, and one more", sp.Serves, sp.More,
			other.More)
	}
	if table.Expose("f", "/o", nil); sp.More != nil {
		t.Errorf("none any more: got %v", sp.More)
	}
	for asks, want := range map[string]string{"/other": "/o", "/o": ""} {
		if got := table.Publisher(&expose.Row{Framework: "f", Owner: asks}, 10000); got != want {
			t.Errorf("%s asks who publishes a port: got %q, want %q", asks, got, want)
		}
	}
}
