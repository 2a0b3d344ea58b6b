package session

//lint:file-ignore SA1019 one connection that this side dialed: net/http serves listeners only

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/http2"

	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/metrics"
)

const (
	dialTimeout  = 5 * time.Second
	openTimeout  = 5 * time.Second // for a master to ask for the session on a connection
	writeTimeout = 5 * time.Second // of one frame

	streamBuffer     = 512 << 10 // bytes of one request's body that may be under way
	connectionBuffer = 32 << 20  // of all: more than streams may fill together, so that no exec starves the session
	maxStreams       = 60

	removedPause = time.Minute // before a machine that was removed asks again: only a restored store has it back
)

// errRemoved ends a session in which a master said that this machine was removed.
var errRemoved = fmt.Errorf("this machine was removed: %w", errdefs.ErrFailedPrecondition)

// Agent is whose sessions these are.
type Agent interface {
	// Register introduces the agent. Whatever changes from then on is put into out, until Leave.
	Register(out *Outbox) kernel.Registration
	Leave(out *Outbox)

	// Epoch is the highest of a leader the agent has listened to; Listen makes a higher one durable.
	Epoch() int64
	Listen(epoch int64) error

	// Apply does what a frame says; specs are all that were sent in the session. What begins then outlives the session.
	Apply(specs map[kernel.SpecID]kernel.Spec, d *kernel.Down) error
}

// Config holds a Link's settings; all but Dial is required.
type Config struct {
	Masters []string    // host:port, tried in turn; none: there is never a session
	TLS     *tls.Config // NextProtos is set here

	Heartbeat  time.Duration
	BackoffMax time.Duration // between attempts to reach a master
	Suspect    time.Duration // a connection that is silent for so long is given up

	Agent   Agent
	Handler http.Handler // what a master asks beside the session
	Log     *slog.Logger
	Metrics *metrics.Registry // nil: nothing is measured

	// Dial reaches a master before TLS; default: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Link is an agent's way to its masters.
type Link struct {
	cfg      Config
	sessions metrics.CounterVec
}

// New makes a Link that does nothing until Run.
func New(cfg Config) *Link {
	return &Link{cfg, cfg.Metrics.Counters("marina_agent_connections_total",
		"Connections to a master that ended, by whether there was a session.", "session")}
}

// Run keeps a connection to a master until ctx ends: the next one in the list after each that ended, at once after one
// that had a session and with backoff after one that had none.
func (l *Link) Run(ctx context.Context) error {
	if len(l.cfg.Masters) == 0 {
		<-ctx.Done()
		return nil
	}
	backoff, quiet := retry.First, false
	for i := 0; ctx.Err() == nil; i++ {
		address := l.cfg.Masters[i%len(l.cfg.Masters)]
		lived, err := l.visit(ctx, address)
		if ctx.Err() != nil {
			break
		}
		if lived {
			backoff, quiet = retry.First, false
		}
		level := slog.LevelInfo
		if quiet {
			level = slog.LevelDebug // once a round of attempts is enough
		}
		l.cfg.Log.Log(ctx, level, "no session with a master, trying the next", "master", address, "err", err)
		quiet = quiet || !lived && i%len(l.cfg.Masters) == len(l.cfg.Masters)-1
		pause := backoff/2 + rand.N(backoff/2)
		if errors.Is(err, errRemoved) {
			pause = removedPause
		}
		if !retry.Pause(ctx, pause) {
			break
		}
		backoff = min(2*backoff, l.cfg.BackoffMax)
	}
	return nil
}

// visit serves one connection to a master until it ends, and tells whether there was a session.
func (l *Link) visit(ctx context.Context, address string) (lived bool, err error) {
	defer func() { l.sessions.WithLabelValues(strconv.FormatBool(lived)).Inc() }()
	conn, err := l.reach(ctx, address)
	if err != nil {
		return false, err
	}
	s := &session{cfg: &l.cfg, opened: make(chan struct{}), ended: make(chan struct{})}
	cctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.close = cancel
	stop := context.AfterFunc(cctx, func() { conn.Close() })
	defer stop()
	watchdog := time.AfterFunc(openTimeout, func() {
		select {
		case <-s.opened:
		default:
			cancel(fmt.Errorf("master asked for no session: %w", errdefs.ErrUnavailable))
		}
	})
	defer watchdog.Stop()
	server := &http2.Server{
		MaxConcurrentStreams:         maxStreams,
		MaxUploadBufferPerStream:     streamBuffer,
		MaxUploadBufferPerConnection: connectionBuffer,
		ReadIdleTimeout:              l.cfg.Suspect / 2,
		PingTimeout:                  l.cfg.Suspect / 2,
	}
	server.ServeConn(conn, &http2.ServeConnOpts{Context: cctx, Handler: l.handler(s)})
	select {
	case <-s.opened:
		<-s.ended // nothing of one session acts beside the next
		lived = true
		if s.removed {
			return true, errRemoved
		}
	default:
	}
	if err := context.Cause(cctx); err != nil {
		return lived, err
	}
	return lived, fmt.Errorf("master %s ended the connection: %w", address, errdefs.ErrUnavailable)
}

func (l *Link) reach(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dial := l.cfg.Dial
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	raw, err := dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("master %s: %w", address, err)
	}
	cfg := l.cfg.TLS.Clone()
	cfg.NextProtos = []string{kernel.Protocol}
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(address)
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("master %s: %w", address, err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != kernel.Protocol {
		conn.Close()
		return nil, fmt.Errorf("master %s speaks %q, not %q; is it a master?: %w", address, got, kernel.Protocol,
			errdefs.ErrFailedPrecondition)
	}
	return conn, nil
}

// handler serves a connection: its session, and all else.
func (l *Link) handler(s *session) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+kernel.SessionPath, s.serve)
	mux.Handle("/", l.cfg.Handler)
	return mux
}

// session is the one stream of frames on a connection. Its fields but the channels are owned by serve.
type session struct {
	cfg    *Config
	opened chan struct{} // closed when the master asked for it
	ended  chan struct{} // closed when it is over, if it was opened
	close  context.CancelCauseFunc

	epoch int64
	seq   uint64 // of the last frame applied
	sync  bool   // there was one under epoch
	specs map[kernel.SpecID]kernel.Spec

	removed bool // a frame said that this machine is no member any more
}

// serve runs the session until either side ends it. The connection ends with it.
func (s *session) serve(w http.ResponseWriter, r *http.Request) {
	select {
	case <-s.opened:
		http.Error(w, "this connection has a session", http.StatusConflict)
		return
	default:
		close(s.opened)
	}
	defer close(s.ended)
	out := newOutbox()
	applied := make(chan uint64, 1)
	reg := s.cfg.Agent.Register(out)
	ctx, cancel := context.WithCancel(r.Context())
	errs := make(chan error, 1)
	go func() { // ended below
		errs <- s.send(ctx, w, reg, out, applied)
		s.close(fmt.Errorf("session: %w", errdefs.ErrUnavailable)) // unblocks the reader
	}()
	s.cfg.Log.Info("session with a master begins", "agent", reg.Agent.ID, "epoch", reg.Epoch)
	err := s.receive(r.Body, applied)
	s.cfg.Agent.Leave(out)
	cancel()
	s.close(err)
	if serr := <-errs; err == nil {
		err = serr
	}
	s.cfg.Log.Info("session with a master ended", "err", err)
}

// send writes frames: the registration, statuses as they come, heartbeats.
func (s *session) send(ctx context.Context, w http.ResponseWriter, reg kernel.Registration, out *Outbox,
	applied <-chan uint64) error {
	control := http.NewResponseController(w)
	var seq, upTo uint64
	write := func(up kernel.Up) error {
		seq++
		up.Seq, up.Applied = seq, upTo
		b, err := json.Marshal(&up)
		if err != nil {
			return err
		}
		if len(b) > kernel.MaxFrame {
			return fmt.Errorf("frame of %d bytes, the limit is %d: %w", len(b), kernel.MaxFrame, errdefs.ErrOutOfRange)
		}
		if err := control.SetWriteDeadline(time.Now().Add(s.cfg.Heartbeat + writeTimeout)); err != nil {
			return err
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
		return control.Flush()
	}
	if err := write(kernel.Up{Register: &reg}); err != nil {
		return err
	}
	beat := time.NewTicker(s.cfg.Heartbeat)
	defer beat.Stop()
	for {
		var up kernel.Up
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
		case upTo = <-applied:
		case <-out.wake:
			if err := out.take(&up); err != nil {
				return err
			}
		}
		if err := write(up); err != nil {
			return err
		}
		beat.Reset(s.cfg.Heartbeat)
	}
}

// receive reads and applies frames until the first that cannot be.
func (s *session) receive(body io.Reader, applied chan uint64) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), kernel.MaxFrame+1)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var d kernel.Down
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			return fmt.Errorf("frame after %d: %w: %w", s.seq, err, errdefs.ErrInvalidArgument)
		}
		fresh, err := s.admit(&d)
		if err != nil {
			return err
		}
		if !fresh {
			continue
		}
		for _, spec := range d.Specs {
			s.specs[spec.ID] = spec
		}
		if err := s.cfg.Agent.Apply(s.specs, &d); err != nil {
			return fmt.Errorf("frame %d: %w", d.Seq, err)
		}
		s.removed = s.removed || d.Removed != ""
		select { // only the latest matters
		case <-applied:
		default:
		}
		applied <- d.Seq
	}
	return cmp.Or(lines.Err(), io.EOF)
}

// admit checks a frame's epoch and number. A higher epoch is on disk before anything of it is done. It reports whether
// the frame is to be applied: one that was already is not, again.
func (s *session) admit(d *kernel.Down) (bool, error) {
	highest := s.cfg.Agent.Epoch()
	if d.Epoch < highest {
		s.cfg.Log.Warn("frame of an old leader refused", "epoch", d.Epoch, "highest", highest)
		return false, fmt.Errorf("frame of epoch %d, the agent has listened to %d: %w", d.Epoch, highest,
			errdefs.ErrFailedPrecondition)
	}
	if d.Epoch > highest {
		if err := s.cfg.Agent.Listen(d.Epoch); err != nil {
			return false, err
		}
	}
	if d.Epoch != s.epoch {
		s.epoch, s.seq, s.sync, s.specs = d.Epoch, 0, false, map[kernel.SpecID]kernel.Spec{}
	}
	switch {
	case d.Seq != 0 && d.Seq <= s.seq:
		return false, nil
	case d.Seq != s.seq+1:
		return false, fmt.Errorf("frame %d after %d: %w", d.Seq, s.seq, errdefs.ErrFailedPrecondition)
	// specs may come first
	case !s.sync && !d.Sync && (len(d.Assignments) > 0 || len(d.Drop) > 0 || len(d.Acks) > 0 || d.Endpoints != nil):
		return false, fmt.Errorf("frame %d comes before the sync: %w", d.Seq, errdefs.ErrFailedPrecondition)
	}
	s.seq, s.sync = d.Seq, s.sync || d.Sync
	return true, nil
}
