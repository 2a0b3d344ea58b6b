package agent

import (
	"net/netip"
	"testing"

	"github.com/marinaos/marina/internal/kernel"
)

func TestInstancesWithAReservationHaveIDsOfTheirOwn(t *testing.T) {
	subnet := netip.MustParsePrefix("10.128.4.0/24")
	shared := kernel.IDRange{First: 1_000_000_000, Count: rangeSize}
	rec := record{Spec: kernel.Spec{Network: kernel.Network{Mode: kernel.NetworkBridge, Name: "kubernetes/c"}, Reservation: &kernel.Reservation{Name: "c"}},
		Assignment: kernel.Assignment{Address: netip.MustParseAddr("10.128.4.7")}}
	got, err := ownRange(&rec, subnet, shared)
	if err != nil || got == nil || *got != (kernel.IDRange{First: shared.First + 8*rangeSize, Count: rangeSize}) {
		t.Errorf("got %v, %v, want the eighth range above the shared one", got, err)
	}
	if _, err := ownRange(&rec, subnet, kernel.IDRange{First: 1<<32 - 2*rangeSize, Count: rangeSize}); err == nil {
		t.Error("ids above the highest there are were given out")
	}
	if _, err := ownRange(&rec, netip.MustParsePrefix("10.9.0.0/24"), shared); err == nil {
		t.Error("an address of another subnet got ids")
	}
	for name, change := range map[string]func(*record){
		"no claim":  func(r *record) { r.Spec.Reservation = nil },
		"host mode": func(r *record) { r.Spec.Network.Mode = kernel.NetworkHost },
	} {
		r := rec
		change(&r)
		if got, err := ownRange(&r, subnet, shared); got != nil || err != nil {
			t.Errorf("%s: got %v, %v, want none", name, got, err)
		}
	}
	if a := attachment(&rec, got); a.IDs != nil || a.Network != "kubernetes/c" {
		t.Errorf("an ordinary group: got %+v, want its network and no user namespace", a)
	}
	rec.Spec.Tasks = []kernel.TaskSpec{{Class: kernel.ClassNode}}
	if a := attachment(&rec, got); a.IDs != got {
		t.Errorf("a node: got %+v, want its ids", a)
	}
}

func TestNodeIsNamedByItsEnvironmentOrOwner(t *testing.T) {
	rec := record{Spec: kernel.Spec{Owner: "/clusters/c/node-3", Tasks: []kernel.TaskSpec{{Class: kernel.ClassNode}}}, Assignment: kernel.Assignment{ID: "x.1"}}
	if got := hostname(&rec); got != "node-3" {
		t.Errorf("got %q, want the owner's last part", got)
	}
	rec.Spec.Tasks[0].Env = []kernel.EnvVar{{Name: "HOSTNAME", Value: "node-9"}}
	if got := hostname(&rec); got != "node-9" {
		t.Errorf("got %q, want what its environment says", got)
	}
	rec.Spec.Tasks[0].Class = ""
	if got := hostname(&rec); got != "x-1" {
		t.Errorf("an ordinary group: got %q, want its id", got)
	}
}
