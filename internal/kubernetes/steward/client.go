package steward

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kubernetes/pki"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// Bounds of talking to a steward.
const (
	pollTime   = 30 * time.Second // a steward answers at the latest then
	callLimit  = pollTime + 15*time.Second
	maxStatus  = 4 << 20
	pause      = 500 * time.Millisecond // after it did not answer
	clientLife = 24 * time.Hour
)

// client talks to one steward.
type client struct {
	base string
	http *http.Client
}

// newClient makes a client for the steward of a control plane at addr. Its certificate is made for it and kept nowhere.
func newClient(a *pki.Authorities, addr netip.Addr, dial Dialer, now time.Time) (*client, error) {
	l, err := a.Issue(pki.Identity{Name: "marina:datacenter"}, now, clientLife)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(l.Cert, l.Key)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.CA)
	t := &http.Transport{DialContext: dial,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
			RootCAs: pool, ServerName: "steward"},
		TLSHandshakeTimeout: 10 * time.Second, MaxConnsPerHost: 4, IdleConnTimeout: 2 * time.Minute, ForceAttemptHTTP2: true}
	base := "https://" + netip.AddrPortFrom(addr, wire.Port).String()
	return &client{base, &http.Client{Transport: t, Timeout: callLimit}}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// status waits until the steward has something else to say than rev.
func (c *client) status(ctx context.Context, rev string) (*wire.Status, error) {
	raw, err := c.call(ctx, http.MethodGet, "/v1/status?after="+url.QueryEscape(rev), nil)
	if err != nil {
		return nil, err
	}
	st := &wire.Status{}
	if err := json.Unmarshal(raw, st); err != nil {
		return nil, fmt.Errorf("steward's status: %w", err)
	}
	return st, nil
}

// desire tells the steward what is wanted.
func (c *client) desire(ctx context.Context, d *wire.Desired) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	_, err = c.call(ctx, http.MethodPut, "/v1/desired", raw)
	return err
}

func (c *client) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus+1))
	switch {
	case err != nil:
		return nil, err
	case len(raw) > maxStatus:
		return nil, fmt.Errorf("steward answers more than %d bytes: %w", maxStatus, errdefs.ErrOutOfRange)
	case resp.StatusCode/100 != 2:
		return nil, fmt.Errorf("steward answers %s: %.200s: %w", resp.Status, raw, errdefs.ErrUnavailable)
	}
	return raw, nil
}
