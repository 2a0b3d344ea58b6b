package expose

import (
	"net/netip"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/vip"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func tables() (*vip.Table, *Table) {
	vips := vip.New(netip.MustParsePrefix("198.18.0.0/24"), time.Minute, func(string) {})
	return vips, New(vips)
}

func ask(owner string, ports ...kernel.Port) Row {
	return Row{Framework: "f", Owner: owner, Ports: ports}
}

func web(service uint16) kernel.Port {
	return kernel.Port{Name: "web", Protocol: "tcp,udp", Container: 80, Service: service, Publish: true,
		VIPs: []kernel.VIP{{Name: "web", Port: 8080}}}
}

func TestWhatIsExposedHoldsItsNamesUntilItIsNot(t *testing.T) {
	vips, table := tables()
	row := ask("/o", web(10000))
	if table.Has(&row) {
		t.Error("ports that nobody was given: got them as there")
	}
	made, err := table.Make(row, start)
	if err != nil {
		t.Fatal(err)
	}
	table.Set("f", "/o", made, start)
	at := kernel.EndpointVIP{Name: "web.f", Addr: vips.Get("web.f"), Port: 8080}
	port := kernel.EndpointPort{Name: "web", Container: 80, Publish: 10000, VIPs: []kernel.EndpointVIP{at}}
	tcp, udp := port, port
	tcp.Protocol, udp.Protocol = "tcp", "udp"
	if diff := cmp.Diff([]kernel.EndpointPort{tcp, udp}, table.Given("f", "/o"),
		cmpopts.EquateComparable(netip.Addr{})); diff != "" || !at.Addr.IsValid() {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	if stored, ok := table.Row("f//o"); !ok || !table.Has(&row) || stored.Owner != "/o" {
		t.Errorf("row: got %v, %v", stored, ok)
	}
	if vips.Expire(start.Add(time.Hour)); !vips.Get("web.f").IsValid() {
		t.Error("the name is gone while it is exposed")
	}
	table.Set("f", "/o", nil, start)
	if vips.Expire(start.Add(time.Hour)); vips.Get("web.f").IsValid() || table.Given("f", "/o") != nil {
		t.Error("the name or the ports are kept after they are exposed no more")
	}
	if none := ask("/o"); !table.Has(&none) {
		t.Error("no ports of who has none: got a change")
	}
}

func TestPortsInPlaceOfOthersKeepTheName(t *testing.T) {
	vips, table := tables()
	for _, service := range []uint16{10000, 10001} {
		made, err := table.Make(ask("/o", web(service)), start)
		if err != nil {
			t.Fatal(err)
		}
		table.Set("f", "/o", made, start)
	}
	if vips.Expire(start.Add(time.Hour)); !vips.Get("web.f").IsValid() {
		t.Error("the name is gone while it is exposed")
	}
}

func TestARefusedPortHoldsNoName(t *testing.T) {
	vips, table := tables()
	literal := kernel.Port{VIPs: []kernel.VIP{{Name: "a"}, {Addr: netip.MustParseAddr("198.18.0.9")}}}
	if made, err := table.Make(ask("/o", literal), start); made != nil || !errdefs.IsInvalidArgument(err) {
		t.Errorf("a literal address: got %v, %v, want it refused", made, err)
	}
	if vips.Expire(start.Add(time.Hour)); vips.Get("a.f").IsValid() {
		t.Error("the name before it is held")
	}
}

func TestWhoPublishesAPort(t *testing.T) {
	_, table := tables()
	for _, owner := range []string{"/b", "/a"} {
		made, err := table.Make(ask(owner, web(10000)), start)
		if err != nil {
			t.Fatal(err)
		}
		table.Set("f", owner, made, start)
	}
	for asks, want := range map[string]string{"/c": "/a", "/a": "/b"} {
		row := ask(asks)
		if got := table.Publisher(&row, 10000); got != want || table.Publisher(&row, 1) != "" {
			t.Errorf("%s asks: got %q, want %q", asks, got, want)
		}
	}
}
