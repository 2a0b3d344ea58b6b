package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"
)

// How long certificates hold. Leaves are made anew when a third of it is left.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 90 * 24 * time.Hour
	backdate      = 5 * time.Minute // clocks differ
)

// Authorities holds the keys that a cluster signs with. It is kept sealed; PEM throughout. The names of its fields are
// those in the store.
type Authorities struct {
	CA, CAKey           []byte // the cluster's own
	Proxy, ProxyKey     []byte // of the front proxy
	AccountKey, Account []byte // service account tokens: private key, public key
	Encryption          []byte // an EncryptionConfiguration of the API server
}

// Leaf is a certificate with its key, both PEM.
type Leaf struct{ Cert, Key []byte }

// New makes what a new cluster signs with, which takes some tenths of a second.
func New(cluster string, now time.Time) (*Authorities, error) {
	a := &Authorities{}
	var err error
	if a.CA, a.CAKey, err = newAuthority("kubernetes-"+cluster, now); err != nil {
		return nil, err
	}
	if a.Proxy, a.ProxyKey, err = newAuthority("front-proxy-"+cluster, now); err != nil {
		return nil, err
	}
	account, err := rsa.GenerateKey(rand.Reader, 2048) // tokens are RS256: what every client of them knows
	if err != nil {
		return nil, err
	}
	if a.AccountKey, err = keyPEM(account); err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(account.Public())
	if err != nil {
		return nil, err
	}
	a.Account = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	a.Encryption = fmt.Appendf(nil, encryption, base64.StdEncoding.EncodeToString(secret))
	return a, nil
}

// encryption has the API server encrypt secrets; what was written without is still read.
const encryption = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox: {keys: [{name: key1, secret: %s}]}
  - identity: {}
`

func newAuthority(name string, now time.Time) (cert, key []byte, err error) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	key, err = keyPEM(signer)
	return certPEM(der), key, err
}

// Identity names the holder of a certificate: the user and group that Kubernetes sees. With hosts it is a server's too.
type Identity struct {
	Name, Group string
	Hosts       []string
}

// Issue makes a certificate signed by the cluster's own authority.
func (a *Authorities) Issue(who Identity, now time.Time, life time.Duration) (Leaf, error) {
	return issue(a.CA, a.CAKey, who, now, life)
}

func issue(ca, caKey []byte, who Identity, now time.Time, life time.Duration) (Leaf, error) {
	parent, err := parseCert(ca)
	if err != nil {
		return Leaf{}, err
	}
	signer, err := parseKey(caKey)
	if err != nil {
		return Leaf{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Leaf{}, err
	}
	t := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: who.Name},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if who.Group != "" {
		t.Subject.Organization = []string{who.Group}
	}
	for _, h := range who.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	if len(who.Hosts) > 0 {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return Leaf{}, err
	}
	pemKey, err := keyPEM(key)
	return Leaf{certPEM(der), pemKey}, err
}

// Subject is the member that certificates are for, and where the cluster is.
type Subject struct {
	Node     string     // its name; "": the control plane
	Address  netip.Addr // the node's
	Plane    netip.Addr // the control plane's address
	Services netip.Addr // of the Service "kubernetes"
	Domain   string     // of the cluster's names: "cluster.local"
	Hosts    []string   // names and addresses by which others reach the control plane's machine
}

// identities are the certificates of a subject, by file.
func (s *Subject) identities() map[string]Identity {
	if s.Node == "" {
		here := append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc." + s.Domain,
			"localhost", "127.0.0.1", s.Services.String(), s.Plane.String()}, s.Hosts...)
		return map[string]Identity{
			"apiserver":                {Name: "kube-apiserver", Hosts: here},
			"apiserver-kubelet-client": {Name: "kube-apiserver-kubelet-client", Group: "system:masters"},
			"controller-manager":       {Name: "system:kube-controller-manager"},
			"scheduler":                {Name: "system:kube-scheduler"},
			"steward": {Name: "marina:steward", Group: "system:masters",
				Hosts: []string{"steward", s.Plane.String()}},
		}
	}
	here := []string{s.Node, s.Address.String()}
	return map[string]Identity{
		"kubelet":        {Name: "system:node:" + s.Node, Group: "system:nodes"},
		"kubelet-server": {Name: "system:node:" + s.Node, Group: "system:nodes", Hosts: here},
		"proxy":          {Name: "system:kube-proxy"},
		"nodenet":        {Name: "marina:nodenet:" + s.Node, Group: "marina:nodenet", Hosts: here},
	}
}

// Files is a subject's directory of certificates and keys, named as kubeadm names them. Leaves are made anew;
// encrypt: the API server encrypts secrets.
func (a *Authorities) Files(s Subject, encrypt bool, now time.Time) (map[string][]byte, error) {
	out := map[string][]byte{"ca.crt": a.CA}
	for name, who := range s.identities() {
		l, err := a.Issue(who, now, leafLife)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", name, err)
		}
		out[name+".crt"], out[name+".key"] = l.Cert, l.Key
	}
	if s.Node != "" {
		return out, nil
	}
	l, err := issue(a.Proxy, a.ProxyKey, Identity{Name: "front-proxy-client"}, now, leafLife)
	if err != nil {
		return nil, fmt.Errorf("certificate front-proxy-client: %w", err)
	}
	out["front-proxy-client.crt"], out["front-proxy-client.key"], out["front-proxy-ca.crt"] = l.Cert, l.Key, a.Proxy
	out["ca.key"], out["sa.key"], out["sa.pub"] = a.CAKey, a.AccountKey, a.Account
	if encrypt {
		out["encryption.yaml"] = a.Encryption
	}
	return out, nil
}

// Stale reports whether files were made for another subject, or have a certificate with little time left.
func Stale(files map[string][]byte, s Subject, now time.Time) bool {
	for name, who := range s.identities() {
		cert, err := parseCert(files[name+".crt"])
		if err != nil || cert.NotAfter.Sub(now) < leafLife/3 {
			return true
		}
		for _, h := range who.Hosts {
			if cert.VerifyHostname(h) != nil {
				return true
			}
		}
	}
	return false
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseCert(raw []byte) (*x509.Certificate, error) {
	b, _ := pem.Decode(raw)
	if b == nil {
		return nil, fmt.Errorf("certificate is no PEM: %w", errdefs.ErrDataLoss)
	}
	return x509.ParseCertificate(b.Bytes)
}

func parseKey(raw []byte) (crypto.Signer, error) {
	b, _ := pem.Decode(raw)
	if b == nil {
		return nil, fmt.Errorf("key is no PEM: %w", errdefs.ErrDataLoss)
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, err
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key is a %T: %w", k, errdefs.ErrDataLoss)
	}
	return s, nil
}
