package master

//lint:file-ignore SA1019 one connection that the other side dialed: net/http serves listeners and dials itself

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/http2"
	"golang.org/x/net/netutil"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
)

const (
	maxOutboxFrames  = 1024             // waiting for one agent; one that is slower than that is cut off
	handshakeTimeout = 10 * time.Second // TLS, and the agent's registration after it
	acceptPause      = 50 * time.Millisecond
)

// session is one agent's connection.
type session struct {
	id    event.SessionID
	agent kernel.AgentID
	conn  *http2.ClientConn
	end   context.CancelCauseFunc
	wake  chan struct{} // holds a token when queue has something

	mu    sync.Mutex
	queue []outgoing // guarded by mu
}

// outgoing is a frame to be written. Endpoints are taken out of it and encoded once for all sessions.
type outgoing struct {
	down      kernel.Down
	endpoints *encoded
}

// encoded is a delta of endpoints as JSON, made by the first session that writes it.
type encoded struct {
	delta *kernel.EndpointDelta
	once  sync.Once
	raw   []byte
	err   error
}

func (e *encoded) bytes() ([]byte, error) {
	e.once.Do(func() { e.raw, e.err = e.delta.Pack() })
	return e.raw, e.err
}

// accept takes connections until ctx ends, and waits for all of them to end.
func (m *Master) accept(ctx context.Context) error {
	config := m.deps.TLS.Clone()
	config.NextProtos = []string{kernel.Protocol, "h2", "http/1.1"}
	others := &handover{conns: make(chan net.Conn), done: ctx.Done(), addr: m.deps.Listener.Addr()}
	handler := m.deps.Handler
	if handler == nil {
		handler = http.NotFoundHandler()
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: handshakeTimeout, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug)}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer server.Close()
	wg.Go(func() { _ = server.Serve(others) }) // ends with ctx
	// Whoever serves a connection closes it, and only then may another come in its place.
	listener := netutil.LimitListener(m.deps.Listener, m.deps.MaxConnections)
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		raw, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("agents' listener: %w", err)
			}
			m.log.Warn("connection not accepted", "err", err)
			select { // out of descriptors, most likely
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		wg.Go(func() { m.serve(ctx, tls.Server(raw, config), others) })
	}
}

// serve finds out what a connection is and serves it until it ends; those that are not agents' sessions are handed
// over.
func (m *Master) serve(ctx context.Context, conn *tls.Conn, others *handover) {
	hctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	err := conn.HandshakeContext(hctx)
	cancel()
	if err != nil {
		conn.Close()
		m.log.Debug("TLS handshake", "remote", conn.RemoteAddr().String(), "err", err)
		return
	}
	if conn.ConnectionState().NegotiatedProtocol != kernel.Protocol {
		others.give(conn)
		return
	}
	agent, err := m.deps.AgentID(conn.ConnectionState())
	if err == nil {
		err = m.serveAgent(ctx, conn, agent)
	}
	conn.Close()
	if ctx.Err() == nil {
		m.log.Info("session with an agent ended", "agent", agent, "remote", conn.RemoteAddr().String(), "err", err)
	}
}

// serveAgent asks the agent for its session and carries frames both ways until it ends.
func (m *Master) serveAgent(ctx context.Context, conn net.Conn, agent kernel.AgentID) error {
	transport := &http2.Transport{DisableCompression: true, ReadIdleTimeout: m.cfg.Unreachable,
		PingTimeout: m.cfg.Unreachable}
	client, err := transport.NewClientConn(conn)
	if err != nil {
		return err
	}
	leading := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	body, pipe := io.Pipe()
	defer pipe.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://agent"+kernel.SessionPath, body)
	if err != nil {
		return err
	}
	late := time.AfterFunc(handshakeTimeout, func() {
		cancel(fmt.Errorf("agent %s did not register: %w", agent, errdefs.ErrUnavailable))
	})
	defer late.Stop()
	resp, err := client.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("agent %s answered %s: %w", agent, resp.Status, errdefs.ErrUnavailable)
	}
	frames := bufio.NewScanner(resp.Body)
	frames.Buffer(make([]byte, 0, 4<<10), kernel.MaxFrame+1)
	first, err := nextFrame(frames)
	if err != nil {
		return err
	}
	if first.Register == nil || first.Register.Agent.ID != agent {
		return fmt.Errorf("the certificate is agent %s's, the registration is not: %w", agent, errdefs.ErrPermissionDenied)
	}
	late.Stop()
	s := &session{agent: agent, conn: client, end: cancel, wake: make(chan struct{}, 1)}
	m.join(s)
	defer m.leave(s)
	if err := m.submit(ctx, item{event: event.AgentUp{Session: s.id, Seq: first.Seq,
		Registration: *first.Register}}); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { cancel(s.write(ctx, pipe)) })
	err = m.read(ctx, s, frames)
	cancel(err)
	pipe.CloseWithError(err) // unblocks the writer
	_ = m.submit(leading, item{event: event.AgentDown{Session: s.id, Why: err.Error()}})
	return context.Cause(ctx)
}

func nextFrame(frames *bufio.Scanner) (*kernel.Up, error) {
	if !frames.Scan() {
		if err := frames.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	up := &kernel.Up{}
	if err := json.Unmarshal(frames.Bytes(), up); err != nil {
		return nil, fmt.Errorf("frame: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return up, nil
}

// read hands frames to the owner until the stream ends; it always returns why.
func (m *Master) read(ctx context.Context, s *session, frames *bufio.Scanner) error {
	for {
		up, err := nextFrame(frames)
		if err != nil {
			return err
		}
		if err := m.submit(ctx, item{event: event.Frame{Session: s.id, Up: *up}}); err != nil {
			return err
		}
	}
}

// write sends what is queued, as much at once as there is.
func (s *session) write(ctx context.Context, w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	for {
		s.mu.Lock()
		frames := s.queue
		s.queue = nil
		s.mu.Unlock()
		for k := range frames {
			if err := frames[k].write(buffered); err != nil {
				return err
			}
		}
		if len(frames) > 0 {
			if err := buffered.Flush(); err != nil {
				return err
			}
			continue
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// write writes the frame as a line. Encoded endpoints are put in by hand: encoding them anew for every agent would cost
// the number of agents times the number of endpoints.
func (o *outgoing) write(w *bufio.Writer) error {
	raw, err := json.Marshal(&o.down)
	if err != nil {
		return fmt.Errorf("frame %d: %w", o.down.Seq, err)
	}
	end := "\n"
	if o.endpoints != nil {
		delta, err := o.endpoints.bytes()
		if err != nil {
			return fmt.Errorf("frame %d: %w", o.down.Seq, err)
		}
		_, _ = w.Write(raw[:len(raw)-1])      // the writer keeps its first error
		_, _ = w.WriteString(`,"endpoints":`) // a frame has an epoch, so something stands before the comma
		raw, end = delta, "}\n"
	}
	_, _ = w.Write(raw)
	_, err = w.WriteString(end)
	return err
}

func (m *Master) join(s *session) {
	m.mu.Lock()
	m.last++
	s.id = m.last
	m.sessions[s.id] = s
	m.mu.Unlock()
	m.measures.sessions.WithLabelValues("begun").Inc()
}

func (m *Master) leave(s *session) {
	m.mu.Lock()
	delete(m.sessions, s.id)
	if m.agents[s.agent] == s {
		delete(m.agents, s.agent)
	}
	m.mu.Unlock()
	m.measures.sessions.WithLabelValues("ended").Inc()
}

// deliver queues frames for their sessions and ends sessions. It never waits.
func (m *Master) deliver(sends []core.Send, ends []core.SessionEnd) {
	if len(sends) == 0 && len(ends) == 0 {
		return
	}
	shared := map[*kernel.EndpointDelta]*encoded{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range sends {
		s := m.sessions[sends[k].Session]
		if s == nil {
			continue
		}
		m.agents[s.agent] = s
		o := outgoing{down: sends[k].Down}
		if d := o.down.Endpoints; d != nil {
			if shared[d] == nil {
				shared[d] = &encoded{delta: d}
			}
			o.down.Endpoints, o.endpoints = nil, shared[d]
		}
		s.enqueue(o)
	}
	for _, e := range ends {
		if s := m.sessions[e.Session]; s != nil {
			s.end(fmt.Errorf("%s: %w", e.Why, errdefs.ErrFailedPrecondition))
		}
	}
}

// enqueue never waits: a session that takes frames too slowly is ended, and starts anew with all it should know.
func (s *session) enqueue(o outgoing) {
	s.mu.Lock()
	full := len(s.queue) >= maxOutboxFrames
	if !full {
		s.queue = append(s.queue, o)
	}
	s.mu.Unlock()
	if full {
		s.end(fmt.Errorf("agent %s takes frames too slowly: %w", s.agent, errdefs.ErrResourceExhausted))
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// AgentClient reaches what an agent serves: paths under /agent/v1/. It is errdefs.ErrUnavailable while the agent is not
// connected; a request under way ends with the agent's session.
func (m *Master) AgentClient(id kernel.AgentID) (http.RoundTripper, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.agents[id]
	if s == nil {
		return nil, fmt.Errorf("agent %s is not connected: %w", id, errdefs.ErrUnavailable)
	}
	return agentTransport{s.conn}, nil
}

type agentTransport struct{ conn *http2.ClientConn }

// RoundTrip is http.RoundTripper's. Scheme and host do not matter.
func (t agentTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = "https", "agent", ""
	return t.conn.RoundTrip(r)
}

// handover is a net.Listener of connections that somebody else accepted.
type handover struct {
	conns chan net.Conn
	done  <-chan struct{}
	addr  net.Addr
}

func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

// Accept is net.Listener's.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener's; the listener ends with its owner.
func (h *handover) Close() error { return nil }

// Addr is net.Listener's.
func (h *handover) Addr() net.Addr { return h.addr }
