package ca

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Role is the role that a certificate grants. It is part of the certificate: a certificate of this CA is not enough,
// it must be for the role.
type Role string

const (
	Master Role = "master" // serves the gateway and the agents, joins etcd
	Agent  Role = "agent"  // registers as the one agent its certificate names
	Admin  Role = "admin"  // operates the datacenter
)

// uriScheme is the scheme of subjects' URIs.
const uriScheme = "marina"

// idPattern matches ids that need no escape in a subject's URI.
var idPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}$`)

// Subject is the holder of a certificate. Its URI is marina://<datacenter>/<role>/<id>.
type Subject struct {
	Datacenter string
	Role       Role
	ID         string
}

// URI returns the form of the subject in certificates.
func (s Subject) URI() *url.URL {
	return &url.URL{Scheme: uriScheme, Host: s.Datacenter, Path: "/" + string(s.Role) + "/" + s.ID}
}

func (s Subject) validate() error {
	switch {
	case !slices.Contains([]Role{Master, Agent, Admin}, s.Role):
		return fmt.Errorf("certificate role %q: use master, agent or admin: %w", s.Role, errdefs.ErrInvalidArgument)
	case !idPattern.MatchString(s.Datacenter):
		return fmt.Errorf("certificate datacenter %q: use letters, digits, dot, dash, underscore: %w",
			s.Datacenter, errdefs.ErrInvalidArgument)
	case !idPattern.MatchString(s.ID):
		return fmt.Errorf("certificate id %q: use letters, digits, dot, dash, underscore: %w",
			s.ID, errdefs.ErrInvalidArgument)
	}
	return nil
}

// SubjectOf reads the subject of a certificate that was verified before. A certificate without exactly one URI of our
// form has none: ErrPermissionDenied.
func SubjectOf(cert *x509.Certificate) (Subject, error) {
	if len(cert.URIs) != 1 {
		return Subject{}, fmt.Errorf("certificate %q: %d URIs, want 1: %w",
			cert.Subject.CommonName, len(cert.URIs), errdefs.ErrPermissionDenied)
	}
	u := cert.URIs[0]
	role, id, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	s := Subject{Datacenter: u.Host, Role: Role(role), ID: id}
	if !ok || s.validate() != nil || u.String() != s.URI().String() {
		return Subject{}, fmt.Errorf("certificate URI %q is not marina://<datacenter>/<role>/<id>: %w",
			u, errdefs.ErrPermissionDenied)
	}
	return s, nil
}

// Peer returns the subject at the other end of a connection whose chain Go has verified, if it belongs to the
// datacenter and has one of the roles. Otherwise ErrPermissionDenied; ErrUnauthenticated without a certificate.
func Peer(cs tls.ConnectionState, datacenter string, roles ...Role) (Subject, error) {
	if len(cs.VerifiedChains) == 0 {
		return Subject{}, fmt.Errorf("peer: no verified certificate: %w", errdefs.ErrUnauthenticated)
	}
	s, err := SubjectOf(cs.VerifiedChains[0][0])
	if err != nil {
		return Subject{}, err
	}
	if s.Datacenter != datacenter || !slices.Contains(roles, s.Role) {
		return Subject{}, fmt.Errorf("peer %s: want role %v of datacenter %s: %w",
			s.URI(), roles, datacenter, errdefs.ErrPermissionDenied)
	}
	return s, nil
}

// RequirePeer returns a tls.Config.VerifyConnection that accepts only peers with one of the roles. It runs on resumed
// connections too.
func RequirePeer(datacenter string, roles ...Role) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		_, err := Peer(cs, datacenter, roles...)
		return err
	}
}

// ServerTLS returns the configuration of a listener for machines: peers must show a certificate of the CA for one of
// the roles. Without roles it asks for no certificate, as for people with tokens.
func ServerTLS(src *Source, pool *x509.CertPool, datacenter string, roles ...Role) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: src.GetCertificate}
	if len(roles) > 0 {
		c.MinVersion = tls.VersionTLS13 // both ends are ours
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.ClientCAs = pool
		c.VerifyConnection = RequirePeer(datacenter, roles...)
	}
	return c
}

// ClientTLS returns the configuration with which a machine with src's certificate dials a master: the master's
// certificate must be for the dialled name and for the role. A nil src shows no certificate.
func ClientTLS(src *Source, pool *x509.CertPool, datacenter string) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, VerifyConnection: RequirePeer(datacenter, Master)}
	if src != nil {
		c.GetClientCertificate = src.GetClientCertificate
	}
	return c
}

// Hosts sorts host names and addresses into the two kinds of names in a certificate.
func Hosts(hosts ...string) (dns []string, ips []net.IP) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			ips = append(ips, ip)
		} else if h != "" {
			dns = append(dns, h)
		}
	}
	return dns, ips
}
