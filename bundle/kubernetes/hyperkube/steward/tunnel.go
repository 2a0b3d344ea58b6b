package steward

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	nodenetName  = "marina:nodenet:" // and the node's name: common name of what a tunnel shows
	dialWithin   = 10 * time.Second
	volumeWithin = 30 * time.Second // to make or empty a directory
)

// tunnel reaches into nodes. Each has a listener that takes the steward's certificate only; HTTP CONNECT there leads to
// addresses of pods and Services, and requests for /v1/volumes/NAME make and remove directories.
type tunnel struct {
	deps *Deps
	port int
}

func (t *tunnel) address(n *corev1.Node) string {
	return net.JoinHostPort(internalIP(n), strconv.Itoa(t.port))
}

// config is for one node: it alone may answer at its address.
func (t *tunnel) config(n *corev1.Node) (*tls.Config, error) {
	pool, err := t.deps.pool()
	if err != nil {
		return nil, err
	}
	own, err := tls.LoadX509KeyPair(t.deps.pki("steward.crt"), t.deps.pki("steward.key"))
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: internalIP(n),
		Certificates: []tls.Certificate{own}, NextProtos: []string{"http/1.1"},
		VerifyConnection: func(c tls.ConnectionState) error {
			if got, want := c.PeerCertificates[0].Subject.CommonName, nodenetName+n.Name; got != want {
				return fmt.Errorf("%s answers as %q, not %s", internalIP(n), got, want)
			}
			return nil
		}}, nil
}

// connect returns a connection to target, HOST:PORT, as the node has it.
func (t *tunnel) connect(ctx context.Context, n *corev1.Node, target string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	cfg, err := t.config(n)
	if err != nil {
		return nil, err
	}
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", t.address(n))
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	c, err := ask(conn, target)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return c, nil
}

// refusal is a tunnel's answer that it will not or cannot connect.
type refusal struct{ status string }

func (r *refusal) Error() string { return "the tunnel says " + r.status }

func ask(conn net.Conn, target string) (net.Conn, error) {
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(conn, 4<<10)
	res, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, maxSentence))
		return nil, &refusal{limit(res.Status + " " + string(text))}
	}
	if in.Buffered() == 0 {
		return conn, nil
	}
	return &ahead{Conn: conn, in: in}, nil
}

// ahead is a connection whose first bytes came with the answer to CONNECT.
type ahead struct {
	net.Conn
	in *bufio.Reader
}

func (a *ahead) Read(b []byte) (int, error) { return a.in.Read(b) }
func (a *ahead) CloseWrite() error          { return closeWrite(a.Conn) }

// makeVolume makes a directory on a node, and is content with one that is there.
func (t *tunnel) makeVolume(ctx context.Context, n *corev1.Node, name string) error {
	return t.volume(ctx, n, http.MethodPost, name)
}

// removeVolume removes one with all it holds, and is content if there is none.
func (t *tunnel) removeVolume(ctx context.Context, n *corev1.Node, name string) error {
	return t.volume(ctx, n, http.MethodDelete, name)
}

func (t *tunnel) volume(ctx context.Context, n *corev1.Node, method, name string) error {
	ctx, cancel := context.WithTimeout(ctx, volumeWithin)
	defer cancel()
	cfg, err := t.config(n)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+t.address(n)+"/v1/volumes/"+name, nil)
	if err != nil {
		return err
	}
	tr := &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true,
		DialContext: (&net.Dialer{Timeout: dialWithin}).DialContext}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxSentence))
	if res.StatusCode/100 == 2 || method == http.MethodDelete && res.StatusCode == http.StatusNotFound {
		return nil
	}
	return errors.New(limit(strings.TrimSpace(res.Status + " " + string(text))))
}
