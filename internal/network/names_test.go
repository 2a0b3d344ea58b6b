package network_test

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/marinaos/marina/internal/kernel"
)

// lookup asks the resolver from a namespace and returns the last field of each answer, sorted.
func (h *testbed) lookup(ns, protocol, at, name string, kind uint16) ([]string, error) {
	c, err := dial(ns, protocol, at)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	conn := &mdns.Conn{Conn: c}
	c.SetDeadline(time.Now().Add(time.Second))
	if err := conn.WriteMsg(new(mdns.Msg).SetQuestion(name, kind)); err != nil {
		return nil, err
	}
	m, err := conn.ReadMsg()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		out = append(out, f[len(f)-1])
	}
	slices.Sort(out)
	return out, nil
}

func TestNamesAreAnsweredToTheDatacenterOnly(t *testing.T) {
	h := newTestbed(t)
	a := h.group("web", 10, kernel.Mapping{Protocol: "tcp", Container: 80, Host: 31080})
	ns := h.netns(a)
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{endpoint(a)}))
	if got := h.n.Resolver().String(); got != "10.77.3.1" {
		t.Errorf("resolver is %s", got)
	}
	var far net.PacketConn
	h.check(within(h.other, func() (err error) { far, err = net.ListenPacket("udp4", "192.168.50.2:53"); return }))
	srv := &mdns.Server{PacketConn: far, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, req *mdns.Msg) {
		m := new(mdns.Msg).SetReply(req)
		m.Answer = []mdns.RR{&mdns.A{Hdr: mdns.RR_Header{Name: req.Question[0].Name, Rrtype: mdns.TypeA, Class: 1, Ttl: 9},
			A: net.IPv4(203, 0, 113, 1)}}
		_ = w.WriteMsg(m)
	})}
	go srv.ActivateAndServe()
	defer far.Close()

	for _, c := range []struct {
		ns, protocol, name, want string
		kind                     uint16
	}{
		{ns, "udp4", "hello.marathon.l4lb.thisdcos.directory.", "198.18.0.7", mdns.TypeA},
		{ns, "tcp4", "hello.marathon.l4lb.thisdcos.directory.", "198.18.0.7", mdns.TypeA},
		{ns, "udp4", "hello.marathon.mesos.", "192.168.50.1", mdns.TypeA},
		{ns, "udp4", "hello.marathon.containerip.dcos.thisdcos.directory.", "10.77.3.10", mdns.TypeA},
		{"", "udp4", "leader.mesos.", "192.168.50.1", mdns.TypeA},
		{"", "tcp4", "_hello._tcp.marathon.l4lb.thisdcos.directory.", "hello.marathon.l4lb.thisdcos.directory.",
			mdns.TypeSRV},
		{ns, "udp4", "www.example.", "203.0.113.1", mdns.TypeA},
		{"", "udp4", "www.example.", "203.0.113.1", mdns.TypeA},
	} {
		got, err := h.lookup(c.ns, c.protocol, "10.77.3.1:53", c.name, c.kind)
		if err != nil || !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s by %s: %v, %v; want %s", c.name, c.protocol, got, err, c.want)
		}
	}
	h.routeFromOther()
	// From the outside, by the machine's address and by the gateway's.
	for _, at := range []string{"192.168.50.1:53", "10.77.3.1:53"} {
		if got, err := h.lookup(h.other, "udp4", at, "leader.mesos.", mdns.TypeA); err == nil {
			t.Errorf("another computer gets an answer at %s: %v", at, got)
		}
	}
	// SRV answers can be connected to from an instance and from the machine.
	for _, from := range []string{ns, ""} {
		srv, err := h.lookup(from, "udp4", "10.77.3.1:53", "_hello._tcp.marathon.mesos.", mdns.TypeSRV)
		if err != nil || len(srv) != 1 {
			t.Fatalf("SRV: %v, %v", srv, err)
		}
		ip, err := h.lookup(from, "udp4", "10.77.3.1:53", srv[0], mdns.TypeA)
		if err != nil || len(ip) != 1 {
			t.Fatalf("SRV target %s: %v, %v", srv[0], ip, err)
		}
		h.wantGet(from, ip[0]+":31080", "web", "")
	}
	h.stop()
	h.start()
	if got, err := h.lookup(ns, "udp4", "10.77.3.1:53", "www.example.", mdns.TypeA); err != nil || len(got) != 1 {
		t.Errorf("after a restart: %v, %v", got, err)
	}
}
