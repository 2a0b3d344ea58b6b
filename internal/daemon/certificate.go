package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/durable"
)

// datacenter names the datacenter and its CA's certificate, for everybody on the machine.
type datacenter struct {
	ID string `json:"id"`
	CA string `json:"ca"` // PEM
}

func (c *config) datacenterFile() string { return c.path("datacenter.json") }

func (c *config) writeDatacenter(id string, ca []byte) error {
	b, err := json.Marshal(datacenter{ID: id, CA: string(ca)})
	if err != nil {
		return err
	}
	return replaceFile(c.datacenterFile(), b, 0o644)
}

func (c *config) readDatacenter() (id string, pool *x509.CertPool, err error) {
	b, err := os.ReadFile(c.datacenterFile())
	if err != nil {
		return "", nil, fmt.Errorf("no datacenter was started in %s: %w", c.State, errdefs.ErrNotFound)
	}
	var d datacenter
	pool = x509.NewCertPool()
	if err := json.Unmarshal(b, &d); err != nil || !pool.AppendCertsFromPEM([]byte(d.CA)) {
		return "", nil, fmt.Errorf("%s is damaged: `marina up` writes it anew: %w", c.datacenterFile(), errdefs.ErrDataLoss)
	}
	return d.ID, pool, nil
}

// agentID names this machine's agent for as long as the state directory lives. Daemon and agent may ask first at the
// same time: both get the same. A name that cannot be read is an error, never another name: what runs here would be
// nobody's.
func (c *config) agentID() (string, error) {
	file := c.path("agent.id")
	for {
		b, err := os.ReadFile(file)
		if err == nil {
			id := strings.TrimSpace(string(b))
			if id == "" {
				err = fmt.Errorf("%s is empty: write the agent's name back, `marina machine list` tells it: %w",
					file, errdefs.ErrDataLoss)
			}
			return id, err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("agent's name: %w", err)
		}
		id := strings.ToLower("m-" + rand.Text()[:12])
		if err := createFile(file, []byte(id+"\n")); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("agent's name: %w", err)
		}
	}
}

// createFile writes a whole file that must not be there yet, for its owner only.
func createFile(name string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := durable.Create(name, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.CommitNew()
}

// replaceFile writes a whole file or nothing of it.
// One that is so already is left alone: a full disk stops no start.
func replaceFile(name string, b []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(name, b, mode)
}

// maxAnswer bounds what the admin socket answers.
const maxAnswer = 1 << 20

// askCertificate makes a key that never leaves this process and has the daemon on this machine certify it.
func (c *config) askCertificate(ctx context.Context) (*tls.Certificate, error) {
	id, err := c.agentID()
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("agent key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("agent certificate: %w", err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.socket())
	}
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin/agent/certificate?id="+id,
		bytes.NewReader(csr))
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, fmt.Errorf("agent certificate: the daemon on this machine does not answer: %w", errdefs.ErrUnavailable)
	}
	defer resp.Body.Close()
	der, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("agent certificate: the daemon answered %s: %.200s: %w", resp.Status, der,
			errdefs.ErrUnavailable)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("agent certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
