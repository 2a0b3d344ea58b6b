package steward

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// testPKI writes an authority and, signed by it, a certificate for 127.0.0.1 for each name.
func testPKI(t *testing.T, names map[string]string) *Deps {
	dir := t.TempDir()
	sign := func(file, name string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate,
		*ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Minute),
			NotAfter:  time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			BasicConstraintsValid: true, IsCA: parent == nil}
		if parent == nil {
			parent, by = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for ext, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der},
			".key": {Type: "PRIVATE KEY", Bytes: private}} {
			if err := os.WriteFile(filepath.Join(dir, file+ext), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return c, key
	}
	ca, key := sign("ca", "ca", nil, nil)
	for file, name := range names {
		sign(file, name, ca, key)
	}
	return &Deps{PKIDir: dir, Log: slog.New(slog.DiscardHandler)}
}

// serveTLS serves h as the certificate file says and returns the port.
func serveTLS(t *testing.T, d *Deps, file string, h http.Handler) int {
	own, err := tls.LoadX509KeyPair(d.pki(file+".crt"), d.pki(file+".key"))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := d.pool()
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().(*net.TCPAddr).Port
}

func TestTunnelConnectsThroughTheNodeItMeans(t *testing.T) {
	d := testPKI(t, map[string]string{"steward": "marina:steward", "a": "marina:nodenet:a", "kubelet": "system:node:a"})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodConnect && r.Host == "10.96.0.1:443":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nhello ") // some bytes come with the answer
			said, _ := io.ReadAll(conn)
			conn.Write(said)
		case r.Method == http.MethodPost && r.URL.Path == "/v1/volumes/pvc-1" &&
			r.TLS.PeerCertificates[0].Subject.CommonName == "marina:steward":
			w.WriteHeader(http.StatusCreated)
		default:
			http.Error(w, "not that", http.StatusForbidden)
		}
	})
	tun := &tunnel{deps: d, port: serveTLS(t, d, "a", h)}
	ctx, n := t.Context(), node("a", "127.0.0.1", "", true)

	conn, err := tun.connect(ctx, n, "10.96.0.1:443")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "world")
	if err := closeWrite(conn); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "hello world" || err != nil {
		t.Errorf("got %q, %v, want hello world", got, err)
	}
	conn.Close()
	if _, err := tun.connect(ctx, n, "10.0.0.1:443"); err == nil ||
		!strings.Contains(err.Error(), "403 Forbidden not that") {
		t.Errorf("a refusal: got %v, want what the tunnel said", err)
	}
	if _, err := tun.connect(ctx, node("b", "127.0.0.1", "", true), "10.96.0.1:443"); err == nil ||
		!strings.Contains(err.Error(), "marina:nodenet:a") {
		t.Errorf("another node's address: got %v, want a refusal that names who answered", err)
	}
	tun.port = serveTLS(t, d, "kubelet", h)
	if _, err := tun.connect(ctx, n, "10.96.0.1:443"); err == nil {
		t.Error("a certificate of another kind was taken for a tunnel's")
	}
	tun.port = serveTLS(t, d, "a", h)
	if err := tun.makeVolume(ctx, n, "pvc-1"); err != nil {
		t.Error(err)
	}
	if err := tun.removeVolume(ctx, n, "pvc-1"); err == nil || !strings.Contains(err.Error(), "not that") {
		t.Errorf("a volume that is not removed: got %v", err)
	}
}

func TestTunnelThatDoesNotAnswerIsGivenUp(t *testing.T) {
	d := testPKI(t, map[string]string{"steward": "marina:steward"})
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := (&tunnel{deps: d, port: l.Addr().(*net.TCPAddr).Port}).connect(ctx, node("a", "127.0.0.1", "", true),
		"10.96.0.1:443"); err == nil {
		t.Error("a silent tunnel connected")
	}
}

func TestOnlyTheDatacenterIsServed(t *testing.T) {
	d := testPKI(t, map[string]string{"steward": "marina:steward", "datacenter": "marina:datacenter", "admin": "admin"})
	s := testSteward(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s.Handler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go srv.Serve(tls.NewListener(l, d.serverTLS()))
	t.Cleanup(func() { srv.Close() })
	pool, err := d.pool()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"datacenter": true, "admin": false, "": false} {
		cfg := &tls.Config{RootCAs: pool}
		if name != "" {
			own, err := tls.LoadX509KeyPair(d.pki(name+".crt"), d.pki(name+".key"))
			if err != nil {
				t.Fatal(err)
			}
			cfg.Certificates = []tls.Certificate{own}
		}
		c := http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
		res, err := c.Get("https://127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port) + "/v1/status")
		if got := err == nil && res.StatusCode == http.StatusOK; got != want {
			t.Errorf("%q is served: %v (%v), want %v", name, got, err, want)
		}
	}
}

func TestEgressAnswersAndCopiesBothWays(t *testing.T) {
	in, api := net.Pipe()
	out, far := net.Pipe()
	done := make(chan struct{})
	go func() { splice(t.Context(), in, out); close(done) }()
	go api.Write([]byte("ask"))
	b := make([]byte, 3)
	if _, err := io.ReadFull(far, b); err != nil || string(b) != "ask" {
		t.Errorf("got %q, %v", b, err)
	}
	go far.Write([]byte("ans"))
	if _, err := io.ReadFull(api, b); err != nil || string(b) != "ans" {
		t.Errorf("got %q, %v", b, err)
	}
	api.Close()
	<-done
	if _, err := far.Read(b); err == nil {
		t.Error("the other end stays open")
	}
}
