package tunnel

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Client is the common name of the only client.
const Client = "marina:steward"

// identity is the node's certificate and the authority of its clients, as the files have them now.
type identity struct {
	ca, cert, key string // files

	mu    sync.Mutex
	stamp [3]fileStamp // guarded by mu
	conf  *tls.Config  // guarded by mu; never changed once handed out
}

type fileStamp struct {
	mod  time.Time
	size int64
	info os.FileInfo
}

func newIdentity(pki string) (*identity, error) {
	i := &identity{ca: filepath.Join(pki, "ca.crt"), cert: filepath.Join(pki, "nodenet.crt"), key: filepath.Join(pki, "nodenet.key")}
	_, err := i.config()
	return i, err
}

// config returns the configuration for the next handshake. Files that are being replaced and do not fit together yet
// leave the last good one in place.
func (i *identity) config() (*tls.Config, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	stamp, err := i.stamps()
	if err == nil && (i.conf == nil || !sameFiles(stamp, i.stamp)) {
		var conf *tls.Config
		if conf, err = i.load(); err == nil {
			i.conf, i.stamp = conf, stamp
		}
	}
	if i.conf != nil {
		return i.conf, nil
	}
	return nil, err
}

func (i *identity) stamps() (s [3]fileStamp, err error) {
	for n, file := range []string{i.ca, i.cert, i.key} {
		info, err := os.Stat(file)
		if err != nil {
			return s, err
		}
		s[n] = fileStamp{info.ModTime(), info.Size(), info}
	}
	return s, nil
}

func sameFiles(a, b [3]fileStamp) bool {
	for n := range a {
		if !a[n].mod.Equal(b[n].mod) || a[n].size != b[n].size || !os.SameFile(a[n].info, b[n].info) {
			return false
		}
	}
	return true
}

func (i *identity) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(i.cert, i.key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	pem, err := os.ReadFile(i.ca)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("authority %s: no certificate in it", i.ca)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		// A resumed session would skip what follows and outlive the certificate.
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || s.PeerCertificates[0].Subject.CommonName != Client {
				return fmt.Errorf("client certificate is not %s", Client)
			}
			return nil
		},
	}, nil
}
