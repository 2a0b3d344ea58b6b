package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/marinaos/marina/internal/cli/exit"
)

// MaxAnswer bounds what is read of an API's answer.
const MaxAnswer = 256 << 20

// Client speaks to one datacenter.
type Client struct {
	Account
	http *http.Client
}

// Client finds a datacenter and makes a client of it. Nothing is sent to it yet.
func (o *Options) Client(ctx context.Context) (*Client, error) {
	a, err := o.account(ctx)
	if err != nil {
		return nil, err
	}
	if o.CA != "" {
		b, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, exit.Usage("", "CA certificate: %v", err)
		}
		a.CA = string(b)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CA != "" {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(a.CA)) {
			return nil, exit.Usage("", "the CA certificate is not PEM")
		}
	}
	if a.Token != "" {
		if err := sealed(a.URL); err != nil {
			return nil, err
		}
	}
	t := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	return &Client{Account: a, http: &http.Client{Transport: t, CheckRedirect: followRedirect}}, nil
}

// sealed refuses an address to which a token would travel in clear: only https, and http to this machine itself, carry
// one.
func sealed(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return exit.Usage("--url https://HOST:8443", "%q is not the address of a datacenter: https://HOST:8443 is one",
			address)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "https" || u.Hostname() == "localhost" ||
		ip != nil && ip.IsLoopback() {
		return nil
	}
	return exit.Usage("--url https://"+u.Host+", with --ca FILE if its certificate is not known here",
		"%s would get the token in clear, for everybody on the way to read: only https, or http to this machine, may "+
			"carry one", address)
}

// maxRedirects bounds the redirects of one request.
const maxRedirects = 10

// followRedirect follows a redirect unless that would send the token in clear.
func followRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("it redirects more than %d times", maxRedirects)
	}
	if req.Header.Get("Authorization") == "" {
		return nil
	}
	return sealed(req.URL.String())
}

// Get reads a JSON answer into out and returns it as it came too.
func (c *Client) Get(ctx context.Context, path string, out any) ([]byte, error) {
	b, err := c.Call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("%s: the answer is not what this version expects: %w", path, err)
	}
	return b, nil
}

// Call sends a request and returns the body of a good answer; other answers are errors. A body that is no []byte is
// sent as JSON.
func (c *Client) Call(ctx context.Context, method, path string, in any) ([]byte, error) {
	_, b, err := c.Send(ctx, method, path, in)
	return b, err
}

// Send is Call and tells a good answer's status too.
func (c *Client) Send(ctx context.Context, method, path string, in any) (status int, answer []byte, err error) {
	var body io.Reader
	switch in := in.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(in)
	default:
		b, err := json.Marshal(in)
		if err != nil {
			return 0, nil, err
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.Request(ctx, method, path, body, "application/json")
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", path, err)
	}
	if resp.StatusCode/100 != 2 {
		return 0, nil, AnswerError(resp.StatusCode, b)
	}
	return resp.StatusCode, b, nil
}

// Read asks for a stream; an answer that is none is an error. The caller closes the body.
func (c *Client) Read(ctx context.Context, path string) (*http.Response, error) {
	resp, err := c.Request(ctx, http.MethodGet, path, nil, "")
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, Refused(resp)
	}
	return resp, nil
}

// Request sends one request and returns the answer, whatever its status. kind is the body's media type.
func (c *Client) Request(ctx context.Context, method, path string, body io.Reader,
	kind string) (*http.Response, error) {
	req, err := c.newRequest(ctx, method, path, body, "application/json")
	if err != nil {
		return nil, exit.Usage("", "%v", err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	return resp, nil
}

func (c *Client) newRequest(ctx context.Context, method, path string, body io.Reader,
	accept string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	return req, nil
}

// unreached says why a request got no answer.
func (c *Client) unreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if refused, ok := errors.AsType[*exit.Error](err); ok { // by followRedirect
		return refused
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return &exit.Error{Code: exit.Denied, Message: c.URL + " shows a certificate of a CA that is not trusted here",
			Next: "--ca FILE with the datacenter's CA certificate (marina token ca prints it on its machine)"}
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return &exit.Error{Code: exit.Unreachable, Message: fmt.Sprintf("%s does not answer: %v", c.URL, err),
		Next: "marina up on its machine, or another --url"}
}
