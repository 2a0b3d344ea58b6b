package kubernetes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/pki"
)

// Status is what a steward tells of its cluster, see bundle/kubernetes/hyper/steward.
type Status struct {
	Rev     string `json:"rev"`
	Version string `json:"version"`
	Ready   bool   `json:"ready"`
	Addons  struct {
		Applied bool   `json:"applied"`
		Error   string `json:"error"`
	} `json:"addons"`
	DNS           bool             `json:"dns"`
	Nodes         []NodeStatus     `json:"nodes"`
	Pods          Pods             `json:"pods"`
	Probe         ProbeStatus      `json:"probe"`
	LoadBalancers []BalancerStatus `json:"loadBalancers"`
	Waiting       []string         `json:"waiting"`
	Desired       string           `json:"desired"` // Desired.Rev of what it works by
}

// NodeStatus is a node as the cluster's API has it.
type NodeStatus struct {
	Name    string `json:"name"`
	Ready   bool   `json:"ready"`
	Message string `json:"message"`
	Version string `json:"version"`
	Pods    int    `json:"pods"`

	MilliCPU int64 `json:"milliCPU"` // that it tells its pods; 0: unknown
	Mem      int64 `json:"mem"`      // bytes that it tells; 0: unknown
}

// tells reports whether a node tells a size, which it does in whole KiB; one that does not say counts.
func (n *NodeStatus) tells(s kernel.Size) bool {
	return (n.MilliCPU == 0 || n.MilliCPU == s.Guarantee.MilliCPU) && (n.Mem == 0 || n.Mem>>10 == s.Limit.Mem>>10)
}

// ProbeStatus is how the first pod fares, by which a new cluster shows that it works.
type ProbeStatus struct {
	Done    bool   `json:"done"`
	Message string `json:"message"`
}

// BalancerStatus is a Service of type LoadBalancer.
type BalancerStatus struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Ports     []struct {
		Name     string `json:"name"`
		Protocol string `json:"protocol"` // "TCP", "UDP"
		Port     uint16 `json:"port"`
		NodePort uint16 `json:"nodePort"`
	} `json:"ports"`
}

// Desired is what a steward is told.
type Desired struct {
	Rev           string            `json:"rev"`   // names the rest; the steward repeats it in Status.Desired
	Nodes         []string          `json:"nodes"` // Node objects of other names are drained and deleted
	LoadBalancers []DesiredBalancer `json:"loadBalancers"`
}

// DesiredBalancer is where a Service of type LoadBalancer is reached.
type DesiredBalancer struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Ingress   []string          `json:"ingress"`             // addresses
	Published map[string]string `json:"published,omitempty"` // by its port: "192.0.2.1:20001"
}

// revision names the content.
func (d *Desired) revision() string {
	plain := *d
	plain.Rev = ""
	raw, err := json.Marshal(plain)
	if err != nil {
		panic(err) // this cannot be: plain data
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// Bounds of talking to a steward.
const (
	pollTime     = 30 * time.Second // a steward answers at the latest then
	callLimit    = pollTime + 15*time.Second
	maxStatus    = 4 << 20
	stewardPause = 500 * time.Millisecond // after it did not answer
	clientLife   = 24 * time.Hour
)

// stewardClient talks to one steward.
type stewardClient struct {
	base string
	http *http.Client
}

// newSteward makes a client for the steward of a control plane at addr. Its certificate is made for it and kept nowhere.
func newSteward(a *pki.Authorities, addr netip.Addr, dial dialer, now time.Time) (*stewardClient, error) {
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
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "steward"},
		TLSHandshakeTimeout: 10 * time.Second, MaxConnsPerHost: 4, IdleConnTimeout: 2 * time.Minute, ForceAttemptHTTP2: true}
	return &stewardClient{"https://" + netip.AddrPortFrom(addr, stewardPort).String(), &http.Client{Transport: t, Timeout: callLimit}}, nil
}

func (s *stewardClient) close() { s.http.CloseIdleConnections() }

// status waits until the steward has something else to say than rev.
func (s *stewardClient) status(ctx context.Context, rev string) (*Status, error) {
	raw, err := s.call(ctx, http.MethodGet, "/v1/status?after="+url.QueryEscape(rev), nil)
	if err != nil {
		return nil, err
	}
	st := &Status{}
	if err := json.Unmarshal(raw, st); err != nil {
		return nil, fmt.Errorf("steward's status: %w", err)
	}
	return st, nil
}

// desire tells the steward what is wanted.
func (s *stewardClient) desire(ctx context.Context, d *Desired) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	_, err = s.call(ctx, http.MethodPut, "/v1/desired", raw)
	return err
}

func (s *stewardClient) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
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
