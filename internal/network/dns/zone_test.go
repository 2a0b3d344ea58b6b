package dns

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/network"
)

var (
	one    = netip.MustParseAddr("192.0.2.1") // machines
	two    = netip.MustParseAddr("192.0.2.2")
	own    = netip.MustParseAddr("10.77.3.10") // a task's
	layout = network.Layout{Gateway: netip.MustParseAddr("10.77.3.1"), Subnet: network.Prefix("10.77.3.0/24"),
		Pool: network.Prefix("10.77.0.0/16"), VIPs: network.Prefix("198.18.0.0/16")}
)

func vips(name string, port uint16) []kernel.EndpointVIP {
	return []kernel.EndpointVIP{{Name: name, Addr: netip.MustParseAddr("198.18.0.7"), Port: port}}
}

// endpoints are an app in bridge mode with a mapped port, one without mapped ports, one with both kinds, one in host
// mode.
func endpoints() []kernel.Endpoint {
	e := func(task, discovery string, machine, own netip.Addr, ports ...kernel.EndpointPort) kernel.Endpoint {
		return kernel.Endpoint{Task: kernel.TaskID(task), Framework: "marathon", Owner: "/x", Discovery: discovery,
			Agent:   "c0ffee-S1",
			Machine: machine, Address: own, Ports: ports, Running: true, Ready: true}
	}
	stopped := e("stopped.1", "stopped", one, own,
		kernel.EndpointPort{Protocol: "tcp", Container: 80, VIPs: vips("idle.marathon", 80)})
	stopped.Running, stopped.Ready = false, false
	return []kernel.Endpoint{
		e("mapped.1", "api.web.prod", one, own,
			kernel.EndpointPort{Name: "http", Protocol: "tcp", Container: 80, Host: 31000,
				VIPs: vips("prodwebapi.marathon", 80)},
			kernel.EndpointPort{Name: "stats", Protocol: "udp", Container: 8125, Host: 31001}),
		e("plain.1", "plain", one, own, kernel.EndpointPort{Name: "http", Protocol: "tcp", Container: 80,
			VIPs: vips("web.plain.marathon", 81)}),
		e("mixed.1", "mixed", one, own, kernel.EndpointPort{Protocol: "tcp", Container: 80, Host: 31002},
			kernel.EndpointPort{Protocol: "tcp", Container: 81}),
		e("host.1", "host", two, netip.Addr{}, kernel.EndpointPort{Protocol: "tcp", Host: 9090}),
		stopped,
	}
}

func server(t *testing.T) *Server {
	t.Helper()
	s := New(Config{Resolv: filepath.Join(t.TempDir(), "none"),
		Leader:  func() netip.AddrPort { return netip.AddrPortFrom(one, 5050) },
		Masters: func() []netip.Addr { return []netip.Addr{one, two} }})
	s.ChangeNames(nil, endpoints())
	return s
}

func ask(t *testing.T, s *Server, name string, kind uint16) *dns.Msg {
	t.Helper()
	req := new(dns.Msg).SetQuestion(name, kind)
	m := s.answer(t.Context(), layout, req, "udp")
	if _, err := m.Pack(); err != nil {
		t.Fatalf("%s: answer cannot be packed: %v", name, err)
	}
	return m
}

// answers returns an answer's records without their headers, sorted.
func answers(m *dns.Msg) []string {
	var out []string
	for _, rr := range m.Answer {
		out = append(out, strings.Join(strings.Fields(strings.TrimPrefix(rr.String(), rr.Header().String())), " "))
	}
	slices.Sort(out)
	return out
}

func TestNamesStandForWhatCanBeReached(t *testing.T) {
	s := server(t)
	const missing, empty = "NXDOMAIN", "NODATA"
	mixed := "mixed-" + hashOf("mixed.1")
	for _, c := range []struct {
		name string
		kind uint16
		want []string
	}{
		{"api.web.prod.marathon.mesos.", dns.TypeA, []string{"192.0.2.1"}},
		{"api-web-prod.marathon.mesos.", dns.TypeA, []string{"192.0.2.1"}},
		{"API-Web-Prod.Marathon.MESOS.", dns.TypeA, []string{"192.0.2.1"}},
		{"api-web-prod-" + hashOf("mapped.1") + ".marathon.mesos.", dns.TypeA, []string{"192.0.2.1"}},
		{"plain.marathon.mesos.", dns.TypeA, []string{"10.77.3.10"}},
		{"plain.marathon.slave.mesos.", dns.TypeA, []string{"192.0.2.1"}},
		{"host.marathon.mesos.", dns.TypeA, []string{"192.0.2.2"}},
		{"plain.marathon.mesos.", dns.TypeAAAA, []string{empty}},
		{"plain.marathon.mesos.", dns.TypeSRV, []string{empty}},
		{"stopped.marathon.mesos.", dns.TypeA, []string{missing}},
		{"nobody.marathon.mesos.", dns.TypeA, []string{missing}},
		{"_nobody._tcp.marathon.mesos.", dns.TypeSRV, []string{missing}},
		{"_api.web.prod._tcp.marathon.mesos.", dns.TypeSRV,
			[]string{"0 1 31000 api-web-prod-" + hashOf("mapped.1") + ".marathon.mesos."}},
		{"_api-web-prod._udp.marathon.mesos.", dns.TypeSRV,
			[]string{"0 1 31001 api-web-prod-" + hashOf("mapped.1") + ".marathon.mesos."}},
		{"_http._api.web.prod._tcp.marathon.mesos.", dns.TypeSRV,
			[]string{"0 1 31000 api-web-prod-" + hashOf("mapped.1") + ".marathon.mesos."}},
		{"_http._plain._tcp.marathon.mesos.", dns.TypeSRV,
			[]string{"0 1 80 plain-" + hashOf("plain.1") + ".marathon.mesos."}},
		{"_none._plain._tcp.marathon.mesos.", dns.TypeSRV, []string{missing}},
		{"_plain._udp.marathon.mesos.", dns.TypeSRV, []string{empty}},
		{"_mixed._tcp.marathon.mesos.", dns.TypeSRV, []string{"0 1 31002 " + mixed + ".marathon.mesos.",
			"0 1 81 " + mixed + ".marathon.containerip.dcos.thisdcos.directory."}},
		{mixed + ".marathon.containerip.dcos.thisdcos.directory.", dns.TypeA, []string{"10.77.3.10"}},
		{"_mixed._tcp.marathon.slave.mesos.", dns.TypeSRV, []string{"0 1 31002 " + mixed + ".marathon.slave.mesos."}},
		{mixed + ".marathon.slave.mesos.", dns.TypeA, []string{"192.0.2.1"}},
		{"_host._tcp.marathon.mesos.", dns.TypeSRV, []string{"0 1 9090 host-" + hashOf("host.1") + ".marathon.mesos."}},
		{"api-web-prod.marathon.agentip.dcos.thisdcos.directory.", dns.TypeA, []string{"192.0.2.1"}},
		{"api-web-prod.marathon.containerip.dcos.thisdcos.directory.", dns.TypeA, []string{"10.77.3.10"}},
		{"api-web-prod.marathon.autoip.dcos.thisdcos.directory.", dns.TypeA, []string{"192.0.2.1"}},
		{"plain.marathon.autoip.dcos.thisdcos.global.", dns.TypeA, []string{"10.77.3.10"}},
		{"host.marathon.containerip.dcos.thisdcos.directory.", dns.TypeA, []string{"192.0.2.2"}},
		{"plain.marathon.mesos.thisdcos.directory.", dns.TypeA, []string{"10.77.3.10"}},
		{"prodwebapi.marathon.l4lb.thisdcos.directory.", dns.TypeA, []string{"198.18.0.7"}},
		{"prodwebapi.marathon.dclb.thisdcos.directory.", dns.TypeA, []string{"198.18.0.7"}},
		{"idle.marathon.l4lb.thisdcos.directory.", dns.TypeA, []string{"198.18.0.7"}},
		{"none.marathon.l4lb.thisdcos.directory.", dns.TypeA, []string{missing}},
		{"_prodwebapi._tcp.marathon.l4lb.thisdcos.directory.", dns.TypeSRV,
			[]string{"0 1 80 prodwebapi.marathon.l4lb.thisdcos.directory."}},
		{"_web.plain._tcp.marathon.l4lb.thisdcos.directory.", dns.TypeSRV,
			[]string{"0 1 81 web.plain.marathon.l4lb.thisdcos.directory."}},
		{"leader.mesos.", dns.TypeA, []string{"192.0.2.1"}},
		{"marathon.mesos.", dns.TypeA, []string{"192.0.2.1"}},
		{"_leader._tcp.mesos.", dns.TypeSRV, []string{"0 1 5050 leader.mesos."}},
		{"master.mesos.", dns.TypeA, []string{"192.0.2.1", "192.0.2.2"}},
		{"master1.mesos.", dns.TypeA, []string{"192.0.2.2"}},
		{"master2.mesos.", dns.TypeA, []string{missing}},
		{"leader.dcos.thisdcos.directory.", dns.TypeA, []string{"192.0.2.1"}},
		{"mesos.", dns.TypeA, []string{empty}},
		{"thisdcos.directory.", dns.TypeA, []string{empty}},
	} {
		m := ask(t, s, c.name, c.kind)
		got := answers(m)
		if len(got) == 0 {
			got = []string{empty}
			if m.Rcode == dns.RcodeNameError {
				got = []string{missing}
			}
			if len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA {
				t.Errorf("%s %s: no SOA beside an empty answer: %v", c.name, dns.TypeToString[c.kind], m.Ns)
			}
		}
		if d := gocmp.Diff(c.want, got); d != "" {
			t.Errorf("%s %s:\n%s", c.name, dns.TypeToString[c.kind], d)
		}
		if !m.Authoritative || !m.RecursionAvailable {
			t.Errorf("%s: AA %v, RA %v", c.name, m.Authoritative, m.RecursionAvailable)
		}
		for _, rr := range m.Answer {
			if rr.Header().Ttl != 5 || rr.Header().Name != c.name {
				t.Errorf("%s: answered with %v", c.name, rr)
			}
			if srv, ok := rr.(*dns.SRV); ok { // its target has an address, and the answer brings it
				a := ask(t, s, srv.Target, dns.TypeA)
				if len(a.Answer) != 1 || !slices.ContainsFunc(m.Extra,
					func(x dns.RR) bool { return x.String() == a.Answer[0].String() }) {
					t.Errorf("%s: target %s has address %v, additional %v", c.name, srv.Target, a.Answer, m.Extra)
				}
			}
		}
	}
}

func hashOf(task string) string {
	return strings.TrimPrefix(canonicalLabel("", &kernel.Endpoint{Task: kernel.TaskID(task), Agent: "c0ffee-S1"}), "-")
}

func TestRemovedEndpointsLeaveNothing(t *testing.T) {
	s := server(t)
	all := endpoints()
	s.ChangeNames(all[:2], nil)
	if m := ask(t, s, "plain.marathon.mesos.", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("a removed task is still answered: %v", m)
	}
	if got := answers(ask(t, s, "mixed.marathon.mesos.", dns.TypeA)); len(got) != 1 {
		t.Errorf("a task that stayed: %v", got)
	}
	s.ChangeNames(all[2:], nil)
	if z := s.zone; len(z.tasks)+len(z.vips)+len(z.frameworks) > 0 {
		t.Errorf("left: %v %v %v", z.tasks, z.vips, z.frameworks)
	}
}

func TestAServerThatWasToldNothingYetDeniesNoName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Resolv: filepath.Join(t.TempDir(), "none")})
		begin := time.Now()
		if m := ask(t, s, "plain.marathon.mesos.", dns.TypeA); m.Rcode != dns.RcodeServerFailure ||
			time.Since(begin) != learnLimit {
			t.Errorf("got %s after %v, want SERVFAIL after %v", dns.RcodeToString[m.Rcode], time.Since(begin), learnLimit)
		}
		asked := make(chan *dns.Msg)
		go func() { asked <- ask(t, s, "plain.marathon.mesos.", dns.TypeA) }()
		synctest.Wait()
		s.ChangeNames(nil, endpoints())
		if m := <-asked; len(m.Answer) != 1 {
			t.Errorf("a question that waited got %v, want the task's address", m)
		}
		if m := ask(t, s, "no.marathon.mesos.", dns.TypeA); m.Rcode != dns.RcodeNameError {
			t.Errorf("a name that is none got %s, want NXDOMAIN", dns.RcodeToString[m.Rcode])
		}
	})
}

func TestLabels(t *testing.T) {
	long := strings.Repeat("a", 61) + "-9-123"
	for in, want := range map[string]string{"Web_1.x": "web-1-x", "--a/b--": "ab", "ü": "", "": "",
		long: strings.Repeat("a", 61) + "-9"} {
		if got := label(in); got != want {
			t.Errorf("label(%q) = %q, want %q", in, got, want)
		}
	}
	if got, want := label(strings.Repeat("a", 62)+"-123"), strings.Repeat("a", 62)+"1"; got != want {
		t.Errorf("label refills to %q, want %q", got, want)
	}
	if got, want := fragment("/My.Group..app/"), "my.group.app"; got != want {
		t.Errorf("fragment = %q, want %q", got, want)
	}
	if got, want := reversed("/prod/web/api"), "api.web.prod"; got != want {
		t.Errorf("reversed = %q, want %q", got, want)
	}
}

func FuzzLabel(f *testing.F) {
	for _, s := range []string{"", "web", "a.b", "-.-", strings.Repeat("x-", 60), "../\x00ü"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l := label(s)
		if len(l) > maxLabel || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" ||
			strings.HasPrefix(l, "-") || strings.HasSuffix(l, "-") {
			t.Errorf("label(%q) = %q", s, l)
		}
		if len(s) <= maxLabel && label(l) != l {
			t.Errorf("label(%q) = %q is not its own label", s, l)
		}
		h := canonicalLabel(l, &kernel.Endpoint{Task: "t", Agent: kernel.AgentID(s)})
		if _, ok := dns.IsDomainName(h); !ok || len(h) > maxLabel {
			t.Errorf("hashed(%q) = %q", l, h)
		}
	})
}

func TestLargeAnswersAreCutToWhatTheClientTakes(t *testing.T) {
	s := New(Config{})
	var many []kernel.Endpoint
	for i := range 2000 {
		many = append(many, kernel.Endpoint{Task: kernel.TaskID(rune(i)), Framework: "marathon", Discovery: "big", Agent: "a",
			Machine: one, Address: netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}), Running: true})
	}
	s.ChangeNames(nil, many)
	sizes := map[string]int{}
	for what, c := range map[string]struct {
		protocol string
		edns     uint16
		limit    int
	}{"plain": {"udp", 0, 512}, "EDNS0": {"udp", 1232, 1232}, "greedy": {"udp", 65535, maxReplyUDP},
		"TCP": {"tcp", 0, dns.MaxMsgSize}} {
		req := new(dns.Msg).SetQuestion("big.marathon.mesos.", dns.TypeA)
		if c.edns > 0 {
			req.SetEdns0(c.edns, false)
		}
		w := &writer{protocol: c.protocol}
		s.serveQuery(t.Context(), layout, w, req)
		b, err := w.got.Pack()
		if err != nil || len(b) > c.limit || w.got.Truncated != (c.protocol == "udp") ||
			(w.got.IsEdns0() != nil) != (c.edns > 0) {
			t.Errorf("%s: %d bytes, truncated %v, %v; want at most %d", what, len(b), w.got.Truncated, err, c.limit)
		}
		sizes[what] = len(w.got.Answer)
	}
	if sizes["TCP"] != maxAnswers || sizes["greedy"] <= sizes["EDNS0"] || sizes["EDNS0"] <= sizes["plain"] {
		t.Errorf("answers: %v", sizes)
	}
}

// writer takes one answer.
type writer struct {
	dns.ResponseWriter
	protocol string
	from     string // default: a task
	got      *dns.Msg
}

func (w *writer) WriteMsg(m *dns.Msg) error { w.got = m; return nil }
func (w *writer) RemoteAddr() net.Addr {
	ap := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(cmp.Or(w.from, "10.77.3.10:999")))
	if w.protocol == "udp" {
		return (*net.UDPAddr)(ap)
	}
	return ap
}

func TestStrangersGetNothing(t *testing.T) {
	s := server(t)
	for from, want := range map[string]bool{"10.77.9.9:1": true, "127.0.0.1:1": true, "10.77.3.1:1": true,
		"192.0.2.1:1": false, "8.8.8.8:1": false} {
		w := &writer{protocol: "udp", from: from}
		s.serveQuery(t.Context(), layout, w, new(dns.Msg).SetQuestion("leader.mesos.", dns.TypeA))
		if got := w.got != nil; got != want {
			t.Errorf("%s answered: %v, want %v", from, got, want)
		}
	}
}

// upstream is a name server on a loopback address; f may return nil to stay silent.
func upstream(t *testing.T, at string, f func(*dns.Msg) *dns.Msg) {
	t.Helper()
	c, err := net.ListenPacket("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		if m := f(req); m != nil {
			_ = w.WriteMsg(m)
		}
	})
	for _, s := range []*dns.Server{{PacketConn: c, Handler: h}, {Listener: l, Handler: h}} {
		go s.ActivateAndServe()
	}
	t.Cleanup(func() { c.Close(); l.Close() })
}

func a(req *dns.Msg, addr string) *dns.Msg {
	m := new(dns.Msg).SetReply(req)
	m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: req.Question[0].Name, Rrtype: dns.TypeA,
		Class: dns.ClassINET, Ttl: 300}, A: net.ParseIP(addr)})
	return m
}

func TestOtherNamesAreAskedUpstream(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(servers ...string) {
		t.Helper()
		if err := os.WriteFile(resolv, []byte("nameserver "+strings.Join(servers, "\nnameserver ")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := New(Config{Resolv: resolv})
	s.forward.port = "15353"
	var asked, together atomic.Int32
	release := make(chan struct{})
	upstream(t, "127.0.0.2:15353", func(req *dns.Msg) *dns.Msg {
		return new(dns.Msg).SetRcode(req, dns.RcodeServerFailure)
	})
	upstream(t, "127.0.0.3:15353", func(req *dns.Msg) *dns.Msg {
		asked.Add(1)
		switch req.Question[0].Name {
		case "slow.example.":
			if together.Add(1) > 1 {
				t.Error("equal questions were asked at the same time")
			}
			<-release
			together.Add(-1)
		case "none.example.":
			return new(dns.Msg).SetRcode(req, dns.RcodeNameError)
		}
		return a(req, "203.0.113.3")
	})
	upstream(t, "127.0.0.4:15353", func(req *dns.Msg) *dns.Msg { return a(req, "203.0.113.4") })

	write("127.0.0.2", "127.0.0.3")
	m := ask(t, s, "www.example.", dns.TypeA)
	if got := answers(m); !slices.Equal(got, []string{"203.0.113.3"}) || m.Authoritative || !m.RecursionAvailable {
		t.Errorf("answer of the second server: %v", m)
	}
	if m := ask(t, s, "none.example.", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("a name that upstream does not know: %v", m)
	}
	before := asked.Load()
	done := make(chan *dns.Msg)
	for range 20 { // equal questions on their way are one
		go func() {
			done <- s.answer(context.Background(), layout, new(dns.Msg).SetQuestion("slow.example.", dns.TypeA), "udp")
		}()
	}
	for asked.Load() == before {
		select {
		case <-t.Context().Done():
			t.Fatal("upstream was never asked")
		case <-time.After(time.Millisecond):
		}
	}
	close(release)
	for range 20 {
		if got := answers(<-done); !slices.Equal(got, []string{"203.0.113.3"}) {
			t.Errorf("one of equal questions: %v", got)
		}
	}
	write("127.0.0.4") // read anew
	if got := answers(ask(t, s, "www.example.", dns.TypeA)); !slices.Equal(got, []string{"203.0.113.4"}) {
		t.Errorf("after resolv.conf changed: %v", got)
	}
	write("10.77.3.1") // ourselves: nobody to ask
	if m := ask(t, s, "www.example.", dns.TypeA); m.Rcode != dns.RcodeRefused {
		t.Errorf("when only this server itself is named: %v", m)
	}
}
