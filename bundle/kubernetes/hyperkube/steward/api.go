package steward

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

const (
	datacenterName = "marina:datacenter" // common name of the only client
	pollFor        = 30 * time.Second
	maxDesired     = 1 << 20 // bytes of a body
	maxRequests    = 64      // at a time
)

// board shows the current status to all that wait for another one.
type board struct {
	mu      sync.Mutex
	ready   bool
	addons  AddonsStatus
	probe   string // what the probe waits for
	rev     string
	doc     []byte
	changed chan struct{} // closed when doc is replaced
}

func newBoard() *board {
	b := &board{changed: make(chan struct{})}
	b.show(Status{Nodes: []NodeStatus{}, LoadBalancers: []BalancerRequest{}, Waiting: []string{}})
	return b
}

func (b *board) setReady(ready bool) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed = b.ready != ready
	b.ready = ready
	return changed
}

func (b *board) setAddons(a AddonsStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addons = a
}

func (b *board) setProbe(message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probe = message
}

// show puts s in place, with what only the board knows, if that changes anything.
func (b *board) show(s Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Ready, s.Addons, s.Rev = b.ready, b.addons, ""
	if !s.Probe.Done {
		s.Probe.Message = b.probe
	}
	doc, err := json.Marshal(s)
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256(doc)
	if s.Rev = hex.EncodeToString(sum[:8]); s.Rev == b.rev {
		return
	}
	b.doc, _ = json.Marshal(s)
	b.rev = s.Rev
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *board) current() (rev string, doc []byte, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rev, b.doc, b.changed
}

// publish is a round of the status loop.
func (s *Steward) publish(context.Context) error {
	st := look(each[corev1.Node](s.seen.nodes), each[corev1.Pod](s.seen.pods), each[corev1.Service](s.seen.services),
		each[discoveryv1.EndpointSlice](s.seen.dns))
	st.Version, st.Probe.Done, st.Desired = s.deps.Version, s.state.probed(), s.state.desired().Rev
	if s.deps.Problem != nil {
		st.Problem = limit(s.deps.Problem())
	}
	s.board.show(st)
	return nil
}

// Handler is the API, to be served to the datacenter only.
func (s *Steward) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.getStatus)
	mux.HandleFunc("PUT /v1/desired", s.putDesired)
	free := make(chan struct{}, maxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case free <- struct{}{}:
			defer func() { <-free }()
			mux.ServeHTTP(w, r)
		default:
			http.Error(w, "too many requests at a time", http.StatusServiceUnavailable)
		}
	})
}

func (s *Steward) getStatus(w http.ResponseWriter, r *http.Request) {
	rev, doc, changed := s.board.current()
	if after := r.URL.Query().Get("after"); after == rev {
		limit := time.NewTimer(pollFor)
		defer limit.Stop()
		select {
		case <-changed:
			_, doc, _ = s.board.current()
		case <-limit.C:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(doc)
}

func (s *Steward) putDesired(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDesired))
	if err != nil {
		http.Error(w, fmt.Sprintf("body: %v", err), http.StatusRequestEntityTooLarge)
		return
	}
	var d Desired
	if err := json.Unmarshal(body, &d); err != nil {
		http.Error(w, fmt.Sprintf("body: %v", err), http.StatusBadRequest)
		return
	}
	if err := checkDesired(&d); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	nodeless := s.state.nodeless()
	if err := s.state.setDesired(d); err != nil {
		s.deps.Log.Error("steward cannot keep what is desired", "err", err)
		http.Error(w, "what is desired cannot be kept: the control plane's disk refuses", http.StatusInsufficientStorage)
		return
	}
	if s.state.nodeless() != nodeless {
		s.addonsBell.ring()
	}
	s.nodesBell.ring()
	s.balancersBell.ring()
	s.statusBell.ring()
	w.WriteHeader(http.StatusNoContent)
}

// serveAPI listens until ctx ends.
func (s *Steward) serveAPI(ctx context.Context) error {
	if _, err := s.deps.pool(); err != nil { // say it now and not at the first request
		return err
	}
	l, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second,
		WriteTimeout: pollFor + 15*time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(tls.NewListener(l, s.deps.serverTLS())); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serverTLS takes the certificates from their files at each handshake, so that renewed ones need no restart.
func (d *Deps) serverTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool, err := d.pool()
		if err != nil {
			return nil, err
		}
		own, err := tls.LoadX509KeyPair(d.pki("steward.crt"), d.pki("steward.key"))
		if err != nil {
			return nil, err
		}
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
			NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
			VerifyConnection: func(c tls.ConnectionState) error {
				if name := c.PeerCertificates[0].Subject.CommonName; name != datacenterName {
					return fmt.Errorf("client %q is not %s", name, datacenterName)
				}
				return nil
			}}, nil
	}}
}

func (d *Deps) pool() (*x509.CertPool, error) {
	pem, err := os.ReadFile(d.pki("ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", d.pki("ca.crt"))
	}
	return pool, nil
}
