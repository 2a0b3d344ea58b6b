package vip

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

var (
	small = netip.MustParsePrefix("198.18.0.0/28") // 14 addresses
	start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

const keep = time.Minute

// asking is a spec that asks for VIPs: names, or addresses.
func asking(vips ...string) *kernel.Spec {
	k := &kernel.Spec{Framework: "f", Owner: "/o", Tasks: []kernel.TaskSpec{{}}}
	for _, v := range vips {
		ask := kernel.VIP{Name: v, Port: 80}
		if addr, err := netip.ParseAddr(v); err == nil {
			ask = kernel.VIP{Addr: addr, Port: 80}
		}
		k.Tasks[0].Ports = append(k.Tasks[0].Ports, kernel.Port{VIPs: []kernel.VIP{ask}})
	}
	return k
}

// TestWhatIsHeldIsReleased holds and releases specs at random, and holds the table against a model after each step:
// an address has one name, no name one that is used literally, and what nothing uses is gone after its time.
func TestWhatIsHeldIsReleased(t *testing.T) {
	type held struct {
		spec *kernel.Spec
		vips []*VIP
	}
	rapid.Check(t, func(t *rapid.T) {
		rows := map[string]bool{}
		table := New(small, keep, func(name string) { rows[name] = !rows[name] })
		now := start
		var all []held
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			table.Expire(now)
			if len(all) > 0 && rapid.Bool().Draw(t, "release") {
				k := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				table.ReleaseSpec(all[k].spec, all[k].vips, now)
				all = append(all[:k], all[k+1:]...)
			} else {
				k := asking(fmt.Sprint("v", rapid.IntRange(0, 9).Draw(t, "name")),
					fmt.Sprint("v", rapid.IntRange(0, 9).Draw(t, "name")),
					fmt.Sprint("198.18.0.", rapid.IntRange(1, 20).Draw(t, "literal")))
				if table.Check(k) != nil {
					continue
				}
				if vips, err := table.HoldSpec(k, now); err == nil {
					all = append(all, held{k, vips})
				}
			}
			uses, literals := map[*VIP]int{}, map[netip.Addr]int{}
			for _, h := range all {
				for _, v := range h.vips {
					uses[v]++
				}
				for addr := range Literals(h.spec) {
					literals[addr]++
				}
			}
			if len(table.named) != len(table.at) || len(table.literals) != len(literals) {
				t.Fatalf("%d names at %d addresses, %d literal ones of %d", len(table.named), len(table.at), len(table.literals),
					len(literals))
			}
			for name, v := range table.named {
				if table.at[v.Addr] != v || v.uses != uses[v] || literals[v.Addr] > 0 || !rows[name] || !small.Contains(v.Addr) {
					t.Fatalf("%s at %s has %d uses, want %d; %d use it literally; its row is %v", name, v.Addr, v.uses, uses[v],
						literals[v.Addr], rows[name])
				}
			}
			for v := range uses {
				if table.named[v.Name] != v {
					t.Fatalf("%s is used and gone", v.Name)
				}
			}
		}
		for _, h := range all {
			table.ReleaseSpec(h.spec, h.vips, now)
		}
		table.Expire(now.Add(keep))
		if len(table.named)+len(table.at)+len(table.literals) != 0 || !table.Wake().IsZero() {
			t.Fatalf("all is released: got %d names and %d literal addresses, wake %v", len(table.named), len(table.literals),
				table.Wake())
		}
	})
}

func TestANameKeepsItsAddressForAWhile(t *testing.T) {
	table := New(small, keep, func(string) {})
	first, err := table.Hold("a.f")
	if err != nil {
		t.Fatal(err)
	}
	table.Release([]*VIP{first}, start)
	if table.Wake() != start.Add(keep) {
		t.Errorf("wake: got %v, want %v", table.Wake(), start.Add(keep))
	}
	table.Expire(start.Add(keep - 1))
	if again, err := table.Hold("a.f"); err != nil || again != first {
		t.Errorf("before its time: got %v, %v, want the address that it had", again, err)
	}
	table.Expire(start.Add(keep)) // in use again
	if table.Get("a.f") != first.Addr {
		t.Errorf("a name in use: got %v, want %v", table.Get("a.f"), first.Addr)
	}
}

func TestARefusedSpecHoldsNothing(t *testing.T) {
	for name, k := range map[string]*kernel.Spec{"out of the range": asking("a", "203.0.113.9"),
		"too long a name": asking("a", "198.18.0.2", strings.Repeat("v", 300))} {
		table := New(small, keep, func(string) {})
		if vips, err := table.HoldSpec(k, start); err == nil || vips != nil {
			t.Errorf("%s: got %v, %v, want an error", name, vips, err)
		}
		if table.Expire(start.Add(keep)); len(table.named)+len(table.literals) != 0 {
			t.Errorf("%s: %d names and %d literal addresses are held", name, len(table.named), len(table.literals))
		}
	}
	table := New(netip.MustParsePrefix("198.18.0.0/30"), keep, func(string) {})
	if _, err := table.HoldSpec(asking("a", "b", "c"), start); !errdefs.IsResourceExhausted(err) {
		t.Errorf("three names in a range of two: got %v", err)
	}
}

func TestLoadedNamesAreIdleFromTheBeginning(t *testing.T) {
	table := New(small, keep, func(string) {})
	addr := netip.MustParseAddr("198.18.0.3")
	if err := table.Load("a.f", addr); err != nil || table.Load("b.f", addr) == nil {
		t.Errorf("one address in two rows: got %v for the first, want an error for the second only", err)
	}
	if err := table.Check(asking("198.18.0.3")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a literal address that a name has: got %v, want it refused", err)
	}
	table.Begin(start)
	if table.Expire(start.Add(keep - 1)); table.Get("a.f") != addr {
		t.Error("it is gone before its time")
	}
	if table.Expire(start.Add(keep)); table.Get("a.f").IsValid() {
		t.Error("it is kept after its time")
	}
}
