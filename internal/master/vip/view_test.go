package vip

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/marinaos/marina/internal/kernel"
)

func TestViewsSumUpWhatAnOwnersPortOffers(t *testing.T) {
	named := kernel.EndpointVIP{Name: "web.f", Addr: netip.MustParseAddr("198.18.0.3"), Port: 80}
	inside, machine := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("192.0.2.1")
	port := kernel.EndpointPort{Protocol: "tcp", Container: 8080, Host: 31000, VIPs: []kernel.EndpointVIP{named}}
	published := kernel.EndpointPort{Protocol: "tcp", Container: 9090, Publish: 10000}
	endpoints := []*kernel.Endpoint{
		{Owner: "/o", Address: inside, Machine: machine, Ready: true, Ports: []kernel.EndpointPort{port}},
		{Owner: "/o", Machine: machine, Ready: true, Ports: []kernel.EndpointPort{port, published}},
		{Owner: "/o", Address: inside, Ports: []kernel.EndpointPort{port}}, // not ready
	}
	want := []*View{
		{Owner: "/o", Protocol: "tcp", Backend: []Backend{{machine, 0}}, Published: []Published{{"http://192.0.2.1:10000"},
			{"http://192.0.2.7:10000"}}},
		{VIP: "web.f.l4lb.thisdcos.directory:80", Address: "198.18.0.3:80", Owner: "/o", Protocol: "tcp",
			Backend: []Backend{{inside, 8080}, {machine, 31000}}, Published: []Published{}},
	}
	got := Views(slices.Values(endpoints), []netip.Addr{machine, netip.MustParseAddr("192.0.2.7")})
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("views (-want +got):\n%s", diff)
	}
}
