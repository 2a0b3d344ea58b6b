package steward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	maxEgress   = 512           // connections at a time
	egressIdle  = 4 * time.Hour // without a byte; kubelets end exec and logs after as long
	askWithin   = 10 * time.Second
	maxAsk      = 4 << 10 // bytes of a CONNECT request
	triesAtMost = 3       // nodes whose tunnels are tried
	copyBuffer  = 16 << 10
)

var errNoNode = errors.New("no node is ready")

// forbidden is a destination that the API server may not reach.
type forbidden struct{ what string }

func (f *forbidden) Error() string { return f.what }

// ranges holds the addresses by which a connection is routed, besides those of nodes.
type ranges struct {
	services, pods netip.Prefix
	self           netip.Addr // where the control plane itself listens
}

// route decides where a connection to dst goes: direct, to a node, or by the tunnel of one of via, best first.
//
// Addresses of Node objects are written by whoever may write Node objects, so they are trusted only as far as the
// datacenter named the node, and never for what is the control plane's own.
func route(dst netip.AddrPort, r ranges, nodes []*corev1.Node, desired []string) (direct bool, via []*corev1.Node,
	err error) {
	ip := dst.Addr().Unmap()
	trusted := func(n *corev1.Node) bool { return desired == nil || slices.Contains(desired, n.Name) }
	if !r.services.Contains(ip) && !r.pods.Contains(ip) {
		for _, n := range nodes {
			addr, err := netip.ParseAddr(internalIP(n))
			if err == nil && addr.Unmap() == ip && may(ip, r.self) && trusted(n) {
				return true, nil, nil
			}
		}
		return false, nil, &forbidden{fmt.Sprintf("%s is no address of this cluster", ip)}
	}
	for _, n := range nodes {
		addr, err := netip.ParseAddr(internalIP(n))
		if ready, _ := nodeReady(n); !ready || err != nil || !may(addr.Unmap(), r.self) || !trusted(n) {
			continue
		}
		own, err := netip.ParsePrefix(n.Spec.PodCIDR)
		if err == nil && own.Contains(ip) {
			via = slices.Insert(via, 0, n)
		} else {
			via = append(via, n)
		}
	}
	if len(via) == 0 {
		return false, nil, errNoNode
	}
	return false, via[:min(len(via), triesAtMost)], nil
}

// may says whether ip can be a node's at all.
func may(ip, self netip.Addr) bool {
	return ip.IsGlobalUnicast() && ip != self
}

// serveEgress is the proxy that the API server asks for connections into the cluster, until ctx ends.
func (s *Steward) serveEgress(ctx context.Context) error {
	// One that a process left which was killed.
	if err := os.Remove(s.cfg.EgressSocket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", s.cfg.EgressSocket)
	if err != nil {
		return err
	}
	if err := os.Chmod(s.cfg.EgressSocket, 0o600); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	free := make(chan struct{}, maxEgress)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case free <- struct{}{}:
			conns.Go(func() {
				defer func() { <-free }()
				s.egress(ctx, conn)
			})
		default:
			fmt.Fprintf(conn, "HTTP/1.1 503 more than %d connections\r\n\r\n", maxEgress)
			conn.Close()
		}
	}
}

// egress serves one connection. What goes wrong stands in the status line: the API server shows its callers no more.
func (s *Steward) egress(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(askWithin))
	in := bufio.NewReader(io.LimitReader(conn, maxAsk))
	req, err := http.ReadRequest(in)
	if err != nil || in.Buffered() > 0 {
		fmt.Fprint(conn, "HTTP/1.1 400 expected CONNECT and nothing behind it\r\n\r\n")
		return
	}
	if req.Method != http.MethodConnect {
		fmt.Fprint(conn, "HTTP/1.1 405 only CONNECT is known\r\n\r\n")
		return
	}
	conn.SetDeadline(time.Time{})
	out, err := s.dialOut(ctx, req.RequestURI)
	if err != nil {
		code := http.StatusBadGateway
		if f := (*forbidden)(nil); errors.As(err, &f) {
			code = http.StatusForbidden
		} else if errors.Is(err, errNoNode) {
			code = http.StatusServiceUnavailable
		}
		conn.SetDeadline(time.Now().Add(askWithin))
		fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\n\r\n", code, limit(err.Error()))
		return
	}
	defer out.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 200 connected\r\n\r\n"); err != nil {
		return
	}
	splice(ctx, conn, out)
}

func (s *Steward) dialOut(ctx context.Context, target string) (net.Conn, error) {
	if slices.Contains(s.cfg.EgressAllow, target) {
		return (&net.Dialer{Timeout: dialWithin}).DialContext(ctx, "tcp", target)
	}
	dst, err := netip.ParseAddrPort(target)
	if err != nil { // a name would be looked up in the datacenter
		return nil, &forbidden{fmt.Sprintf("%q is not ADDRESS:PORT", target)}
	}
	nodes := each[corev1.Node](s.seen.nodes)
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	listen, _, _ := net.SplitHostPort(s.cfg.Listen)
	self, _ := netip.ParseAddr(listen)
	direct, via, err := route(dst, ranges{s.cfg.ServiceCIDR, s.cfg.ClusterCIDR, self}, nodes, s.state.desired().Nodes)
	if err != nil {
		return nil, err
	}
	if direct {
		return (&net.Dialer{Timeout: dialWithin}).DialContext(ctx, "tcp", target)
	}
	for _, n := range via {
		var conn net.Conn
		conn, err = s.tunnel.connect(ctx, n, target)
		if err == nil {
			return conn, nil
		}
		err = fmt.Errorf("node %s: %w", n.Name, err)
		if r := (*refusal)(nil); errors.As(err, &r) { // it reached the node, and another node would say the same
			return nil, err
		}
	}
	return nil, err
}

// splice copies both ways until both ends are done, ctx ends, or nothing passed for too long.
func splice(ctx context.Context, a, b net.Conn) {
	both := func() { a.Close(); b.Close() }
	stop := context.AfterFunc(ctx, both)
	defer stop()
	idle := time.AfterFunc(egressIdle, both)
	defer idle.Stop()
	var wg sync.WaitGroup
	pass := func(to, from net.Conn) {
		buf := make([]byte, copyBuffer)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				idle.Reset(egressIdle)
				if _, err := to.Write(buf[:n]); err != nil {
					both()
					return
				}
			}
			if errors.Is(err, io.EOF) && closeWrite(to) == nil {
				return
			}
			if err != nil {
				both()
				return
			}
		}
	}
	wg.Go(func() { pass(a, b) })
	pass(b, a)
	wg.Wait()
}

func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}
