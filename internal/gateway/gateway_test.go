package gateway

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/identity/ca"
	"github.com/marinaos/marina/internal/store/memory"
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// testGateway is a gateway with its datacenter, on loopback.
type testGateway struct {
	*Gateway
	dir   *identity.Directory
	ca    *ca.Authority
	store *memory.Store
	root  *identity.RootKey
	token string // of root
}

// runGateway runs a gateway until the test ends.
func runGateway(t testing.TB, cfg Config, deps Deps) *testGateway {
	t.Helper()
	raw := make([]byte, 32)
	rand.Read(raw)
	d := &testGateway{store: memory.New(), root: must(identity.NewRootKey(raw))(t)}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	d.ca = must(ca.Open(t.Context(), d.store, d.root, "dc-1"))(t)
	d.dir = must(identity.Open(t.Context(), identity.Config{Datacenter: "dc-1"}, d.store, d.root, log))(t)
	_, ips := ca.Hosts("127.0.0.1")
	cfg.HTTPS, cfg.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	cfg.TLS = ca.ServerTLS(d.ca.ServerSource(log, "m1", nil, ips), nil, "dc-1")
	deps.Identity, deps.Log = d.dir, log
	deps.Info = Info{Datacenter: "dc-1", PublicIPv4: "192.0.2.1", Version: "0.1", CA: d.ca.CertPEM()}
	for i := range deps.Routes {
		deps.Routes[i].Asks = deps.Routes[i].Needs == ""
	}
	d.Gateway = must(New(cfg, deps))(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.dir.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("identity: %v", err)
		}
	})
	wg.Go(func() {
		if err := d.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("gateway: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	select {
	case <-d.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("gateway does not listen")
	}
	d.token = d.issue(t).Secret
	return d
}

func (d *testGateway) issue(t testing.TB) identity.Issued {
	t.Helper()
	return must(d.dir.IssueRoot(t.Context(), 0, "test"))(t)
}

func (d *testGateway) url(path string) string { return "https://" + d.https.String() + path }

// client follows no redirects; proto is "h1" or "h2".
func (d *testGateway) client(t testing.TB, proto string) *http.Client {
	c := &tls.Config{RootCAs: d.ca.Pool(), NextProtos: []string{"h2"}}
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: proto == "h2", DisableCompression: true}
	if proto == "h1" {
		c.NextProtos = []string{"http/1.1"}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

func header(kv ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(kv); i += 2 {
		h.Add(kv[i], kv[i+1])
	}
	return h
}

// do sends a request and reads the whole answer.
func do(t testing.TB, c *http.Client, method, url, body string, h http.Header) (*http.Response, string) {
	t.Helper()
	r := must(http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body)))(t)
	if h != nil {
		r.Header = h
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	raw := must(io.ReadAll(resp.Body))(t)
	return resp, string(raw)
}

func (d *testGateway) authorized() http.Header { return header("Authorization", "token="+d.token) }

// echo answers with the request it got.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	p := identity.FromContext(r.Context())
	uid := ""
	if p != nil {
		uid = p.UID
	}
	body, err := io.ReadAll(r.Body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	} else if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%s %s %s uid=%s body=%s", r.Method, r.URL.EscapedPath(), r.RequestURI, uid, body)
})

func TestEverythingNeedsAGoodTokenButTheAllowList(t *testing.T) {
	allowed := map[string]bool{ // a change here is a decision
		"/":                                true,
		"/system/health/v1/live":           true,
		"/acs/api/v1/auth":                 true,
		"/ca/marina-ca.crt":                true,
		"/ca/dcos-ca.crt":                  true,
		"/dcos-metadata/dcos-version.json": true,
	}
	d := runGateway(t, Config{}, Deps{
		Routes: []Route{{Prefix: "/v2", Handler: echo}, {Prefix: "/service/marathon",
			Handler: echo, Strip: true, Streaming: true}, {Prefix: "/marathon/", Handler: echo, Strip: true}},
		Services: services{}, Health: report{},
	})
	_, key, err := identity.KeyPair(t.Context(), d.store, d.root, "token", nil)
	if err != nil {
		t.Fatal(err)
	}
	revoked := d.issue(t)
	if err := d.dir.Revoke(t.Context(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	parsed, _, err := jwt.NewParser().ParseUnverified(d.token, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(edit func(jwt.MapClaims), by any) string {
		c := jwt.MapClaims{}
		for k, v := range parsed.Claims.(jwt.MapClaims) {
			c[k] = v
		}
		edit(c)
		tok := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
		tok.Header["kid"] = parsed.Header["kid"]
		return must(tok.SignedString(by))(t)
	}
	foreign := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	headers := map[string]http.Header{
		"none":    nil,
		"revoked": header("Authorization", "token="+revoked.Secret),
		"expired": header("Authorization", "token="+
			sign(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Hour).Unix() }, key)),
		"never issued":  header("Authorization", "Bearer "+sign(func(c jwt.MapClaims) { c["jti"] = "made-up" }, key)),
		"another uid":   header("Authorization", "Bearer "+sign(func(c jwt.MapClaims) { c["uid"] = "ann" }, key)),
		"another key":   header("Authorization", "token="+sign(func(jwt.MapClaims) {}, foreign)),
		"garbage":       header("Authorization", "token=garbage"),
		"basic":         header("Authorization", "Basic cm9vdDpyb290"),
		"forged origin": header("X-Forwarded-User", "root", "X-Marina-User", "root"),
		"bad cookie":    header("Cookie", identity.AuthCookie+"="+revoked.Secret),
		"shadowed":      header("Authorization", "Basic x", "Cookie", identity.AuthCookie+"="+d.token),
		"twice":         header("Authorization", "token="+d.token, "Authorization", "token="+d.token),
	}
	paths := []string{"/nothing/here", "/pkgpanda/active.buildinfo.full.json", "/acs/api/v1/authx",
		"/acs/api/v1/%61uth/login", "/ca/marina-ca.crt/x", "/system/health/v1/live/x"}
	for _, rt := range d.routes {
		paths = append(paths, rt.Prefix+"/", rt.Prefix)
		if !rt.Exact {
			paths = append(paths, rt.Prefix+"/users")
		}
	}
	c := d.client(t, "h2")
	tried := 0
	for _, path := range paths {
		if path == "" {
			continue
		}
		rt, _ := d.routes.findRoute(path)
		isOpen := rt != nil && allowed[max(rt.Prefix, "/")] && rt.Open
		if rt != nil && rt.Open && !allowed[max(rt.Prefix, "/")] {
			t.Errorf("route %s is open and not on the list", rt.Prefix)
		}
		for name, h := range headers {
			for _, method := range []string{"GET", "POST", "DELETE"} {
				tried++
				resp, body := do(t, c, method, d.url(path), "{}", h)
				if isOpen {
					if resp.StatusCode == 401 && resp.Header.Get("WWW-Authenticate") != "" {
						t.Errorf("%s %s is open, with %s: %d", method, path, name, resp.StatusCode)
					}
					continue
				}
				if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") != "acsjwt" ||
					!strings.Contains(body, "marina token") {
					t.Errorf("%s %s with %s: %d %s, want 401", method, path, name, resp.StatusCode, body)
				}
			}
		}
		if resp, body := do(t, c, "GET", d.url(path), "", d.authorized()); resp.StatusCode == 401 {
			t.Errorf("GET %s with a good token: 401 %s", path, body)
		}
	}
	t.Logf("%d requests on %d paths", tried, len(paths))
}

func TestUnauthorizedIsAPageOnlyForBrowsers(t *testing.T) {
	d := runGateway(t, Config{}, Deps{})
	c := d.client(t, "h1")
	resp, body := do(t, c, "GET", d.url("/x"), "", header("Accept", "text/html,application/xhtml+xml"))
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || !strings.Contains(body, "<p>") ||
		resp.StatusCode != 401 {
		t.Errorf("browser: %d %s %s", resp.StatusCode, resp.Header.Get("Content-Type"), body)
	}
	resp, body = do(t, c, "GET", d.url("/x"), "", nil)
	var answer struct{ Message string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Message == "" ||
		resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("program: %s %s, %v", resp.Header.Get("Content-Type"), body, err)
	}
	if resp, _ := do(t, c, "HEAD", d.url("/pkgpanda/active.buildinfo.full.json"), "", nil); resp.StatusCode != 401 ||
		resp.Header.Get("WWW-Authenticate") != "acsjwt" {
		t.Errorf("the CLI's probe: %d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := do(t, c, "HEAD", d.url("/"), "", nil); resp.StatusCode != 200 {
		t.Errorf("HEAD /: %d, want 200", resp.StatusCode)
	}
}

func TestPathsReachHandlersCollapsedAndUnredirected(t *testing.T) {
	d := runGateway(t, Config{}, Deps{Routes: []Route{{Prefix: "/v2", Handler: echo},
		{Prefix: "/service/marathon", Handler: echo, Strip: true}}})
	for _, proto := range []string{"h1", "h2"} {
		c := d.client(t, proto)
		for path, want := range map[string]string{
			"/v2/apps":                               "/v2/apps /v2/apps",
			"/v2//apps///a?x=//":                     "/v2/apps/a /v2/apps/a?x=//",
			"/service////marathon///v2/apps//foo/":   "/v2/apps/foo/ /v2/apps/foo/",
			"/service/marathon":                      "/ /",
			"/service/marathon/":                     "/ /",
			"/service/marathon/v2/a%20b%252Fc?q=%20": "/v2/a%20b%252Fc /v2/a%20b%252Fc?q=%20",
		} {
			resp, body := do(t, c, "PUT", d.url(path), "hello", d.authorized())
			if want := "PUT " + want + " uid=root body=hello"; resp.StatusCode != 200 || body != want {
				t.Errorf("%s PUT %s: %d %q, want %q", proto, path, resp.StatusCode, body, want)
			}
		}
		for _, path := range []string{"/v2/../acs", "/v2/%2e%2e/acs", "/v2/a%2fb", "/v2/a%5Cb", "/v2/..;/x", "/v2/%00"} {
			r := must(http.NewRequest("GET", d.url("/"), nil))(t)
			r.URL.Opaque = path
			r.Header = d.authorized()
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 400 {
				t.Errorf("%s %s: %d, want 400", proto, path, resp.StatusCode)
			}
		}
	}
}

func TestPanicStaysInItsRequest(t *testing.T) {
	d := runGateway(t, Config{}, Deps{Routes: []Route{
		{Prefix: "/echo", Handler: echo},
		{Prefix: "/early", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("planted early") })},
		{Prefix: "/late", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "half an answer")
			http.NewResponseController(w).Flush()
			panic("planted late")
		})},
	}})
	for _, proto := range []string{"h1", "h2"} {
		c := d.client(t, proto)
		resp, body := do(t, c, "GET", d.url("/early"), "", d.authorized())
		if resp.StatusCode != 500 || strings.Contains(body, "planted") || !strings.Contains(body, "message") {
			t.Errorf("%s early: %d %s, want a 500 that tells nothing of the inside", proto, resp.StatusCode, body)
		}
		r := must(http.NewRequest("GET", d.url("/late"), nil))(t)
		r.Header = d.authorized()
		if resp, err := c.Do(r); err == nil {
			raw, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil {
				t.Errorf("%s late: read %q to its end, want a broken answer", proto, raw)
			}
		}
		if resp, _ := do(t, c, "GET", d.url("/echo"), "", d.authorized()); resp.StatusCode != 200 {
			t.Errorf("%s after panics: %d, want 200", proto, resp.StatusCode)
		}
	}
	if got := d.requests.Load(); got != 0 {
		t.Errorf("%d requests are still counted", got)
	}
}

func TestFullGatewayRefusesAndRecovers(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	block := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside <- struct{}{}; <-release })
	d := runGateway(t, Config{MaxRequests: 2, MaxStreams: 1}, Deps{Routes: []Route{{Prefix: "/block", Handler: block},
		{Prefix: "/stream", Handler: block, Streaming: true}, {Prefix: "/echo", Handler: echo}}})
	c := d.client(t, "h2")
	var wg sync.WaitGroup
	for _, path := range []string{"/block", "/block", "/stream"} {
		wg.Go(func() { do(t, c, "GET", d.url(path), "", d.authorized()) })
		<-inside
	}
	for _, path := range []string{"/echo", "/stream"} {
		resp, body := do(t, c, "GET", d.url(path), "", d.authorized())
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "try again") {
			t.Errorf("%s in a full gateway: %d %s, want 503", path, resp.StatusCode, body)
		}
	}
	if resp, _ := do(t, c, "GET", d.url("/system/health/v1/live"), "", nil); resp.StatusCode != 200 {
		t.Errorf("liveness of a full gateway: %d, want 200", resp.StatusCode)
	}
	close(release)
	wg.Wait()
	if resp, _ := do(t, c, "GET", d.url("/echo"), "", d.authorized()); resp.StatusCode != 200 {
		t.Errorf("afterwards: %d, want 200", resp.StatusCode)
	}
}

func TestBodiesHaveTheLimitOfTheirRoute(t *testing.T) {
	d := runGateway(t, Config{BodyLimit: 100}, Deps{Routes: []Route{
		{Prefix: "/small", Handler: echo}, {Prefix: "/large", Handler: echo, BodyLimit: 1000},
		{Prefix: "/any", Handler: echo, BodyLimit: -1},
	}})
	c := d.client(t, "h1")
	for _, tc := range []struct {
		path string
		size int
		want int
	}{{"/small", 100, 200}, {"/small", 101, 413}, {"/large", 1000, 200}, {"/large", 1001, 413}, {"/any", 1 << 20, 200}} {
		for _, chunked := range []bool{false, true} {
			var body io.Reader = strings.NewReader(strings.Repeat("x", tc.size))
			if chunked {
				body = io.MultiReader(body) // hides the length
			}
			r := must(http.NewRequest("POST", d.url(tc.path), body))(t)
			r.Header = d.authorized()
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tc.want {
				t.Errorf("%s %d bytes, chunked %v: %d, want %d", tc.path, tc.size, chunked, resp.StatusCode, tc.want)
			}
		}
	}
}

func TestCookieNeedsTheSameOrigin(t *testing.T) {
	d := runGateway(t, Config{}, Deps{Routes: []Route{{Prefix: "/v2", Handler: echo}}})
	c := d.client(t, "h1")
	cookie := identity.AuthCookie + "=" + d.token
	for name, tc := range map[string]struct {
		method string
		h      http.Header
		want   int
	}{
		"no origin":                {"POST", header("Cookie", cookie), 200},
		"same origin":              {"POST", header("Cookie", cookie, "Sec-Fetch-Site", "same-origin"), 200},
		"same origin, old browser": {"POST", header("Cookie", cookie, "Origin", "https://"+d.https.String()), 200},
		"cross site":               {"POST", header("Cookie", cookie, "Sec-Fetch-Site", "cross-site"), 403},
		"same site":                {"DELETE", header("Cookie", cookie, "Sec-Fetch-Site", "same-site"), 403},
		"cross origin":             {"PUT", header("Cookie", cookie, "Origin", "https://evil.example"), 403},
		"null origin":              {"POST", header("Cookie", cookie, "Origin", "null"), 403},
		"cross site read":          {"GET", header("Cookie", cookie, "Sec-Fetch-Site", "cross-site"), 200},
		"cross site websocket": {"GET", header("Cookie", cookie, "Origin", "https://evil.example",
			"Connection", "Upgrade", "Upgrade", "websocket"), 403},
		"token of a program": {"POST", header("Authorization", "token="+d.token, "Origin", "https://ui.example"), 200},
	} {
		if resp, body := do(t, c, tc.method, d.url("/v2/apps"), "", tc.h); resp.StatusCode != tc.want {
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, body, tc.want)
		}
	}
	if resp, _ := do(t, c, "POST", d.url("/acs/api/v1/auth/login"), `{}`,
		header("Content-Type", "application/json", "Sec-Fetch-Site", "cross-site")); resp.StatusCode != 403 {
		t.Errorf("login from another site: %d, want 403", resp.StatusCode)
	}
}

// waitingRoutes have handlers that wait in every possible way, until their request ends.
func waitingRoutes(started chan<- struct{}) []Route {
	return []Route{
		{Prefix: "/context", Streaming: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			started <- struct{}{}
			<-r.Context().Done()
		})},
		{Prefix: "/read", Streaming: true, BodyLimit: -1,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.NewResponseController(w).Flush()
				started <- struct{}{}
				_, _ = io.Copy(io.Discard, r.Body)
			})},
		{Prefix: "/write", Streaming: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			started <- struct{}{}
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		})},
	}
}

func TestOpenStreamsEndWithTheirToken(t *testing.T) {
	started := make(chan struct{})
	d := runGateway(t, Config{}, Deps{Routes: waitingRoutes(started)})
	for _, proto := range []string{"h1", "h2"} {
		for _, path := range []string{"/context", "/read", "/write"} {
			t.Run(proto+path, func(t *testing.T) {
				token := d.issue(t)
				pr, pw := io.Pipe() // a body that never comes
				defer pw.Close()
				r := must(http.NewRequest("POST", d.url(path), pr))(t)
				r.Header = header("Authorization", "Bearer "+token.Secret)
				got := make(chan *http.Response, 1)
				go func() {
					resp, err := d.client(t, proto).Do(r)
					if err != nil {
						t.Error(err)
					}
					got <- resp
				}()
				<-started
				resp := <-got
				if resp == nil {
					t.FailNow()
				}
				defer resp.Body.Close()
				began := time.Now()
				if err := d.dir.Revoke(t.Context(), token.ID); err != nil {
					t.Fatal(err)
				}
				for d.streams.Load() != 0 { // the handler has returned
					if time.Since(began) > 2*time.Second {
						t.Fatal("stream goes on 2s after its token was revoked")
					}
					select {
					case <-t.Context().Done():
					case <-time.After(time.Millisecond):
					}
				}
				t.Logf("ended after %v", time.Since(began))
			})
		}
	}
}

func TestStreamsEndWhenTheGatewayStops(t *testing.T) {
	started := make(chan struct{})
	d := runGateway(t, Config{}, Deps{Routes: waitingRoutes(started)})
	ctx, cancel := context.WithCancel(t.Context())
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	done := make(chan error, 1)
	go func() { done <- d.serveOn(ctx, l) }()
	go func() {
		r, _ := http.NewRequest("GET", "http://"+l.Addr().String()+"/context", nil)
		r.Header = d.authorized()
		if resp, err := http.DefaultClient.Do(r); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}()
	<-started
	began := time.Now()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("serve = %v, want canceled", err)
	}
	if took := time.Since(began); took > stopGrace/2 {
		t.Errorf("stopping took %v with one open stream", took)
	}
}

func TestTLSIsNewAndPlainIsLocal(t *testing.T) {
	d := runGateway(t, Config{}, Deps{Routes: []Route{{Prefix: "/v2", Handler: echo}}})
	if c, err := tls.Dial("tcp", d.https.String(),
		&tls.Config{RootCAs: d.ca.Pool(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		c.Close()
		t.Error("TLS 1.1 was accepted")
	}
	resp, _ := do(t, d.client(t, "h2"), "GET", d.url("/v2"), "", d.authorized())
	if resp.ProtoMajor != 2 {
		t.Errorf("protocol %s, want HTTP/2", resp.Proto)
	}
	resp, body := do(t, http.DefaultClient, "GET", "http://"+d.http.String()+"/v2", "", d.authorized())
	if resp.StatusCode != 200 {
		t.Errorf("plain HTTP: %d %s", resp.StatusCode, body)
	}
	if resp, _ := do(t, http.DefaultClient, "GET", "http://"+d.http.String()+"/v2", "", nil); resp.StatusCode != 401 {
		t.Errorf("plain HTTP without token: %d, want 401", resp.StatusCode)
	}
	for _, addr := range []string{"0.0.0.0:0", ":0"} {
		g := must(New(Config{HTTPS: "127.0.0.1:0", HTTP: addr, TLS: d.cfg.TLS},
			Deps{Identity: d.dir, Log: slog.New(slog.DiscardHandler)}))(t)
		if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("plain HTTP on %s: %v, want refused", addr, err)
		}
	}
	taken := must(New(Config{HTTPS: d.https.String(), TLS: d.cfg.TLS},
		Deps{Identity: d.dir, Log: slog.New(slog.DiscardHandler)}))(t)
	if err := taken.Run(t.Context()); err == nil || !strings.Contains(err.Error(), d.https.String()) {
		t.Errorf("taken address: %v, want an error that names it", err)
	}
}

func TestAmbiguousMessagesAreRefused(t *testing.T) {
	d := runGateway(t, Config{}, Deps{Routes: []Route{{Prefix: "/v2", Handler: echo}}})
	auth := "Host: x\r\nAuthorization: token=" + d.token + "\r\n"
	for name, msg := range map[string]string{
		// Chunked wins, as RFC 9112 says: two messages, which is also how they are framed anew for apps.
		"CL and TE": "POST /v2 HTTP/1.1\r\n" + auth +
			"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2 HTTP/1.1\r\n" + auth + "\r\n",
		"two CL":     "POST /v2 HTTP/1.1\r\n" + auth + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
		"CL list":    "POST /v2 HTTP/1.1\r\n" + auth + "Content-Length: 4, 5\r\n\r\nabcde",
		"CL signed":  "POST /v2 HTTP/1.1\r\n" + auth + "Content-Length: +4\r\n\r\nabcd",
		"TE unknown": "POST /v2 HTTP/1.1\r\n" + auth + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"TE twice": "POST /v2 HTTP/1.1\r\n" + auth +
			"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"space before colon":   "GET /v2 HTTP/1.1\r\n" + auth + "X : y\r\n\r\n",
		"obs-fold first":       "GET /v2 HTTP/1.1\r\n X: y\r\n" + auth + "\r\n",
		"no host":              "GET /v2 HTTP/1.1\r\nAuthorization: token=" + d.token + "\r\n\r\n",
		"two hosts":            "GET /v2 HTTP/1.1\r\nHost: y\r\n" + auth + "\r\n",
		"HTTP/0.9":             "GET /v2\r\n",
		"HTTP/1.2 and a space": "GET  /v2 HTTP/1.1\r\n" + auth + "\r\n",
		"NUL in a header":      "GET /v2 HTTP/1.1\r\n" + auth + "X: a\x00b\r\n\r\n",
		"connect":              "CONNECT x:80 HTTP/1.1\r\n" + auth + "\r\n",
		"options star":         "OPTIONS * HTTP/1.1\r\n" + auth + "\r\n",
		"headers too large":    "GET /v2 HTTP/1.1\r\n" + auth + "X: " + strings.Repeat("a", 2*maxHeaderBytes) + "\r\n\r\n",
		"chunk size overflow":  "POST /v2 HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nx",
	} {
		c := must(net.Dial("tcp", d.http.String()))(t)
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(c, msg); err != nil {
			t.Logf("%s: write: %v", name, err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		br := bufio.NewReader(c)
		answers := 0
		for {
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				break
			}
			raw, _ := io.ReadAll(resp.Body)
			answers++
			if resp.StatusCode == 200 && name != "CL and TE" {
				t.Errorf("%s: answered 200 %s", name, raw)
			}
		}
		if answers > 1 && name != "CL and TE" {
			t.Errorf("%s: %d answers to one message", name, answers)
		}
		c.Close()
	}
}
