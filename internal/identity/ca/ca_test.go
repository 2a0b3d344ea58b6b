package ca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

func rootKey(t testing.TB) *identity.RootKey {
	t.Helper()
	raw := make([]byte, 32)
	rand.Read(raw)
	return must(identity.NewRootKey(raw))(t)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func authority(t testing.TB, datacenter string) *Authority {
	t.Helper()
	return must(newAuthority(datacenter))(t)
}

func TestMastersThatStartAtOnceShareOneCA(t *testing.T) {
	st, root := memory.New(), rootKey(t)
	certs := make([]string, 4)
	var wg sync.WaitGroup
	for i := range certs {
		wg.Go(func() {
			a, err := Open(t.Context(), st, root, "dc-1")
			if err != nil {
				t.Errorf("master %d: %v", i, err)
				return
			}
			certs[i] = string(a.CertPEM())
		})
	}
	wg.Wait()
	for i, c := range certs {
		if c != certs[0] {
			t.Errorf("master %d has another CA", i)
		}
	}
	if _, err := Open(t.Context(), st, rootKey(t), "dc-1"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("open with another root key: %v, want failed precondition", err)
	}
	if _, err := Open(t.Context(), st, root, "dc-2"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("open as another datacenter: %v, want failed precondition", err)
	}
	for _, applied := range []bool{true, false} { // an unknown outcome is looked up, never repeated
		st := memory.New()
		st.LoseReply(applied)
		if _, err := Open(t.Context(), st, root, "dc-1"); (err == nil) != applied {
			t.Errorf("reply lost, applied %v: %v", applied, err)
		}
	}
}

func TestStoreHoldsNoPlainKey(t *testing.T) {
	st := memory.New()
	a := must(Open(t.Context(), st, rootKey(t), "dc-1"))(t)
	secret := must(x509.MarshalPKCS8PrivateKey(a.key))(t)
	snap := must(st.Snapshot(t.Context(), store.Prefix("identity")))(t)
	if len(snap.Items) != 1 {
		t.Fatalf("%d rows, want the CA's", len(snap.Items))
	}
	for _, item := range snap.Items {
		encoded := []byte(base64.StdEncoding.EncodeToString(secret))
		if bytes.Contains(item.Value, secret) || bytes.Contains(item.Value, encoded) {
			t.Errorf("row %s holds the key", item.Key)
		}
	}
}

// handshake connects a client and a server over loopback and returns the error of each.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l := must(tls.Listen("tcp", "127.0.0.1:0", server))(t)
	defer l.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer c.Close()
		if serverErr = c.(*tls.Conn).HandshakeContext(t.Context()); serverErr == nil {
			_, serverErr = c.Write([]byte("x"))
		}
	})
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1)) // TLS 1.3 tells a client of its refusal here
		c.Close()
	}
	wg.Wait()
	return serverErr, err
}

func TestPeersNeedTheRoleNotOnlyTheCA(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	a, foreign := authority(t, "dc-1"), authority(t, "dc-2")
	dns, ips := Hosts("localhost", "127.0.0.1")
	server := a.ServerSource(log, "m1", dns, ips)
	// The same key and CA, a certificate that says another datacenter: only the URI tells.
	astray := &Authority{datacenter: "dc-9", cert: a.cert, key: a.key, pool: a.pool}
	for name, c := range map[string]struct {
		server *tls.Config
		client *tls.Config
		ok     bool
	}{
		"agent at the agents' listener": {ServerTLS(server, a.Pool(), "dc-1", Agent),
			ClientTLS(a.ClientSource(log, Agent, "a1"), a.Pool(), "dc-1"), true},
		"admin at the agents' listener": {ServerTLS(server, a.Pool(), "dc-1", Agent),
			ClientTLS(a.ClientSource(log, Admin, "ann"), a.Pool(), "dc-1"), false},
		"master at the agents' listener": {ServerTLS(server, a.Pool(), "dc-1", Agent), ClientTLS(server, a.Pool(), "dc-1"),
			false},
		"nobody at the agents' listener": {ServerTLS(server, a.Pool(), "dc-1", Agent), ClientTLS(nil, a.Pool(), "dc-1"),
			false},
		"foreign agent": {ServerTLS(server, a.Pool(), "dc-1", Agent),
			ClientTLS(foreign.ClientSource(log, Agent, "a1"), a.Pool(), "dc-1"), false},
		"agent of another datacenter": {ServerTLS(server, a.Pool(), "dc-1", Agent),
			ClientTLS(astray.ClientSource(log, Agent, "a1"), a.Pool(), "dc-1"), false},
		"people bring no certificate": {ServerTLS(server, a.Pool(), "dc-1"), ClientTLS(nil, a.Pool(), "dc-1"), true},
		"an agent poses as a master": {ServerTLS(a.ClientSource(log, Agent, "a1"), a.Pool(), "dc-1"),
			ClientTLS(nil, a.Pool(), "dc-1"), false},
		"another datacenter's master": {ServerTLS(foreign.ServerSource(log, "m1", dns, ips), a.Pool(), "dc-1"),
			ClientTLS(nil, a.Pool(), "dc-1"), false},
		"master under another's name": {ServerTLS(a.ServerSource(log, "m1", []string{"other"}, nil), a.Pool(), "dc-1"),
			ClientTLS(nil, a.Pool(), "dc-1"), false},
		"client knows another datacenter": {ServerTLS(server, a.Pool(), "dc-1"), ClientTLS(nil, a.Pool(), "dc-3"), false},
	} {
		serverErr, clientErr := handshake(t, c.server, c.client)
		if got := serverErr == nil && clientErr == nil; got != c.ok {
			t.Errorf("%s: server %v, client %v, want ok %v", name, serverErr, clientErr, c.ok)
		}
	}
}

func request(t *testing.T, key any, edit func(*x509.CertificateRequest)) []byte {
	t.Helper()
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "whatever"}}
	if edit != nil {
		edit(template)
	}
	return must(x509.CreateCertificateRequest(rand.Reader, template, key))(t)
}

func TestRequestsGetTheSubjectTheyWereGrantedAndNoMore(t *testing.T) {
	a := authority(t, "dc-1")
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	greedy := request(t, key, func(r *x509.CertificateRequest) {
		r.DNSNames = []string{"master.mesos"}
		r.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		r.URIs = []*url.URL{(Subject{"dc-1", Master, "m1"}).URI()}
	})
	cert := must(x509.ParseCertificate(must(a.Sign(greedy, Agent, "a1"))(t)))(t)
	if got, want := must(SubjectOf(cert))(t), (Subject{"dc-1", Agent, "a1"}); got != want {
		t.Errorf("subject %v, want %v", got, want)
	}
	if len(cert.DNSNames)+len(cert.IPAddresses) > 0 || cert.IsCA || len(cert.ExtKeyUsage) != 1 ||
		cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("request got more than a client certificate: %v %v CA %v usage %v",
			cert.DNSNames, cert.IPAddresses, cert.IsCA, cert.ExtKeyUsage)
	}
	weak := must(rsa.GenerateKey(rand.Reader, 1024))
	for name, sign := range map[string]func() ([]byte, error){
		"a master's":     func() ([]byte, error) { return a.Sign(greedy, Master, "m1") },
		"unknown role":   func() ([]byte, error) { return a.Sign(greedy, "king", "m1") },
		"no id":          func() ([]byte, error) { return a.Sign(greedy, Agent, "") },
		"id with a path": func() ([]byte, error) { return a.Sign(greedy, Agent, "../master/m1") },
		"id with a ?":    func() ([]byte, error) { return a.Sign(greedy, Agent, "a?b") },
		"rubbish":        func() ([]byte, error) { return a.Sign([]byte("x"), Agent, "a1") },
		"broken": func() ([]byte, error) {
			return a.Sign(append(greedy[:len(greedy)-1:len(greedy)-1], greedy[len(greedy)-1]^1), Agent, "a1")
		},
		"P-224": func() ([]byte, error) {
			return a.Sign(request(t, must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))(t), nil), Agent, "a1")
		},
		"RSA 1024": func() ([]byte, error) { return a.Sign(request(t, weak(t), nil), Agent, "a1") },
	} {
		if der, err := sign(); err == nil {
			t.Errorf("%s: signed %d bytes", name, len(der))
		}
	}
}

func TestRenewalKeepsTheIdentityOfTheConnection(t *testing.T) {
	a, foreign := authority(t, "dc-1"), authority(t, "dc-2")
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	csr := request(t, key, nil)
	state := func(by *Authority, role Role, id string) tls.ConnectionState {
		c := must(by.IssueClient(role, id))(t)
		chains := must(c.Leaf.Verify(x509.VerifyOptions{Roots: by.Pool(),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}))(t)
		return tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf}, VerifiedChains: chains}
	}
	cert := must(x509.ParseCertificate(must(a.Renew(state(a, Agent, "a1"), csr))(t)))(t)
	if got, want := must(SubjectOf(cert))(t), (Subject{"dc-1", Agent, "a1"}); got != want {
		t.Errorf("renewed as %v, want %v", got, want)
	}
	if _, err := a.Renew(state(foreign, Agent, "a1"), csr); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("renewal of a foreign certificate: %v, want permission denied", err)
	}
	unverified := tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	if _, err := a.Renew(unverified, csr); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("renewal without a verified chain: %v, want unauthenticated", err)
	}
}

func TestSubjectsAreReadInOneFormOnly(t *testing.T) {
	for _, text := range []string{
		"marina://dc-1/agent", "marina://dc-1/agent/", "marina://dc-1//a1", "marina://dc-1/agent/a/b",
		"marina://dc-1/king/a1", "spiffe://dc-1/agent/a1",
		"marina://u@dc-1/agent/a1", "marina://dc-1:1/agent/a1", "marina://dc-1/agent/a1?x", "marina://dc-1/agent/a1#x",
		"marina://dc-1/agent/%61x%2f", "marina:///agent/a1",
	} {
		u := must(url.Parse(text))(t)
		if s, err := SubjectOf(&x509.Certificate{URIs: []*url.URL{u}}); !errors.Is(err, errdefs.ErrPermissionDenied) {
			t.Errorf("%s: %v, %v, want permission denied", text, s, err)
		}
	}
	u := (Subject{"dc-1", Agent, "a1"}).URI()
	for n, uris := range map[int][]*url.URL{0: nil, 2: {u, u}} {
		if _, err := SubjectOf(&x509.Certificate{URIs: uris}); err == nil {
			t.Errorf("certificate with %d URIs has a subject", n)
		}
	}
}

func TestSourceRenewsAtHalfLifeAndBearsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t, "dc-1") // on this bubble's clock
		var issued atomic.Int32
		var failing atomic.Bool
		src := NewSource(slog.New(slog.NewTextHandler(t.Output(), nil)), func(context.Context) (*tls.Certificate, error) {
			issued.Add(1)
			if failing.Load() {
				return nil, errdefs.ErrUnavailable
			}
			return a.IssueClient(Agent, "a1")
		})
		get := func() *tls.Certificate { return must(src.Certificate(t.Context()))(t) }
		first := get()
		life := lifetimes[Agent]
		time.Sleep(life/2 - 10*time.Minute)
		if get() != first || issued.Load() != 1 {
			t.Errorf("renewed before half of its life: %d issued", issued.Load())
		}
		time.Sleep(20 * time.Minute)
		failing.Store(true)
		for range 10 {
			if get() != first {
				t.Error("a renewal that did not work lost the old certificate")
			}
		}
		if got := issued.Load(); got != 2 {
			t.Errorf("%d tries within a minute, want 1", got-1)
		}
		time.Sleep(2 * renewRetry)
		failing.Store(false)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { get() })
		}
		wg.Wait()
		if second := get(); second == first || issued.Load() != 3 {
			t.Errorf("not renewed once: %d issued", issued.Load())
		}
		time.Sleep(2 * life)
		failing.Store(true)
		if c, err := src.Certificate(t.Context()); err == nil {
			t.Errorf("gave an expired certificate, until %v", c.Leaf.NotAfter)
		}
	})
}
