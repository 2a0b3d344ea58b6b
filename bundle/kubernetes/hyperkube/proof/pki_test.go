package proof

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates and writes them to a directory as the control plane wants them.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T, dir, name string) *authority {
	a := &authority{dir: dir, key: newKey(t)}
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	a.write(t, name, a.cert, a.key)
	return a
}

// issue writes NAME.crt and NAME.key, by rename.
func (a *authority) issue(t *testing.T, name, user, group string, hosts ...string) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: user}, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(12 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if group != "" {
		c.Subject.Organization = []string{group}
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	a.write(t, name, c, newKey(t))
}

func (a *authority) write(t *testing.T, name string, c *x509.Certificate, key *ecdsa.PrivateKey) {
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(a.dir, name+".key"), "PRIVATE KEY", marshal(t, key))
	put(t, filepath.Join(a.dir, name+".crt"), "CERTIFICATE", der)
}

func marshal(t *testing.T, key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func put(t *testing.T, path, kind string, der []byte) {
	if err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

var apiServerHosts = []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	"localhost", "127.0.0.1", "10.96.0.1"}

// newPKI fills a directory with all that a control plane needs, and an administrator's certificate.
func newPKI(t *testing.T, dir string) *authority {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t, dir, "ca")
	ca.issue(t, "apiserver", "kube-apiserver", "", apiServerHosts...)
	ca.issue(t, "apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
	ca.issue(t, "controller-manager", "system:kube-controller-manager", "")
	ca.issue(t, "scheduler", "system:kube-scheduler", "")
	ca.issue(t, "admin", "admin", "system:masters")
	ca.issue(t, "steward", "marina:steward", "system:masters", "127.0.0.1", "steward")
	ca.issue(t, "datacenter", "marina:datacenter", "")
	newAuthority(t, dir, "front-proxy-ca").issue(t, "front-proxy-client", "front-proxy-client", "")
	sa := newKey(t)
	put(t, filepath.Join(dir, "sa.key"), "PRIVATE KEY", marshal(t, sa))
	pub, err := x509.MarshalPKIXPublicKey(&sa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "sa.pub"), "PUBLIC KEY", pub)
	return ca
}
