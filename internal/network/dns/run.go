package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/network"
)

const (
	ttl            = 5    // seconds, see the package comment
	maxAnswers     = 512  // of one name
	maxConnections = 128  // over TCP
	maxReplyUDP    = 4096 // bytes, if the client takes as many
)

// Config are the settings of a name server, and the sources of names other than tasks and VIPs.
type Config struct {
	Resolv  string                // default "/etc/resolv.conf"
	Leader  func() netip.AddrPort // leader.mesos and its port; default none
	Masters func() []netip.Addr   // master.mesos; default the leader alone
	Log     *slog.Logger          // default: discarded
}

// Server implements network.Names.
type Server struct {
	cfg     Config
	zone    *zone
	forward *forwarder
	serial  atomic.Uint32
	named   chan struct{} // closed by the first ChangeNames
	first   sync.Once     // closes named

	mu      sync.Mutex
	layout  network.Layout // guarded by mu, as are the sockets; they are nil before Listen
	udp     net.PacketConn
	tcp     net.Listener
	changed chan struct{} // buffered, one: there are new sockets
}

// New returns a server without names.
func New(cfg Config) *Server {
	if cfg.Resolv == "" {
		cfg.Resolv = "/etc/resolv.conf"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Leader == nil {
		cfg.Leader = func() netip.AddrPort { return netip.AddrPort{} }
	}
	if cfg.Masters == nil {
		cfg.Masters = func() []netip.Addr { return []netip.Addr{cfg.Leader().Addr()} }
	}
	return &Server{cfg: cfg, zone: newZone(), forward: newForwarder(cfg.Resolv), changed: make(chan struct{}, 1),
		named: make(chan struct{})}
}

// ChangeNames implements network.Names. Before the first call, which may be of nothing, the server never answers
// NXDOMAIN.
func (s *Server) ChangeNames(removed, added []kernel.Endpoint) {
	defer s.first.Do(func() { close(s.named) })
	if len(removed)+len(added) > 0 {
		s.zone.applyEndpoints(removed, added)
		s.serial.Add(1)
	}
}

// Listen implements network.Names.
func (s *Server) Listen(l network.Layout) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layout == l {
		return nil
	}
	s.closeSockets()
	at := net.JoinHostPort(l.Gateway.String(), "53")
	udp, err := net.ListenPacket("udp4", at)
	if err != nil {
		return listenError("udp", at, err)
	}
	tcp, err := net.Listen("tcp4", at)
	if err != nil {
		udp.Close()
		return listenError("tcp", at, err)
	}
	s.layout, s.udp, s.tcp = l, udp, netutil.LimitListener(tcp, maxConnections)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}

func listenError(protocol, at string, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		if who := network.Owner(network.Port{Protocol: protocol, Number: 53}); who != "" {
			return fmt.Errorf("name server at %s: %s has the port on all addresses; bind it to others: %w",
				at, who, errdefs.ErrAlreadyExists)
		}
	}
	return fmt.Errorf("name server at %s: %w", at, err)
}

// closeSockets closes the sockets; mu is held.
func (s *Server) closeSockets() {
	if s.udp != nil {
		s.udp.Close()
		s.tcp.Close()
	}
	s.udp, s.tcp, s.layout = nil, nil, network.Layout{}
}

// Close closes the sockets; Run does so when it ends.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeSockets()
}

// Run implements network.Names.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	var g errgroup.Group
	for {
		select {
		case <-ctx.Done():
			s.Close()
			return g.Wait()
		case <-s.changed:
		}
		s.mu.Lock()
		l, udp, tcp := s.layout, s.udp, s.tcp
		s.mu.Unlock()
		if udp == nil {
			continue
		}
		h := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) { s.serveQuery(ctx, l, w, req) })
		for _, srv := range []*dns.Server{{PacketConn: udp, Handler: h, UDPSize: maxReplyUDP}, {Listener: tcp, Handler: h}} {
			g.Go(func() error {
				if err := srv.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
					s.cfg.Log.Error("name server stopped", "address", l.Gateway, "err", err)
					return err
				}
				return nil
			})
		}
	}
}

// serveQuery answers one message. Senders outside the datacenter get nothing, not even a refusal.
func (s *Server) serveQuery(ctx context.Context, l network.Layout, w dns.ResponseWriter, req *dns.Msg) {
	from, err := netip.ParseAddrPort(w.RemoteAddr().String())
	if err != nil || !l.Pool.Contains(from.Addr().Unmap()) && !from.Addr().IsLoopback() {
		return
	}
	protocol := w.RemoteAddr().Network()
	reply := s.answer(ctx, l, req, protocol)
	if opt := req.IsEdns0(); opt != nil && reply.IsEdns0() == nil {
		reply.SetEdns0(udpSize, opt.Do())
	}
	reply.Truncate(maxReply(req, protocol))
	_ = w.WriteMsg(reply) // a client that is gone asks again or not
}

// maxReply returns the size, in bytes, of the largest reply that the client takes.
func maxReply(req *dns.Msg, protocol string) int {
	if protocol == "tcp" {
		return dns.MaxMsgSize
	}
	if opt := req.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), dns.MinMsgSize), maxReplyUDP)
	}
	return dns.MinMsgSize
}

func (s *Server) answer(ctx context.Context, l network.Layout, req *dns.Msg, protocol string) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(req)
	m.RecursionAvailable, m.Compress = true, true
	switch {
	case req.Opcode != dns.OpcodeQuery:
		m.Rcode = dns.RcodeNotImplemented
	case len(req.Question) != 1:
		m.Rcode = dns.RcodeFormatError
	case req.Question[0].Qclass != dns.ClassINET && req.Question[0].Qclass != dns.ClassANY:
		m.Rcode = dns.RcodeRefused
	default:
		f, apex, ours, exists := s.findName(req.Question[0].Name)
		if ours && !exists {
			if !s.waitForNames(ctx) {
				m.Rcode = dns.RcodeServerFailure
				return m
			}
			f, apex, _, exists = s.findName(req.Question[0].Name) // it may have come since
		}
		if ours {
			s.writeAnswer(m, f, apex, exists)
			return m
		}
		return s.forwardQuery(ctx, l, req, m, protocol)
	}
	return m
}

// learnLimit limits how long a query for an unknown name waits for the first ChangeNames.
const learnLimit = 2 * time.Second

// waitForNames waits for the first ChangeNames, at most learnLimit, and reports whether it came.
func (s *Server) waitForNames(ctx context.Context) bool {
	t := time.NewTimer(learnLimit)
	defer t.Stop()
	select {
	case <-s.named:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// forwardQuery answers for names outside the datacenter's zones by asking the machine's name servers.
func (s *Server) forwardQuery(ctx context.Context, l network.Layout, req, m *dns.Msg, protocol string) *dns.Msg {
	if !req.RecursionDesired {
		m.Rcode = dns.RcodeRefused
		return m
	}
	in, err := s.forward.exchange(ctx, l.Gateway, req, protocol)
	if err != nil {
		m.Rcode = dns.RcodeServerFailure
		if errdefs.IsUnavailable(err) && strings.Contains(err.Error(), "no other server") {
			m.Rcode = dns.RcodeRefused
		}
		s.cfg.Log.Debug("name not forwarded", "name", req.Question[0].Name, "err", err)
		return m
	}
	m.Rcode, m.Truncated = in.Rcode, in.Truncated
	m.AuthenticatedData, m.CheckingDisabled = in.AuthenticatedData, in.CheckingDisabled
	m.Answer, m.Ns = in.Answer, in.Ns
	for _, rr := range in.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			m.Extra = append(m.Extra, rr)
		}
	}
	return m
}

// findName looks a name up in the datacenter's zones. apex is the zone's name.
func (s *Server) findName(qname string) (f found, apex string, ours, exists bool) {
	name := strings.ToLower(strings.TrimSuffix(qname, "."))
	for _, root := range []string{"thisdcos.directory", "thisdcos.global"} {
		rest, below := cutZone(name, root)
		if !below {
			continue
		}
		switch name, kind := split(rest); kind {
		case "dcos":
			f, exists = s.zone.dcos(name)
			if !exists {
				f, exists = s.masters(name)
			}
		case "l4lb", "dclb":
			f, exists = s.zone.l4lb(name)
		case "mesos":
			f, exists = s.mesos(name)
		}
		return f, root + ".", true, exists || rest == ""
	}
	if rest, below := cutZone(name, "mesos"); below {
		f, exists = s.mesos(rest)
		return f, "mesos.", true, exists || rest == ""
	}
	return found{}, "", false, false
}

// cutZone takes the zone off a name; the rest is empty for the zone itself.
func cutZone(name, zone string) (rest string, below bool) {
	if name == zone {
		return "", true
	}
	return strings.CutSuffix(name, "."+zone)
}

// split takes the last label off.
func split(name string) (rest, last string) {
	i := strings.LastIndexByte(name, '.')
	return name[:max(i, 0)], name[i+1:]
}

func (s *Server) mesos(name string) (found, bool) {
	if f, ok := s.zone.mesos(name); ok {
		return f, true
	}
	return s.masters(name)
}

// masters answers for the names of masters.
func (s *Server) masters(name string) (found, bool) {
	leader := s.cfg.Leader()
	switch {
	case name == "_leader._tcp" || name == "_leader._udp":
		if leader.IsValid() {
			return found{targets: []target{{"leader.mesos.", leader.Addr(), leader.Port()}}}, true
		}
	case name == "leader" || name != "" && s.zone.framework(name):
		if leader.IsValid() {
			return found{addrs: []netip.Addr{leader.Addr()}}, true
		}
	case name == "master":
		return found{addrs: s.cfg.Masters()}, true
	default:
		if n, ok := masterNumber(name); ok && n < len(s.cfg.Masters()) {
			return found{addrs: s.cfg.Masters()[n : n+1]}, true
		}
	}
	return found{}, false
}

// writeAnswer adds the records of f, or the zone's SOA if there are none of the type asked for.
func (s *Server) writeAnswer(m *dns.Msg, f found, apex string, exists bool) {
	m.Authoritative = true
	q := m.Question[0]
	head := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	a := func(name string, addr netip.Addr) dns.RR {
		return &dns.A{Hdr: head(name, dns.TypeA), A: addr.AsSlice()}
	}
	rand.Shuffle(len(f.addrs), func(i, j int) { f.addrs[i], f.addrs[j] = f.addrs[j], f.addrs[i] })
	rand.Shuffle(len(f.targets), func(i, j int) { f.targets[i], f.targets[j] = f.targets[j], f.targets[i] })
	if q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY {
		for _, addr := range f.addrs[:min(len(f.addrs), maxAnswers)] {
			if addr.Is4() {
				m.Answer = append(m.Answer, a(q.Name, addr))
			}
		}
	}
	if q.Qtype == dns.TypeSRV || q.Qtype == dns.TypeANY {
		seen := map[string]bool{}
		for _, t := range f.targets[:min(len(f.targets), maxAnswers)] {
			m.Answer = append(m.Answer, &dns.SRV{Hdr: head(q.Name, dns.TypeSRV), Weight: 1, Port: t.port, Target: t.name})
			if !seen[t.name] && t.addr.Is4() {
				seen[t.name] = true
				m.Extra = append(m.Extra, a(t.name, t.addr))
			}
		}
	}
	soa := &dns.SOA{Hdr: head(apex, dns.TypeSOA), Ns: "ns1.mesos.", Mbox: "root.ns1.mesos.", Serial: s.serial.Load(),
		Refresh: 60, Retry: 600, Expire: 86400, Minttl: ttl}
	switch {
	case q.Qtype == dns.TypeSOA && strings.EqualFold(q.Name, apex):
		m.Answer = append(m.Answer, soa)
	case len(m.Answer) == 0:
		m.Ns = append(m.Ns, soa)
		if !exists {
			m.Rcode = dns.RcodeNameError
		}
	}
}
