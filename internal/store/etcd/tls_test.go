package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/client/pkg/v3/transport"

	"github.com/marinaos/marina/internal/store"
)

// TestQuorumOverTLS serves a member that asks clients for a certificate, and knocks with and without one.
func TestQuorumOverTLS(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	cert, key := ours.issue(t, "member")
	cfg, err := Embedded{Dir: t.TempDir(), Log: logTo(t)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	log := newCore(cfg.Log)
	ec := serverConfig(cfg, log)
	ec.ListenClientUrls = []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
	ec.AdvertiseClientUrls = ec.ListenClientUrls
	ec.ClientTLSInfo = transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: ours.file, ClientCertAuth: true}
	server, err := startServer(t.Context(), cfg, ec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		log.closing.Store(true)
		if err := closeServer(server, cfg.CloseTimeout); err != nil {
			t.Error(err)
		}
	})
	endpoints := []string{"https://" + server.Clients[0].Addr().String()}

	cert, key = ours.issue(t, "client")
	s, err := OpenExternal(t.Context(), External{Endpoints: endpoints, CertFile: cert, KeyFile: key, CAFile: ours.file})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put("a", nil)}}); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	badCert, badKey := theirs.issue(t, "client")
	for name, bad := range map[string]External{
		"no certificate":          {CAFile: ours.file},
		"another's certificate":   {CAFile: ours.file, CertFile: badCert, KeyFile: badKey},
		"members of another's CA": {CAFile: theirs.file, CertFile: cert, KeyFile: key},
		"members of no known CA":  {CertFile: cert, KeyFile: key},
	} {
		bad.Endpoints, bad.StartTimeout = endpoints, time.Second/2
		if _, err := OpenExternal(t.Context(), bad); !errdefs.IsUnavailable(err) {
			t.Errorf("%s: got %v, want an errdefs.ErrUnavailable", name, err)
		}
	}
	_, err = OpenExternal(t.Context(), External{Endpoints: endpoints, CAFile: "/nowhere"})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("missing CA file: got %v, want an errdefs.ErrInvalidArgument", err)
	}
}

// authority is a CA of the test.
type authority struct {
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem"), key: newKey(t)}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.sign(t, a.file, a.cert, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(t *testing.T, file string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, file, "CERTIFICATE", der)
}

// issue writes a certificate for 127.0.0.1 and its key.
func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	dir, key := t.TempDir(), newKey(t)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	a.sign(t, certFile, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, keyFile, "PRIVATE KEY", der)
	return certFile, keyFile
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
