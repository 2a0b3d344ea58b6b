package network_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/marinaos/marina/internal/kernel"
)

// isolationTestbed is a machine with instances of three networks, all with frontends.
type isolationTestbed struct {
	*testbed
	a1, a2, b1, b2, own string // namespaces
}

func newIsolationTestbed(t *testing.T) *isolationTestbed {
	h := &isolationTestbed{testbed: newTestbed(t)}
	var all []kernel.Endpoint
	settle := func(name, network string, last byte, host uint16) string {
		a := kernel.Attachment{Instance: kernel.InstanceID(name), Mode: kernel.NetworkBridge, Network: network,
			Address: netip.AddrFrom4([4]byte{10, 77, 3, last}),
			Ports:   []kernel.Mapping{{Protocol: "tcp", Container: 80, Host: host}}}
		e := endpoint(a)
		e.Ports[0].VIPs[0].Addr = netip.AddrFrom4([4]byte{198, 18, 0, last})
		e.Ports[0].Publish = 8000 + uint16(last)
		all = append(all, e)
		return h.attach(a)
	}
	h.a1, h.a2 = settle("a1", "kubernetes/a", 11, 31011), settle("a2", "kubernetes/a", 12, 31012)
	h.b1, h.b2 = settle("b1", "kubernetes/b", 21, 31021), settle("b2", "kubernetes/b", 22, 31022)
	h.own = settle("own", "", 31, 31031)
	h.check(h.n.Apply(t.Context(), all))
	return h
}

// wantApart expects the networks to be apart, and together where they may.
func (h *isolationTestbed) wantApart() {
	h.Helper()
	at := map[string]int{"a1": 11, "a2": 12, "b1": 21, "b2": 22, "own": 31}
	reach := func(from, to string, addr string, may bool) {
		h.Helper()
		if may {
			h.wantGet(from, addr, to, "")
		} else {
			h.wantRefused(from, "tcp4", addr)
		}
	}
	for from, ns := range map[string]string{"a1": h.a1, "b1": h.b1, "own": h.own, "": "", "other": h.other} {
		home := strings.TrimRight(from, "12")
		for to, n := range at {
			there := strings.TrimRight(to, "12")
			named := home == "a" || home == "b"
			if from != to && from != "other" {
				reach(ns, to, fmt.Sprintf("10.77.3.%d:80", n), from == "" || home == there)
			}
			if from != "other" {
				reach(ns, to, fmt.Sprintf("198.18.0.%d:80", n), true)
			}
			reach(ns, to, fmt.Sprintf("192.168.50.1:80%d", n), true)
			reach(ns, to, fmt.Sprintf("192.168.50.1:310%d", n), !named || there == "own" || home == there)
			if named {
				reach(ns, to, fmt.Sprintf("10.77.3.1:310%d", n), there == "own" || home == there)
			}
		}
	}
}

func TestNamedNetworksReachEachOtherThroughFrontendsOnly(t *testing.T) {
	h := newIsolationTestbed(t)
	h.wantApart()
	h.stop()
	h.wantApart()
	h.start()
	h.wantApart()
	if repaired, err := h.rules.Repair(); repaired || err != nil {
		t.Errorf("rules were not as the process before left them: %v, %v", repaired, err)
	}
	// A network that comes later gets a number of its own, whatever was given up before.
	h.check(h.n.Detach(t.Context(), "a1"))
	h.check(h.n.Detach(t.Context(), "a2"))
	for i, network := range []string{"kubernetes/c", "kubernetes/d"} {
		h.attach(kernel.Attachment{Instance: kernel.InstanceID(network), Mode: kernel.NetworkBridge, Network: network,
			Address: netip.AddrFrom4([4]byte{10, 77, 3, byte(11 + i)})})
	}
	h.wantRefused(h.b1, "tcp4", "10.77.3.11:80")
	h.wantRefused(h.b1, "tcp4", "10.77.3.12:80")
}

func TestNamedNetworksAreApartWhereBridgesDoNotCallIptables(t *testing.T) {
	const setting = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if b, err := os.ReadFile(setting); err != nil || b[0] == '0' {
		t.Skip("br_netfilter is off already, the other tests run without it")
	}
	h := newIsolationTestbed(t)
	h.check(os.WriteFile(setting, []byte("0"), 0))
	defer os.WriteFile(setting, []byte("1"), 0)
	h.wantApart()
}

func TestNamedNetworksReachNothingOfTheMachine(t *testing.T) {
	h := newIsolationTestbed(t)
	h.serve("", ":22022", "ssh")
	for _, at := range []string{"10.77.3.1:22022", "192.168.50.1:22022", "192.168.50.1:31999"} {
		h.wantRefused(h.a1, "tcp4", at)
	}
	if got, err := h.lookup(h.a1, "udp4", "10.77.3.1:53", "leader.mesos.", mdns.TypeA); err != nil || len(got) != 1 {
		t.Errorf("name of the leader: %v, %v", got, err)
	}
}

// The connection tracking knows nothing of such packets, so rules must not ask it first.
func TestInvalidPacketsStayInTheirNetwork(t *testing.T) {
	h := newIsolationTestbed(t)
	received := func(to string, addr byte) bool {
		var in *net.IPConn
		h.check(within(to, func() (err error) { in, err = net.ListenIP("ip4:tcp", nil); return }))
		defer in.Close()
		h.check(within(h.a1, func() error {
			out, err := net.DialIP("ip4:tcp", nil, &net.IPAddr{IP: net.IPv4(10, 77, 3, addr)})
			if err != nil {
				return err
			}
			defer out.Close()
			b := make([]byte, 20) // no flag is set
			b[1], b[3], b[12] = 9, 9, 5<<4
			_, err = out.Write(b)
			return err
		}))
		in.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, _, err := in.ReadFrom(make([]byte, 100))
		return err == nil
	}
	if !received(h.a2, 12) {
		t.Error("a strange packet did not arrive in its own network")
	}
	if received(h.b1, 21) {
		t.Error("a strange packet arrived in another network")
	}
}

func TestNextOwnerOfAnAddressInheritsNoConnections(t *testing.T) {
	h := newIsolationTestbed(t)
	var in net.PacketConn
	h.check(within(h.a2, func() (err error) { in, err = net.ListenPacket("udp4", ":9000"); return }))
	defer in.Close()
	received := func(from string) bool {
		h.check(within(from, func() error {
			out, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 77, 3, 11), Port: 5000},
				&net.UDPAddr{IP: net.IPv4(10, 77, 3, 12), Port: 9000})
			if err != nil {
				return err
			}
			defer out.Close()
			_, err = out.Write([]byte("hello"))
			return err
		}))
		in.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, from2, err := in.ReadFrom(make([]byte, 10))
		if err == nil {
			_, err = in.WriteTo([]byte("hello"), from2)
			h.check(err)
		}
		return err == nil
	}
	for range 2 { // the first packet of the connection, and one that follows
		if !received(h.a1) {
			t.Fatal("a packet in the same network did not arrive")
		}
	}
	h.check(h.n.Detach(t.Context(), "a1"))
	next := h.attach(kernel.Attachment{Instance: "b3", Mode: kernel.NetworkBridge, Network: "kubernetes/b",
		Address: netip.MustParseAddr("10.77.3.11")})
	if received(next) {
		t.Error("a packet of the former owner's connection arrived from another network")
	}
}
