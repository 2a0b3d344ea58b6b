package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	maxForwards    = 256             // exchanges with name servers under way
	maxServers     = 8               // of resolv.conf
	exchangeAtOnce = 2               // servers asked at a time
	exchangeLimit  = 2 * time.Second // of one try
	udpSize        = 1232            // bytes; DNS flag day 2020
)

// forwarder asks the machine's name servers.
type forwarder struct {
	path    string
	port    string // "53"
	flights singleflight.Group
	free    chan struct{} // one for each exchange under way

	mu      sync.Mutex
	servers []string // guarded by mu, as are those below
	size    int64
	changed time.Time
}

func newForwarder(path string) *forwarder {
	return &forwarder{path: path, port: "53", free: make(chan struct{}, maxForwards)}
}

// upstream lists the servers, without the one that asks.
func (f *forwarder) upstream(self netip.Addr) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := os.Stat(f.path)
	if err != nil {
		return nil, fmt.Errorf("name servers: %w", err)
	}
	if !st.ModTime().Equal(f.changed) || st.Size() != f.size {
		cfg, err := dns.ClientConfigFromFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("name servers: %w", err)
		}
		f.servers = f.servers[:0:0]
		for _, s := range cfg.Servers[:min(len(cfg.Servers), maxServers)] {
			f.servers = append(f.servers, net.JoinHostPort(s, f.port))
		}
		f.changed, f.size = st.ModTime(), st.Size()
	}
	out := make([]string, 0, len(f.servers))
	for _, s := range f.servers {
		if host, _, _ := net.SplitHostPort(s); host != self.String() {
			out = append(out, s)
		}
	}
	return out, nil
}

// exchange forwards a query and returns the reply, whatever its code. Equal queries share one exchange.
func (f *forwarder) exchange(ctx context.Context, self netip.Addr, req *dns.Msg, network string) (*dns.Msg, error) {
	servers, err := f.upstream(self)
	if err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("%s names no other server: %w", f.path, errdefs.ErrUnavailable)
	}
	q, opt := req.Question[0], req.IsEdns0()
	do := opt != nil && opt.Do()
	key := fmt.Sprint(network, strings.ToLower(q.Name), q.Qtype, q.Qclass, req.CheckingDisabled, do)
	// The exchange outlives the query that began it, as others wait for it too; it has its own limits.
	ctx = context.WithoutCancel(ctx)
	v, err, _ := f.flights.Do(key, func() (any, error) {
		select {
		case f.free <- struct{}{}:
			defer func() { <-f.free }()
		default:
			return nil, fmt.Errorf("%d questions are under way: %w", maxForwards, errdefs.ErrResourceExhausted)
		}
		out := new(dns.Msg)
		out.SetQuestion(q.Name, q.Qtype)
		out.CheckingDisabled = req.CheckingDisabled
		out.SetEdns0(udpSize, do)
		for len(servers) > 0 {
			n := min(len(servers), exchangeAtOnce)
			var in *dns.Msg
			if in, err = firstReply(ctx, servers[:n], out, network); err == nil {
				return in, nil
			}
			servers = servers[n:]
		}
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	return v.(*dns.Msg).Copy(), nil
}

// firstReply asks several servers and returns the first usable reply.
func firstReply(ctx context.Context, servers []string, out *dns.Msg, network string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	type result struct {
		msg *dns.Msg
		err error
	}
	results := make(chan result, len(servers))
	for _, s := range servers {
		m := out.Copy()
		m.Id = dns.Id()
		go func() { // ends with ctx; results has space for all
			in, _, err := (&dns.Client{Net: network, UDPSize: udpSize}).ExchangeContext(ctx, m, s)
			if err == nil {
				err = checkReply(in, m)
			}
			if err != nil {
				err = fmt.Errorf("name server %s: %w", s, err)
			}
			results <- result{in, err}
		}()
	}
	var errs []error
	for range servers {
		r := <-results
		if r.err == nil {
			return r.msg, nil
		}
		errs = append(errs, r.err)
	}
	return nil, errors.Join(errs...)
}

func checkReply(in, out *dns.Msg) error {
	switch {
	case len(in.Question) != 1 || !strings.EqualFold(in.Question[0].Name, out.Question[0].Name) ||
		in.Question[0].Qtype != out.Question[0].Qtype:
		return fmt.Errorf("it answers another question: %w", errdefs.ErrInvalidArgument)
	case in.Rcode == dns.RcodeServerFailure || in.Rcode == dns.RcodeRefused || in.Rcode == dns.RcodeNotImplemented:
		return fmt.Errorf("it says %s: %w", dns.RcodeToString[in.Rcode], errdefs.ErrUnavailable)
	}
	return nil
}
