package network

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kernel"
)

func TestDifferenceFindsEveryChange(t *testing.T) {
	e := func(task string, change ...func(*kernel.Endpoint)) kernel.Endpoint {
		x := kernel.Endpoint{Task: kernel.TaskID(task), Ready: true,
			Ports: []kernel.EndpointPort{{Protocol: "tcp", Container: 80}}}
		for _, c := range change {
			c(&x)
		}
		return x
	}
	old := []kernel.Endpoint{e("a"), e("b"), e("d"), e("e"), e("f")}
	now := []kernel.Endpoint{e("b"), e("c"), e("d", func(x *kernel.Endpoint) { x.Ready = false }),
		e("e", func(x *kernel.Endpoint) { x.Ports[0].VIPs = []kernel.EndpointVIP{{Port: 1}} }), e("f")}
	removed, added := difference(old, now)
	names := func(l []kernel.Endpoint) (s string) {
		for _, x := range l {
			s += string(x.Task)
		}
		return s
	}
	if names(removed) != "ade" || names(added) != "cde" {
		t.Errorf("removed %s, added %s; want ade, cde", names(removed), names(added))
	}
}

func TestFrontendsOfEndpoints(t *testing.T) {
	here, away := netip.MustParseAddr("10.77.3.10"), netip.MustParseAddr("10.77.4.10")
	me, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	vip := kernel.EndpointVIP{Addr: netip.MustParseAddr("198.18.0.7"), Port: 80}
	port := func(container, host, publish uint16) kernel.EndpointPort {
		return kernel.EndpointPort{Protocol: "tcp", Container: container, Host: host, Publish: publish,
			VIPs: []kernel.EndpointVIP{vip}}
	}
	e := func(task string, machine, own netip.Addr, ready bool, p kernel.EndpointPort) kernel.Endpoint {
		return kernel.Endpoint{Task: kernel.TaskID(task), Machine: machine, Address: own, Ready: ready,
			Ports: []kernel.EndpointPort{p}}
	}
	all := []kernel.Endpoint{
		e("away-mapped", other, away, true, port(80, 31000, 0)),
		e("away-plain", other, away, true, port(81, 0, 0)),
		e("here-mapped", me, here, true, port(80, 31000, 8080)),
		e("here-unready", me, here, false, port(82, 0, 0)),
		e("host-away", other, netip.Addr{}, true, port(0, 31005, 8080)),
		e("host-here", me, netip.Addr{}, true, port(0, 31006, 8080)),
		e("nowhere", me, netip.Addr{}, true, port(80, 0, 0)),
	}
	tb := newTable()
	tb.subnet, tb.ownAddrs = netip.MustParsePrefix("10.77.3.0/24"), map[netip.Addr]bool{me: true}
	touched := tb.applyEndpoints(nil, all)
	got := map[string]string{}
	for d := range touched {
		var to []string
		for _, a := range tb.readyAddrs(d) {
			to = append(to, a.String())
		}
		got[netip.AddrPortFrom(d.Addr, d.Number).String()] = strings.Join(to, " ")
	}
	want := map[string]string{
		"198.18.0.7:80":  "10.77.3.10:80 10.77.4.10:81 192.0.2.1:31006 192.0.2.2:31000 192.0.2.2:31005",
		"0.0.0.0:8080":   "10.77.3.10:80 192.0.2.1:31006 192.0.2.2:31005",
		"127.0.0.1:8080": "10.77.3.10:80 192.0.2.1:31006",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	a := kernel.Attachment{Instance: "g", Mode: kernel.NetworkBridge, Address: here,
		Ports: []kernel.Mapping{{Protocol: "tcp", Container: 90, Host: 8080}}}
	for d, l := range hostBackends(a) { // an instance's host port stands before a published one
		tb.backends[d] = append(tb.backends[d], l)
		if got := tb.readyAddrs(d); !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("10.77.3.10:90")}) {
			t.Errorf("%v leads to %v", d, got)
		}
	}
	for d, l := range hostBackends(a) {
		tb.removeBackends(d, map[string]bool{l.owner: true})
	}
	if tb.applyEndpoints(all, nil); len(tb.backends) > 0 {
		t.Errorf("left: %v", slices.Collect(maps.Keys(tb.backends)))
	}
}

func TestNumbersOfNetworks(t *testing.T) {
	records := map[kernel.InstanceID]record{}
	add := func(group, network string, last byte, want uint32) {
		t.Helper()
		n := networkNumber(records, network)
		if n != want {
			t.Errorf("network %q has number %d, want %d", network, n, want)
		}
		records[kernel.InstanceID(group)] = record{Number: n,
			Attachment: kernel.Attachment{Network: network, Mode: kernel.NetworkBridge,
				Address: netip.AddrFrom4([4]byte{10, 77, 3, last}),
				Ports: []kernel.Mapping{{Protocol: "tcp", Container: 80, Host: 31000 + uint16(last)},
					{Protocol: "udp", Container: 81}}}}
	}
	add("own", "", 10, 0)
	add("a1", "a", 11, 1)
	add("b1", "b", 12, 2)
	add("a2", "a", 13, 1)
	delete(records, "b1")
	add("c1", "c", 14, 2)
	networks, inner := isolation(records)
	at := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 3, last}) }
	if want := (map[netip.Addr]uint32{at(11): 1, at(13): 1, at(14): 2}); !maps.Equal(networks, want) {
		t.Errorf("networks %v, want %v", networks, want)
	}
	if want := (map[Port]uint32{{"tcp", 31011}: 1, {"tcp", 31013}: 1, {"tcp", 31014}: 2}); !maps.Equal(inner, want) {
		t.Errorf("inner host ports %v, want %v", inner, want)
	}
}
