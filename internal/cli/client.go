package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/durable"
)

// maxAnswer bounds what is read of an API's answer.
const maxAnswer = 256 << 20

// account is what `marina login` saves, and what root gets from the admin socket.
type account struct {
	URL   string    `json:"url"`
	Token string    `json:"token"`
	CA    string    `json:"ca"` // PEM
	Until time.Time `json:"until,omitzero"`
}

// client speaks to one datacenter.
type client struct {
	account
	http *http.Client
}

func (v *invocation) client(ctx context.Context) (*client, error) {
	a, err := v.account(ctx)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if v.ca != "" {
		b, err := os.ReadFile(v.ca)
		if err != nil {
			return nil, usage("", "CA certificate: %v", err)
		}
		a.CA = string(b)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CA != "" {
		if !pool.AppendCertsFromPEM([]byte(a.CA)) {
			return nil, usage("", "the CA certificate is not PEM")
		}
		conf.RootCAs = pool
	}
	if a.Token != "" {
		if err := sealed(a.URL); err != nil {
			return nil, err
		}
	}
	t := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	return &client{account: a, http: &http.Client{Transport: t, CheckRedirect: followRedirect}}, nil
}

// sealed refuses an address to which a token would travel in clear: only https, and http to this machine itself, carry one.
func sealed(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return usage("--url https://HOST:8443", "%q is not the address of a datacenter: https://HOST:8443 is one", address)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "https" || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return usage("--url https://"+u.Host+", with --ca FILE if its certificate is not known here",
		"%s would get the token in clear, for everybody on the way to read: only https, or http to this machine, may carry one", address)
}

// maxRedirects is how many redirects of one request are followed.
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

// account finds whom to talk to: flags and environment, a saved login, the admin socket.
func (v *invocation) account(ctx context.Context) (account, error) {
	token := or(v.token, os.Getenv("MARINA_TOKEN"))
	saved, savedErr := loadAccount()
	if v.url != "" {
		a := account{URL: strings.TrimRight(v.url, "/"), Token: token}
		if savedErr == nil && saved.URL == a.URL {
			a.CA, a.Token = saved.CA, or(token, saved.Token)
		}
		return a, nil
	}
	local, err := v.local(ctx)
	if err == nil {
		local.Token = or(token, local.Token)
		return local, nil
	}
	if savedErr == nil {
		saved.Token = or(token, saved.Token)
		return saved, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return account{}, &Error{Code: ExitDenied, Message: "the datacenter on this machine gives its first token to root only",
			Next: "sudo marina token create, then marina login URL --token TOKEN"}
	}
	return account{}, &Error{Code: ExitUnreachable, Message: "no datacenter found: none runs on this machine and no login is saved",
		Next: "marina up, or marina login https://HOST:8443 --token TOKEN"}
}

// Socket is the admin socket of the datacenter whose state folder is given.
func Socket(state string) string { return filepath.Join(state, "run", "admin.sock") }

func socketClient(state string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", Socket(state))
	}}}
}

// localLimit bounds what the admin socket may take.
const localLimit = 10 * time.Second

// local asks the admin socket for the address and a token, which is kept beside the state for as long as it is good.
func (v *invocation) local(ctx context.Context) (account, error) {
	hc := socketClient(v.settings.State)
	cached := filepath.Join(v.settings.State, "run", "admin.token")
	ctx, cancel := context.WithTimeout(ctx, localLimit)
	defer cancel()
	var info struct {
		URL string `json:"url"`
		CA  string `json:"ca"`
	}
	if err := socketCall(ctx, hc, http.MethodGet, "/info", nil, &info); err != nil {
		return account{}, err
	}
	var a account
	if b, err := os.ReadFile(cached); err == nil && json.Unmarshal(b, &a) == nil && time.Until(a.Until) > time.Minute && a.CA == info.CA {
		a.URL = info.URL // it may listen elsewhere now
		return a, nil
	}
	var tok struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires"`
	}
	ask := map[string]any{"description": "marina command on the machine", "ttlSeconds": int((12 * time.Hour).Seconds())}
	if err := socketCall(ctx, hc, http.MethodPost, "/token", ask, &tok); err != nil {
		return account{}, err
	}
	a = account{URL: info.URL, CA: info.CA, Token: tok.Token, Until: tok.Expires}
	return a, saveAs(cached, a)
}

func socketCall(ctx context.Context, hc *http.Client, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return answerError(resp.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// accountFile is where `marina login` saves an account: in the user's own folder and nowhere else, since whoever could write it
// would choose which datacenter and which CA later commands trust.
func accountFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", &Error{Code: ExitFailed, Message: fmt.Sprintf("there is no folder of yours to keep a login in: %v", err),
			Next: "set HOME, or give MARINA_URL, MARINA_TOKEN and MARINA_CA to every command"}
	}
	return filepath.Join(dir, "marina", "login.json"), nil
}

func loadAccount() (a account, err error) {
	file, err := accountFile()
	if err != nil {
		return a, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(b, &a)
}

// saveAs writes an account so that only its owner can read it.
func saveAs(file string, a account) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return writeFile(file, b)
}

// writeFile writes a whole file or nothing of it, for its owner only.
func writeFile(file string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(file, b, 0o600)
}

// request sends one request and returns the answer, whatever its status.
func (c *client) request(ctx context.Context, method, path string, body io.Reader, kind string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, body)
	if err != nil {
		return nil, usage("", "%v", err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("Accept", "application/json")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if refused, ok := errors.AsType[*Error](err); ok { // by followRedirect
			return nil, refused
		}
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			return nil, &Error{Code: ExitDenied, Message: c.URL + " shows a certificate of a CA that is not trusted here",
				Next: "--ca FILE with the datacenter's CA certificate (marina token ca prints it on its machine)"}
		}
		return nil, &Error{Code: ExitUnreachable, Message: fmt.Sprintf("%s does not answer: %v", c.URL, rootCause(err)),
			Next: "marina up on its machine, or another --url"}
	}
	return resp, nil
}

// read asks for a stream; an answer that is none is an error. The caller closes the body.
func (c *client) read(ctx context.Context, path string) (*http.Response, error) {
	resp, err := c.request(ctx, http.MethodGet, path, nil, "")
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return nil, answerError(resp.StatusCode, b)
	}
	return resp, nil
}

// call sends a request and returns the body of a good answer; other answers are errors.
func (c *client) call(ctx context.Context, method, path string, in any) ([]byte, error) {
	_, b, err := c.send(ctx, method, path, in)
	return b, err
}

// send is call and tells a good answer's status too.
func (c *client) send(ctx context.Context, method, path string, in any) (status int, answer []byte, err error) {
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
	resp, err := c.request(ctx, method, path, body, "application/json")
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", path, err)
	}
	if resp.StatusCode/100 != 2 {
		return 0, nil, answerError(resp.StatusCode, b)
	}
	return resp.StatusCode, b, nil
}

func (c *client) get(ctx context.Context, path string, out any) ([]byte, error) {
	b, err := c.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("%s: the answer is not what this version expects: %w", path, err)
	}
	return b, nil
}

// answerError turns an API's error body into one sentence and an exit code.
func answerError(status int, body []byte) error {
	var m struct {
		Message     string          `json:"message"`
		Description string          `json:"description"`
		Details     json.RawMessage `json:"details"`
		Deployments []struct {
			ID string `json:"id"`
		} `json:"deployments"`
	}
	e := &Error{Code: ExitFailed, Message: fmt.Sprintf("the datacenter answered %d", status)}
	if json.Unmarshal(body, &m) == nil {
		e.Message = or(or(m.Message, m.Description), e.Message) + details(m.Details)
	}
	switch status {
	case http.StatusNotFound:
		e.Code = ExitNotFound
	case http.StatusConflict:
		e.Code = ExitConflict
		if len(m.Deployments) > 0 {
			e.Next = "marina deployment follow " + m.Deployments[0].ID + ", or --force"
		}
	case http.StatusUnauthorized:
		e.Code, e.Next = ExitDenied, "marina login URL --token TOKEN"
	case http.StatusForbidden:
		e.Code = ExitDenied
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		e.Code, e.Next = ExitUnreachable, "again in a moment; marina status tells what is not well"
	}
	return e
}

// details writes Marathon's list of paths and errors: ": /cpus: error.min".
func details(raw json.RawMessage) string {
	var list []struct {
		Path   string   `json:"path"`
		Errors []string `json:"errors"`
	}
	var text string
	if json.Unmarshal(raw, &text) == nil && text != "" {
		return ": " + text
	}
	if json.Unmarshal(raw, &list) != nil {
		return ""
	}
	var b strings.Builder
	for _, d := range list {
		fmt.Fprintf(&b, "\n  %s: %s", d.Path, strings.Join(d.Errors, "; "))
	}
	return b.String()
}

func rootCause(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
