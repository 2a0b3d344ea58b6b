package tunnel

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority makes certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.key, a.cert = a.make(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true}, nil, nil)
	return a
}

func (a *authority) make(c, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<60))
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

// pair is a certificate for name, for both sides of a connection.
func (a *authority) pair(name string) tls.Certificate {
	key, cert := a.make(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// write puts what the tunnel reads into dir.
func (a *authority) write(dir string, server tls.Certificate) {
	key, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"ca.crt":      {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		"nodenet.crt": {Type: "CERTIFICATE", Bytes: server.Certificate[0]},
		"nodenet.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		temporary := filepath.Join(dir, ".new")
		if err := os.WriteFile(temporary, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
		if err := os.Rename(temporary, filepath.Join(dir, name)); err != nil {
			a.t.Fatal(err)
		}
	}
}

// client speaks to address with the certificate of a, and trusts it.
func (a *authority) client(pair *tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	c := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	if pair != nil {
		c.Certificates = []tls.Certificate{*pair}
	}
	return c
}

// started is a tunnel that serves, and where.
func started(t *testing.T, pki, volumes string, targets ...netip.Prefix) string {
	t.Helper()
	tun, err := New(Config{PKI: pki, Targets: targets, Volumes: volumes, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := tun.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); serving.Wait() })
	return l.Addr().String()
}

var loopback = netip.MustParsePrefix("127.0.0.0/8")

func TestOnlyTheStewardIsServed(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	pki := t.TempDir()
	ours.write(pki, ours.pair("marina:nodenet:node-1"))
	at := started(t, pki, t.TempDir(), loopback)
	steward, impostor, foreign := ours.pair(Client), ours.pair("system:node:node-1"), others.pair(Client)
	for _, c := range []struct {
		name string
		pair *tls.Certificate
		max  uint16
		want bool
	}{
		{"the steward", &steward, 0, true},
		{"a certificate of the cluster for somebody else", &impostor, 0, false},
		{"a certificate of somebody else for the steward", &foreign, 0, false},
		{"no certificate", nil, 0, false},
		{"the steward with TLS 1.1", &steward, tls.VersionTLS11, false},
	} {
		conf := ours.client(c.pair)
		conf.MinVersion, conf.MaxVersion = tls.VersionTLS10, c.max
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
		res, err := client.Get("https://" + at + "/")
		if got := err == nil; got != c.want {
			t.Errorf("%s: got %v, want served %v", c.name, err, c.want)
		}
		if err == nil {
			if res.Body.Close(); res.StatusCode != http.StatusNotFound {
				t.Errorf("%s: got %s, want 404", c.name, res.Status)
			}
		}
	}
}

// through asks for a connection to target and returns it, or the answer's status.
func through(t *testing.T, conf *tls.Config, at, target string) (net.Conn, *bufio.Reader, int) {
	t.Helper()
	conn, err := tls.Dial("tcp", at, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	return conn, r, res.StatusCode
}

func TestConnectionsGoThroughToTheClusterAlone(t *testing.T) {
	a := newAuthority(t)
	pki := t.TempDir()
	a.write(pki, a.pair("node"))
	at := started(t, pki, t.TempDir(), netip.MustParsePrefix("127.0.0.0/30"), netip.MustParsePrefix("10.96.0.0/16"))
	steward := a.pair(Client)
	conf := a.client(&steward)

	// A server that answers only once its client has said everything: ends must go through one by one.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			io.WriteString(c, strings.ToUpper(string(b)))
			c.Close()
		}
	}()
	conn, r, status := through(t, conf, at, l.Addr().String())
	if status != http.StatusOK {
		t.Fatalf("got %d, want 200", status)
	}
	big := strings.Repeat("hello ", 100_000)
	go func() {
		io.WriteString(conn, big)
		conn.(*tls.Conn).CloseWrite()
	}()
	if got, err := io.ReadAll(r); err != nil || string(got) != strings.ToUpper(big) {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(big))
	}

	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for target, want := range map[string]int{
		"127.0.0.9:80":          http.StatusForbidden,
		"10.97.0.1:443":         http.StatusForbidden,
		"[::1]:80":              http.StatusForbidden,
		"[::ffff:127.0.0.9]:80": http.StatusForbidden,
		"localhost:80":          http.StatusBadRequest,
		"127.0.0.1:0":           http.StatusBadRequest,
		free.Addr().String():    http.StatusBadGateway,
	} {
		if _, _, got := through(t, conf, at, target); got != want {
			t.Errorf("%s: got %d, want %d", target, got, want)
		}
	}
}

func TestCertificatesAreReadAgain(t *testing.T) {
	a := newAuthority(t)
	pki := t.TempDir()
	a.write(pki, a.pair("first"))
	at := started(t, pki, t.TempDir(), loopback)
	steward := a.pair(Client)
	name := func(a *authority, pair tls.Certificate) string {
		conn, err := tls.Dial("tcp", at, a.client(&pair))
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := name(a, steward); got != "first" {
		t.Errorf("got %s, want first", got)
	}
	a.write(pki, a.pair("second"))
	if got := name(a, steward); got != "second" {
		t.Errorf("after new files: got %s, want second", got)
	}
	if err := os.WriteFile(filepath.Join(pki, "nodenet.crt"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := name(a, steward); got != "second" {
		t.Errorf("with half a file: got %s, want the last good one", got)
	}
	b := newAuthority(t)
	b.write(pki, b.pair("third"))
	if got := name(b, b.pair(Client)); got != "third" {
		t.Errorf("after a new authority: got %s, want third", got)
	}
}

func TestVolumesAreMadeAndRemoved(t *testing.T) {
	a := newAuthority(t)
	pki, volumes := t.TempDir(), filepath.Join(t.TempDir(), "volumes")
	a.write(pki, a.pair("node"))
	at := started(t, pki, volumes, loopback)
	steward := a.pair(Client)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: a.client(&steward)}}
	defer client.CloseIdleConnections()
	do := func(method, name string) int {
		t.Helper()
		req, err := http.NewRequest(method, "https://"+at+"/v1/volumes/"+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	const name = "pvc-0123abcd-0123-4567-89ab-0123456789ab"
	if got := do("POST", name); got != http.StatusCreated {
		t.Errorf("got %d, want 201", got)
	}
	if info, err := os.Stat(filepath.Join(volumes, name)); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("got %v, %v, want a directory of mode 0777", info, err)
	}
	if got := do("POST", name); got != http.StatusOK {
		t.Errorf("again: got %d, want 200", got)
	}
	// What lies in it goes too, but never what a link in it points to.
	elsewhere := t.TempDir()
	kept := filepath.Join(elsewhere, "kept")
	if err := os.WriteFile(kept, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(volumes, name, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(volumes, name, "a", "link")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := do("DELETE", name); got != http.StatusNoContent {
			t.Errorf("DELETE: got %d, want 204", got)
		}
	}
	if _, err := os.Stat(filepath.Join(volumes, name)); err == nil {
		t.Error("the volume is still there")
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"pvc-..%2f..%2fetc-0123-4567-89ab-0123456789ab", "other", "pvc-0123ABCD-0123-4567-89ab-0123456789ab", "pvc-0123abcd-0123-4567-89ab-0123456789abc"} {
		if got := do("POST", bad); got != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", bad, got)
		}
	}
}
