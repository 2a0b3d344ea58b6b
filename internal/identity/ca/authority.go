package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/containerd/errdefs"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	backdate      = 5 * time.Minute // clocks of machines differ
	maxNames      = 100             // names and addresses in one certificate
)

// lifetimes of certificates. A holder renews at half of it, so an agent may be without a master for half a week.
var lifetimes = map[Role]time.Duration{
	Master: 24 * time.Hour,
	Agent:  7 * 24 * time.Hour,
	Admin:  time.Hour,
}

// Authority is the datacenter's own CA. It is safe for concurrent use.
type Authority struct {
	datacenter string
	cert       *x509.Certificate
	key        crypto.Signer
	pool       *x509.CertPool
}

// CertPEM returns the CA's certificate, which is public.
func (a *Authority) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Pool returns a pool with the CA's certificate alone.
func (a *Authority) Pool() *x509.CertPool { return a.pool }

// Datacenter returns the id that every certificate of this CA names.
func (a *Authority) Datacenter() string { return a.datacenter }

// IssueServer creates a key and a certificate with which a master serves under the DNS names and addresses. It is
// also valid as a client certificate to other masters.
func (a *Authority) IssueServer(id string, dns []string, ips []net.IP) (*tls.Certificate, error) {
	return a.issueCert(Subject{Datacenter: a.datacenter, Role: Master, ID: id}, dns, ips)
}

// IssueClient creates a key and a certificate for a client in one of the roles; for an agent the id is the agent's.
func (a *Authority) IssueClient(role Role, id string) (*tls.Certificate, error) {
	return a.issueCert(Subject{Datacenter: a.datacenter, Role: role, ID: id}, nil, nil)
}

// ServerSource returns a Source of IssueServer's certificates.
func (a *Authority) ServerSource(log *slog.Logger, id string, dns []string, ips []net.IP) *Source {
	return NewSource(log, func(context.Context) (*tls.Certificate, error) { return a.IssueServer(id, dns, ips) })
}

// ClientSource returns a Source of IssueClient's certificates.
func (a *Authority) ClientSource(log *slog.Logger, role Role, id string) *Source {
	return NewSource(log, func(context.Context) (*tls.Certificate, error) { return a.IssueClient(role, id) })
}

// Sign issues the client certificate, as DER, for the public key of a certificate request (DER). Names and extensions
// that the request asks for are not granted. The caller has checked that the requester may be the subject.
func (a *Authority) Sign(request []byte, role Role, id string) ([]byte, error) {
	if role == Master {
		return nil, fmt.Errorf("certificate request: a master's certificate is only made beside its key: %w",
			errdefs.ErrPermissionDenied)
	}
	csr, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := checkKeyStrength(csr.PublicKey); err != nil {
		return nil, err
	}
	return a.signCert(csr.PublicKey, Subject{Datacenter: a.datacenter, Role: role, ID: id}, nil, nil)
}

// Renew is Sign for the holder of a certificate, known from its connection: it gets the same subject again and no
// other.
func (a *Authority) Renew(cs tls.ConnectionState, request []byte) ([]byte, error) {
	s, err := Peer(cs, a.datacenter, Agent, Admin)
	if err != nil {
		return nil, err
	}
	return a.Sign(request, s.Role, s.ID)
}

func (a *Authority) issueCert(s Subject, dns []string, ips []net.IP) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate key: %w", err)
	}
	der, err := a.signCert(key.Public(), s, dns, ips)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func (a *Authority) signCert(pub crypto.PublicKey, s Subject, dns []string, ips []net.IP) ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	if len(dns)+len(ips) > maxNames {
		return nil, fmt.Errorf("certificate of %s: %d names, limit %d: %w",
			s.URI(), len(dns)+len(ips), maxNames, errdefs.ErrInvalidArgument)
	}
	now := time.Now()
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if s.Role == Master {
		usage = append(usage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(),
		Subject: pkix.Name{Organization: []string{s.Datacenter}, OrganizationalUnit: []string{string(s.Role)},
			CommonName: commonName(s.ID)},
		URIs:                  []*url.URL{s.URI()},
		DNSNames:              dns,
		IPAddresses:           ips,
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetimes[s.Role]),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usage,
		BasicConstraintsValid: true,
	}, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", s.URI(), err)
	}
	return der, nil
}

// newAuthority creates the key and the self-signed certificate of a new CA.
func newAuthority(datacenter string) (*Authority, error) {
	if !idPattern.MatchString(datacenter) {
		return nil, fmt.Errorf("datacenter id %q: use letters, digits, dot, dash, underscore: %w",
			datacenter, errdefs.ErrInvalidArgument)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{datacenter}, CommonName: "Marina CA"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	return loadAuthority(datacenter, der, key)
}

// loadAuthority returns the CA of a certificate and its key, which must match.
func loadAuthority(datacenter string, der []byte, key crypto.Signer) (*Authority, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w: %w", err, errdefs.ErrDataLoss)
	}
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || !pub.Equal(key.Public()) {
		return nil, fmt.Errorf("CA certificate and key do not belong together: %w", errdefs.ErrDataLoss)
	}
	if len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != datacenter {
		return nil, fmt.Errorf("CA certificate is of datacenter %v, this is %s: %w",
			cert.Subject.Organization, datacenter, errdefs.ErrFailedPrecondition)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &Authority{datacenter: datacenter, cert: cert, key: key, pool: pool}, nil
}

// serial returns a random serial number: 127 bits, positive.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// commonName cuts the id to the 64 characters that X.509 allows; the URI has the whole id.
func commonName(id string) string { return id[:min(len(id), 64)] }

// checkKeyStrength refuses public keys that are too weak to certify, or so large that verifying costs too much.
func checkKeyStrength(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 4096 {
			return nil
		}
	}
	return fmt.Errorf("certificate request: use an ECDSA P-256 or P-384 key, or RSA of 2048 to 4096 bits: %w",
		errdefs.ErrInvalidArgument)
}
