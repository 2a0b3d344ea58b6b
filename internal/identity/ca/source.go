package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
)

const (
	renewTimeout = 5 * time.Second // longest a handshake waits for a new certificate
	renewRetry   = time.Minute     // after a failed renewal, while the old certificate is valid
)

// Source has a certificate and renews it when a handshake needs one and half of its life is over. One handshake
// renews, the others go on with the old certificate; while that is valid, a failed renewal is logged and tried again
// a minute later.
type Source struct {
	issue func(context.Context) (*tls.Certificate, error)
	log   *slog.Logger

	cert atomic.Pointer[tls.Certificate]

	mu   sync.Mutex
	next time.Time // no renewal before; guarded by mu
}

// NewSource returns a Source that gets its certificates from issue, which must set Leaf. Nothing is issued
// before the first handshake.
func NewSource(log *slog.Logger, issue func(context.Context) (*tls.Certificate, error)) *Source {
	return &Source{issue: issue, log: log}
}

// GetCertificate is for tls.Config of a server.
func (s *Source) GetCertificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.Certificate(h.Context())
}

// GetClientCertificate is for tls.Config of a client.
func (s *Source) GetClientCertificate(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return s.Certificate(r.Context())
}

// Certificate returns a certificate that is valid now; a new one when half of the last one's life is over.
func (s *Source) Certificate(ctx context.Context) (*tls.Certificate, error) {
	cert := s.cert.Load()
	if cert != nil && !renewalDue(cert.Leaf, time.Now()) {
		return cert, nil
	}
	usable := cert != nil && time.Now().Before(cert.Leaf.NotAfter)
	if usable {
		if !s.mu.TryLock() {
			return cert, nil
		}
	} else {
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if now := s.cert.Load(); now != cert { // somebody renewed while this one waited
		return now, nil
	}
	if usable && time.Now().Before(s.next) {
		return cert, nil
	}
	fresh, err := s.renew(ctx)
	if err == nil {
		s.cert.Store(fresh)
		return fresh, nil
	}
	if !usable {
		return nil, err
	}
	s.next = time.Now().Add(renewRetry)
	s.log.Warn("certificate not renewed", "until", cert.Leaf.NotAfter, "err", err)
	return cert, nil
}

func (s *Source) renew(ctx context.Context) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	cert, err := s.issue(ctx)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if cert.Leaf == nil || !time.Now().Before(cert.Leaf.NotAfter) {
		return nil, fmt.Errorf("certificate: issued without a leaf or expired: %w", errdefs.ErrInternal)
	}
	return cert, nil
}

// renewalDue reports whether half of the certificate's life is over.
func renewalDue(leaf *x509.Certificate, now time.Time) bool {
	return now.After(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2))
}
