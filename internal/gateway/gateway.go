package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/audit"
	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/metrics"
)

const (
	headerTimeout  = 10 * time.Second // for a TLS handshake, and for the headers of a request
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	maxH2Streams   = 250              // requests at once on one connection
	pingAfter      = 30 * time.Second // silence on an HTTP/2 connection before a ping
	pingTimeout    = 15 * time.Second
	stopGrace      = 5 * time.Second // for requests in progress when the gateway stops
)

// Config are the settings of a Gateway. Zero numbers mean the default.
type Config struct {
	HTTPS string      // address to serve HTTPS on; default :8443
	HTTP  string      // loopback address to serve plain HTTP on; default 127.0.0.1:8080, "-" none
	TLS   *tls.Config // with the certificates; required

	BodyLimit      int64 // bytes of a body where the route sets none; default 1 MiB
	MaxRequests    int   // requests at once; default 1024
	MaxStreams     int   // requests on Streaming routes at once; default 4096
	MaxConnections int   // on each listener; default 8192

	// LoopbackServices allows apps behind /service on 127.0.0.0/8 and ::1: for a datacenter whose only machine has such an
	// address, and for tests.
	LoopbackServices bool
}

// Deps are the other rooms' parts that a Gateway uses.
type Deps struct {
	Identity *identity.Directory
	Routes   []Route         // added to the gateway's own; the same prefix twice is an error
	Services ServiceResolver // nil: no apps under /service
	Health   Health          // nil: only liveness under /system/health/v1
	Info     Info
	Log      *slog.Logger
	Access   access.Authorizer // nil: everybody with a token may do everything
	Audit    *audit.Log        // nil: nothing is recorded
	Metrics  *metrics.Registry // nil: nothing is measured
}

// Gateway serves the datacenter's API. Make one with New.
type Gateway struct {
	cfg      Config
	identity *identity.Directory
	log      *slog.Logger
	routes   table
	origin   *http.CrossOriginProtection
	recorder *recorder
	access   access.Authorizer
	requests atomic.Int64
	streams  atomic.Int64
	ready    chan struct{}
	https    net.Addr // set before ready is closed
	http     net.Addr // set before ready is closed, nil if there is none
}

// New checks the settings and routes. Nothing listens before Run.
func New(cfg Config, deps Deps) (*Gateway, error) {
	if cfg.TLS == nil || deps.Identity == nil || deps.Log == nil {
		return nil, fmt.Errorf("gateway: Config.TLS, Deps.Identity and Deps.Log are required: %w", errdefs.ErrInvalidArgument)
	}
	setDefault(&cfg.HTTPS, ":8443")
	setDefault(&cfg.HTTP, "127.0.0.1:8080")
	setDefault(&cfg.BodyLimit, 1<<20)
	setDefault(&cfg.MaxRequests, 1024)
	setDefault(&cfg.MaxStreams, 4096)
	setDefault(&cfg.MaxConnections, 8192)
	g := &Gateway{cfg: cfg, identity: deps.Identity, log: deps.Log, origin: http.NewCrossOriginProtection(),
		ready:    make(chan struct{}),
		recorder: newRecorder(deps.Audit, deps.Metrics), access: deps.Access}
	routes, err := newTable(append(g.ownRoutes(deps), deps.Routes...))
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	g.routes = routes
	return g, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Ready is closed once the gateway listens.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Addrs returns the gateway's addresses, once Ready is closed. plain is nil if there is no plain HTTP.
func (g *Gateway) Addrs() (https, plain net.Addr) { return g.https, g.http }

type stopKey struct{}

// Run serves until ctx ends: then streams end at once and other requests have a grace of stopGrace. An address that
// is taken is an error at once.
func (g *Gateway) Run(ctx context.Context) error {
	listeners, err := g.listen(ctx)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	close(g.ready)
	return g.serveOn(ctx, listeners...)
}

// serveOn serves on the listeners, and closes them.
func (g *Gateway) serveOn(ctx context.Context, listeners ...net.Listener) error {
	base := context.WithValue(context.WithoutCancel(ctx), stopKey{}, ctx)
	group, stopping := errgroup.WithContext(ctx)
	for _, l := range listeners {
		srv := &http.Server{
			Handler:                      g,
			ReadHeaderTimeout:            headerTimeout,
			IdleTimeout:                  idleTimeout,
			MaxHeaderBytes:               maxHeaderBytes,
			DisableGeneralOptionsHandler: true,
			BaseContext:                  func(net.Listener) context.Context { return base },
			ErrorLog:                     slog.NewLogLogger(g.log.Handler(), slog.LevelDebug), // of clients
			HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxH2Streams, SendPingTimeout: pingAfter,
				PingTimeout: pingTimeout},
		}
		group.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("gateway on %s: %w", l.Addr(), err)
			}
			return nil
		})
		group.Go(func() error {
			<-stopping.Done()
			grace, cancel := context.WithTimeout(base, stopGrace)
			defer cancel()
			if srv.Shutdown(grace) != nil {
				srv.Close()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (g *Gateway) listen(ctx context.Context) ([]net.Listener, error) {
	var lc net.ListenConfig
	raw, err := lc.Listen(ctx, "tcp", g.cfg.HTTPS)
	if err != nil {
		return nil, err
	}
	c := g.cfg.TLS.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	c.NextProtos = []string{"h2", "http/1.1"}
	listeners := []net.Listener{tls.NewListener(netutil.LimitListener(raw, g.cfg.MaxConnections), c)}
	g.https = raw.Addr()
	if g.cfg.HTTP == "-" {
		return listeners, nil
	}
	plain, err := lc.Listen(ctx, "tcp", g.cfg.HTTP)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	if a, ok := plain.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		err := fmt.Errorf("plain HTTP on %s: use a loopback address, tokens must not cross a network in the clear: %w",
			g.cfg.HTTP, errdefs.ErrInvalidArgument)
		return nil, errors.Join(err, plain.Close(), raw.Close())
	}
	g.http = plain.Addr()
	return append(listeners, netutil.LimitListener(plain, g.cfg.MaxConnections)), nil
}

// ServeHTTP answers one request: it makes its path canonical, finds its route, counts it, authenticates it, and calls
// the route's handler. A panic stays in its request.
func (g *Gateway) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := newWriter(rw)
	var body *pacedBody
	defer func() { w.finish(body) }()
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Frame-Options", "SAMEORIGIN")

	path, err := canonicalPath(r.URL.EscapedPath())
	if err != nil {
		writeError(w, http.StatusBadRequest, message(err, errdefs.ErrInvalidArgument))
		return
	}
	r = r.WithContext(r.Context()) // a copy
	r.Header = withoutForwarded(r.Header)
	setPath(r, path)
	route, rest := g.routes.findRoute(path)
	r, rec := g.recorder.beginRequest(w, r, route)
	defer rec.finish()
	defer g.recoverPanic(w, r.Method, r.URL.Path)
	release, ok := g.acquireSlot(route)
	defer release()
	if !ok {
		rec.refused.WithLabelValues(rec.label()).Inc()
		h.Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable,
			"The gateway has as many requests as it can serve: try again in a second.")
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		limit := g.cfg.BodyLimit
		if route != nil && route.BodyLimit != 0 {
			limit = route.BodyLimit
		}
		if limit >= 0 {
			r.Body = http.MaxBytesReader(rw, r.Body, limit)
		}
		body = newPacedBody(w, r.Body)
		r.Body = body
		if limit >= 0 && r.ContentLength > limit {
			h.Set("Connection", "close")
			writeError(w, http.StatusRequestEntityTooLarge,
				fmt.Sprintf("The body has %d bytes, the limit here is %d.", r.ContentLength, limit))
			return
		}
	}
	if r = g.admit(w, r, rec); r == nil {
		return
	}
	if body != nil && route.Streaming {
		body.removePace()
		_ = w.controller.EnableFullDuplex() // or HTTP/1 waits for the whole body before it sends a header; HTTP/2 always is
	}
	g.serveRoute(w, r, route, rest)
}

// acquireSlot counts the request among those in progress; ok is false if there are too many. release must be called
// in any case.
func (g *Gateway) acquireSlot(route *Route) (release func(), ok bool) {
	counter, limit := &g.requests, g.cfg.MaxRequests
	switch {
	case route != nil && route.uncounted:
		return func() {}, true
	case route != nil && route.Streaming:
		counter, limit = &g.streams, g.cfg.MaxStreams
	}
	ok = counter.Add(1) <= int64(limit)
	return func() { counter.Add(-1) }, ok
}

// serveRoute calls the route's handler. The request ends when its token does, a stream also when the gateway stops.
func (g *Gateway) serveRoute(w *writer, r *http.Request, route *Route, rest string) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if p := identity.FromContext(ctx); p != nil {
		defer p.AfterFunc(func() { cancel(p.Err()); w.cutOff() })()
	}
	if stop, ok := ctx.Value(stopKey{}).(context.Context); ok && route.Streaming {
		defer context.AfterFunc(stop, func() { cancel(context.Cause(stop)); w.cutOff() })()
	}
	r = r.WithContext(ctx)
	if route.Strip {
		if rest == "" {
			rest = "/"
		}
		setPath(r, rest)
	}
	route.Handler.ServeHTTP(w, r)
}

// recoverPanic keeps a panic in its request: 500 if there is no status yet, otherwise the connection ends, so that
// the client notices that the answer is not whole.
func (g *Gateway) recoverPanic(w *writer, method, path string) {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler { //nolint:errorlint // it is compared so by net/http
		g.log.Error("request panicked", "method", method, "path", path, "err", fmt.Sprint(v), "stack", string(debug.Stack()))
		if !w.wrote {
			writeError(w, http.StatusInternalServerError,
				"This request met a fault in Marina, which is logged on the master. Others go on.")
			return
		}
	}
	w.aborted = true
	panic(http.ErrAbortHandler)
}

// setPath changes the request's path, in URL and RequestURI.
func setPath(r *http.Request, path string) {
	r.URL = withPath(r.URL, path)
	r.RequestURI = r.URL.RequestURI()
}

// message returns an error's text without that of its kind, which the status tells.
func message(err, kind error) string { return strings.TrimSuffix(err.Error(), ": "+kind.Error()) }
