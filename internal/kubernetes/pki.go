package kubernetes

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

// authorities is what a cluster signs with. It is kept sealed; PEM throughout.
type authorities struct {
	CA, CAKey           []byte // the cluster's own
	Proxy, ProxyKey     []byte // of the front proxy
	AccountKey, Account []byte // service account tokens: private key, public key
	Encryption          []byte // an EncryptionConfiguration of the API server
}

// leaf is a certificate with its key.
type leaf struct{ Cert, Key []byte }

// newAuthorities makes what a new cluster signs with.
func newAuthorities(name string, now time.Time) (*authorities, error) {
	a := &authorities{}
	var err error
	if a.CA, a.CAKey, err = newAuthority("kubernetes-"+name, now); err != nil {
		return nil, err
	}
	if a.Proxy, a.ProxyKey, err = newAuthority("front-proxy-"+name, now); err != nil {
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
	template := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-backdate), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	key, err = keyPEM(signer)
	return certPEM(der), key, err
}

// identityOf is who a certificate is for. With hosts it is a server's too.
type identityOf struct {
	name, group string
	hosts       []string
}

// issue makes a certificate signed by the cluster's authority.
func issue(ca, caKey []byte, who identityOf, now time.Time, life time.Duration) (leaf, error) {
	parent, err := parseCert(ca)
	if err != nil {
		return leaf{}, err
	}
	signer, err := parseKey(caKey)
	if err != nil {
		return leaf{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf{}, err
	}
	t := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: who.name}, NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if who.group != "" {
		t.Subject.Organization = []string{who.group}
	}
	for _, h := range who.hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	if len(who.hosts) > 0 {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return leaf{}, err
	}
	pemKey, err := keyPEM(key)
	return leaf{certPEM(der), pemKey}, err
}

// place is where a cluster's members are, as far as their certificates say so.
type place struct {
	plane    netip.Addr // the control plane's address
	node     netip.Addr // the node's
	services netip.Addr // of the Service "kubernetes"
	machine  []string   // names and addresses by which others reach the control plane's machine
}

// identities are the certificates of a member, by file.
func identities(member string, p place) map[string]identityOf {
	if member == controlPlane {
		here := append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain, "localhost", "127.0.0.1",
			p.services.String(), p.plane.String()}, p.machine...)
		return map[string]identityOf{
			"apiserver":                {name: "kube-apiserver", hosts: here},
			"apiserver-kubelet-client": {name: "kube-apiserver-kubelet-client", group: "system:masters"},
			"controller-manager":       {name: "system:kube-controller-manager"},
			"scheduler":                {name: "system:kube-scheduler"},
			"steward":                  {name: "marina:steward", group: "system:masters", hosts: []string{"steward", p.plane.String()}},
		}
	}
	return map[string]identityOf{
		"kubelet":        {name: "system:node:" + member, group: "system:nodes"},
		"kubelet-server": {name: "system:node:" + member, group: "system:nodes", hosts: []string{member, p.node.String()}},
		"proxy":          {name: "system:kube-proxy"},
		"nodenet":        {name: "marina:nodenet:" + member, group: "marina:nodenet", hosts: []string{member, p.node.String()}},
	}
}

// files is a member's folder of certificates and keys, named as kubeadm names them. Leaves are made anew for the given time.
func (a *authorities) files(member string, p place, encrypt bool, now time.Time) (map[string][]byte, error) {
	out := map[string][]byte{"ca.crt": a.CA}
	for name, who := range identities(member, p) {
		l, err := issue(a.CA, a.CAKey, who, now, leafLife)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", name, err)
		}
		out[name+".crt"], out[name+".key"] = l.Cert, l.Key
	}
	if member != controlPlane {
		return out, nil
	}
	l, err := issue(a.Proxy, a.ProxyKey, identityOf{name: "front-proxy-client"}, now, leafLife)
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

// stale reports whether files were made for another place, or have a certificate with little time left.
func stale(files map[string][]byte, member string, p place, now time.Time) bool {
	for name, who := range identities(member, p) {
		cert, err := parseCert(files[name+".crt"])
		if err != nil || cert.NotAfter.Sub(now) < leafLife/3 {
			return true
		}
		for _, h := range who.hosts {
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
