package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"
)

const (
	dialLimit   = 10 * time.Second
	headerLimit = 10 * time.Second
	headerBytes = 16 << 10
	// maxTunnels bounds the connections at a time.
	maxTunnels = 1024
	// idle bounds a connection's wait between requests; one that became a tunnel has no limit but keep-alive's.
	idle = 2 * time.Minute
	// stopWithin bounds the end of requests.
	stopWithin = 2 * time.Second
)

// volumeName is the form of names that dynamic provisioning gives volumes.
var volumeName = regexp.MustCompile(`^pvc-[0-9a-f-]{36}$`)

// Config configures a Tunnel. All fields are required.
type Config struct {
	// PKI is the directory with ca.crt, nodenet.crt and nodenet.key.
	PKI string
	// Targets are the ranges that may be connected to.
	Targets []netip.Prefix
	// Volumes is the directory of the node's local volumes; it is made if it is not there.
	Volumes string
	Log     *slog.Logger
}

// Tunnel serves the control plane.
type Tunnel struct {
	cfg      Config
	identity *identity
	volumes  *os.Root
	turns    chan struct{} // one for each connection that goes through
}

// New reads the certificates and opens the directory of volumes.
func New(cfg Config) (*Tunnel, error) {
	id, err := newIdentity(cfg.PKI)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Volumes, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(cfg.Volumes)
	if err != nil {
		return nil, err
	}
	return &Tunnel{cfg: cfg, identity: id, volumes: root, turns: make(chan struct{}, maxTunnels)}, nil
}

// Serve serves on l, which it closes, until ctx ends, which is no error. Connections that go through end with it. It
// can be called once.
func (t *Tunnel) Serve(ctx context.Context, l net.Listener) error {
	defer t.volumes.Close()
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.identity.config() },
	}
	s := &http.Server{
		Handler: t.Handler(ctx), ReadHeaderTimeout: headerLimit, IdleTimeout: idle, MaxHeaderBytes: headerBytes,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/2 has no connections to take over
		ErrorLog:     slog.NewLogLogger(t.cfg.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		within, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		if s.Shutdown(within) != nil {
			s.Close()
		}
	})
	err := s.Serve(tls.NewListener(l, conf))
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("tunnel: %w", err)
}

// Handler answers requests; who sent them is the listener's business. Tunnels end with ctx.
func (t *Tunnel) Handler(ctx context.Context) http.Handler {
	volumes := http.NewServeMux()
	volumes.HandleFunc("POST /v1/volumes/{name}", t.makeVolume)
	volumes.HandleFunc("DELETE /v1/volumes/{name}", t.removeVolume)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			t.connect(ctx, w, r)
			return
		}
		volumes.ServeHTTP(w, r)
	})
}

func (t *Tunnel) connect(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	target, err := netip.ParseAddrPort(r.Host)
	if err != nil || target.Port() == 0 {
		http.Error(w, fmt.Sprintf("target %q: expected an address and a port", r.Host), http.StatusBadRequest)
		return
	}
	if !slices.ContainsFunc(t.cfg.Targets, func(p netip.Prefix) bool { return p.Contains(target.Addr()) }) {
		http.Error(w, fmt.Sprintf("target %s: neither a pod nor a Service of this cluster", target), http.StatusForbidden)
		return
	}
	select {
	case t.turns <- struct{}{}:
		defer func() { <-t.turns }()
	default:
		http.Error(w, fmt.Sprintf("%d connections go through already", maxTunnels), http.StatusServiceUnavailable)
		return
	}
	dialing, cancel := context.WithTimeout(r.Context(), dialLimit)
	defer cancel()
	far, err := new(net.Dialer).DialContext(dialing, "tcp", target.String())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "connection cannot be taken over", http.StatusInternalServerError)
		return
	}
	defer near.Close()
	_ = near.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	splice(near, buffered, far)
}

// splice copies both ways until both sides have ended or one broke. near is read through its buffer, which may hold
// bytes that came with the request.
func splice(near net.Conn, buffered io.Reader, far net.Conn) {
	var copying sync.WaitGroup
	move := func(to net.Conn, from io.Reader) {
		_, err := io.Copy(to, from)
		half, ok := to.(interface{ CloseWrite() error })
		if err != nil || !ok || half.CloseWrite() != nil {
			near.Close()
			far.Close()
		}
	}
	copying.Go(func() { move(far, buffered) })
	move(near, far)
	copying.Wait()
}

// makeVolume makes a volume's directory: 201, or 200 if it is there. Whatever user a pod runs as may write to it.
func (t *Tunnel) makeVolume(w http.ResponseWriter, r *http.Request) {
	name, ok := volumeOf(w, r)
	if !ok {
		return
	}
	status := http.StatusCreated
	err := t.volumes.Mkdir(name, 0o777)
	if errors.Is(err, os.ErrExist) {
		status, err = http.StatusOK, nil
	}
	if err == nil {
		err = t.volumes.Chmod(name, 0o777) // the mask has no say
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("volume %s: %v", name, err), http.StatusInternalServerError)
		return
	}
	t.cfg.Log.Info("volume made", "volume", name)
	w.WriteHeader(status)
}

// removeVolume removes a volume with all that is in it: 204, also if it is gone already.
func (t *Tunnel) removeVolume(w http.ResponseWriter, r *http.Request) {
	name, ok := volumeOf(w, r)
	if !ok {
		return
	}
	if err := t.volumes.RemoveAll(name); err != nil {
		http.Error(w, fmt.Sprintf("volume %s: %v", name, err), http.StatusInternalServerError)
		return
	}
	t.cfg.Log.Info("volume removed", "volume", name)
	w.WriteHeader(http.StatusNoContent)
}

func volumeOf(w http.ResponseWriter, r *http.Request) (string, bool) {
	name := r.PathValue("name")
	if !volumeName.MatchString(name) {
		http.Error(w, fmt.Sprintf("volume %q: expected pvc- and a UUID", name), http.StatusBadRequest)
		return "", false
	}
	return name, true
}
