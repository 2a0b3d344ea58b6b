package vip

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/network"
)

func backend(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)
}

func TestAssignSlotsKeepsNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (out []netip.AddrPort) {
			for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(1, 12), 0, 10, rapid.ID).Draw(t, name) {
				out = append(out, backend(i))
			}
			return out
		}
		old, want := draw("old"), draw("want")
		slots, gone := assignSlots(old, append(want, want...)) // doubles count once
		sorted := func(l []netip.AddrPort) []netip.AddrPort {
			l = slices.Clone(l)
			slices.SortFunc(l, netip.AddrPort.Compare)
			return l
		}
		if !slices.Equal(sorted(slots), sorted(want)) {
			t.Fatalf("assignSlots(%v, %v) = %v", old, want, slots)
		}
		for _, g := range gone {
			if slices.Contains(want, g) || !slices.Contains(old, g) {
				t.Fatalf("assignSlots(%v, %v) says %v is gone", old, want, g)
			}
		}
		changed := 0
		for i := range max(len(old), len(slots)) {
			if i >= len(old) || i >= len(slots) || old[i] != slots[i] {
				changed++
			}
		}
		// Each that goes or comes may cost one number, and each hole at most one more: the last, moved there.
		if most := len(gone) + len(want) - len(old) + 2*len(gone); changed > most {
			t.Fatalf("assignSlots(%v, %v) = %v changes %d numbers, at most %d are needed", old, want, slots, changed, most)
		}
	})
}

func TestSetBackendsIsUndoneByItsReverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newContents()
		model := map[network.Frontend][]netip.AddrPort{}
		for range 20 {
			addr := rapid.SampledFrom([]netip.Addr{network.Anywhere, network.Loopback,
				netip.MustParseAddr("198.18.0.1")}).Draw(t, "addr")
			d := network.Frontend{Addr: addr, Port: network.Port{Protocol: rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t,
				"protocol"), Number: 80}}
			var want []netip.AddrPort
			if rapid.Bool().Draw(t, "open") {
				want = []netip.AddrPort{}
				for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(1, 9), 0, 5, rapid.ID).Draw(t, "backends") {
					want = append(want, backend(i))
				}
			}
			e := edits{}
			p.setBackends(e, d, want)
			p.applyEdits(e)
			model[d] = want
			again := edits{}
			if p.setBackends(again, d, want); len(again) > 0 {
				t.Fatalf("the same again changes %v", again)
			}
			for d, want := range model {
				got := p.backendsOf(d)
				for _, b := range want {
					if !slices.Contains(got, b) {
						t.Fatalf("%v leads to %v, want %v", d, got, want)
					}
				}
				_, isRefused := p[refused][frontendKey(d)]
				if len(got) != len(want) || isRefused != (want != nil && len(want) == 0) || parseFrontend(frontendKey(d)) != d {
					t.Fatalf("%v leads to %v (refused: %v), want %v", d, got, isRefused, want)
				}
			}
		}
		for d := range model {
			e := edits{}
			p.setBackends(e, d, nil)
			p.applyEdits(e)
		}
		for name, m := range p {
			if len(m) > 0 {
				t.Fatalf("set %s has %d elements left", name, len(m))
			}
		}
	})
}
