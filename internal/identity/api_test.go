package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/marinaos/marina/internal/store/memory"
)

// call asks the API as the principal, nobody if that is nil. A body that is not empty is sent as JSON.
func call(t testing.TB, d *Directory, p *Principal, method, path, body string,
	edit ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if p != nil {
		r = r.WithContext(WithPrincipal(r.Context(), p))
	}
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	d.Handler().ServeHTTP(w, r)
	return w
}

func rootPrincipal(t testing.TB, d *Directory) *Principal {
	t.Helper()
	issued := must(d.IssueRoot(t.Context(), 0, "test"))(t)
	return must(d.Verify(t.Context(), issued.Secret))(t)
}

func servicePEM(t testing.TB) string {
	t.Helper()
	der := must(x509.MarshalPKIXPublicKey(&testKeys()[1].PublicKey))(t)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestAPIAnswersAsDCOS(t *testing.T) {
	d := start(t, memory.New(), testRootKey(t))
	root := rootPrincipal(t, d)
	key := must(json.Marshal(servicePEM(t)))(t)
	for i, c := range []struct {
		method, path, body string
		status             int
		want               string // what the answer holds
	}{
		{"PUT", "/users/ann", `{"description":"Ann","password":"secret"}`, 201, ""},
		{"PUT", "/users/ann", `{"password":"secret"}`, 409, `"code":"ERR_USER_EXISTS"`},
		{"PUT", "/users/bob", `{"password":"1234"}`, 400, `"code":"ERR_INVALID_DATA"`},
		{"PUT", "/users/bob", `{"password":"secret","public_key":"x"}`, 400, `exactly one`},
		{"PUT", "/users/bob", `{}`, 400, `exactly one`},
		{"PUT", "/users/bob", `{"password":"secret","admin":true}`, 400, `unknown field`},
		{"PUT", "/users/bob", `{"password":"secret"} {}`, 400, `follows`},
		{"PUT", "/users/bob", `{"password":`, 400, `ERR_INVALID_DATA`},
		{"PUT", "/users/bob", `{"password":"` + strings.Repeat("x", maxBody) + `"}`, 413, `ERR_TOO_LARGE`},
		{"PUT", "/users/bob", strings.Repeat("[", 60000), 400, `ERR_INVALID_DATA`},
		{"PUT", "/users/anonymous", `{"password":"secret"}`, 400, `"code":"ERR_INVALID_USER_ID"`},
		{"PUT", "/users/b%C3%A9", `{"password":"secret"}`, 400, `"code":"ERR_INVALID_USER_ID"`},
		{"PUT", "/users/" + strings.Repeat("x", 97), `{"password":"secret"}`, 400, `"code":"ERR_INVALID_USER_ID"`},
		{"PUT", "/users/svc", `{"public_key":"nonsense"}`, 400, `"code":"ERR_INVALID_PUBLIC_KEY"`},
		{"PUT", "/users/svc", `{"description":"a service","public_key":` + string(key) + `}`, 201, ""},
		{"PUT", "/users/oidc", `{"provider_type":"oidc","provider_id":"x"}`, 400, `only internal`},
		{"GET", "/users", "", 200,
			`{"array":[{"uid":"ann","url":"/acs/api/v1/users/ann","description":"Ann","is_remote":false,"is_service":false,"provider_type":"internal","provider_id":""},{"uid":"root"`},
		{"GET", "/users/", "", 200, `{"array":[{"uid":"ann"`},
		{"GET", "/users?type=service", "", 200, `"is_service":true`},
		{"GET", "/users/ann", "", 200, `"description":"Ann"`},
		{"GET", "/users/nobody", "", 400, `"code":"ERR_UNKNOWN_USER_ID"`},
		{"PATCH", "/users/ann", `{"description":"Ann B"}`, 204, ""},
		{"PATCH", "/users/ann", `{}`, 400, `ERR_INVALID_DATA`},
		{"PATCH", "/users/svc", `{"password":"secret"}`, 400, `service account`},
		{"PATCH", "/users/nobody", `{"description":"x"}`, 400, `ERR_UNKNOWN_USER_ID`},
		{"GET", "/users/ann", "", 200, `"description":"Ann B"`},
		{"POST", "/tokens", `{"uid":"ann","description":"robot","ttlSeconds":60}`, 201, `"expires":`},
		{"POST", "/tokens", `{"uid":"nobody"}`, 400, `ERR_UNKNOWN_USER_ID`},
		{"POST", "/tokens", `{"ttlSeconds":0}`, 400, `ttlSeconds`},
		{"POST", "/tokens", `{"ttlSeconds":9223372036854775807}`, 400, `ttlSeconds`},
		{"GET", "/tokens?uid=ann", "", 200, `"description":"robot"`},
		{"DELETE", "/tokens/nothing", "", 404, `ERR_NOT_FOUND`},
		{"DELETE", "/tokens", "", 400, `uid=`},
		{"DELETE", "/tokens?uid=ann", "", 204, ""},
		{"GET", "/tokens?uid=ann", "", 200, `{"array":[]}`},
		{"DELETE", "/users/ann", "", 204, ""},
		{"DELETE", "/users/ann", "", 400, `ERR_UNKNOWN_USER_ID`},
		{"GET", "/auth/providers", "", 200, `"dcos-users":{"authentication-type":"dcos-uid-password"`},
		{"GET", "/auth/jwks", "", 200, `"kty":"RSA"`},
		{"GET", "/auth/login", "", 400, `ERR_MISSING_QUERY_PARAMETERS`},
		{"GET", "/acls", "", 404, `ERR_UNKNOWN_PATH`},
		{"POST", "/users/ann", "", 404, `ERR_UNKNOWN_PATH`},
	} {
		w := call(t, d, root, c.method, Base+c.path, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%d: %s %.60s %.60s: got %d %s, want %d with %s",
				i, c.method, c.path, c.body, w.Code, w.Body, c.status, c.want)
		}
	}
}

func TestAPINeedsAPrincipalOutsideOfAuth(t *testing.T) {
	d := start(t, memory.New(), testRootKey(t))
	gone := rootPrincipal(t, d)
	if err := d.Revoke(t.Context(), gone.TokenID); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"GET /users", "GET /users/x", "PUT /users/x", "PATCH /users/x", "DELETE /users/x",
		"GET /tokens", "POST /tokens", "DELETE /tokens/x", "DELETE /tokens"} {
		method, path, _ := strings.Cut(c, " ")
		if w := call(t, d, nil, method, Base+path, `{}`); w.Code != http.StatusUnauthorized {
			t.Errorf("%s by nobody: %d, want 401", c, w.Code)
		}
		if w := call(t, d, gone, method, Base+path, `{}`); w.Code != http.StatusForbidden {
			t.Errorf("%s by a revoked principal: %d, want 403", c, w.Code)
		}
	}
}

func TestAPIWantsJSON(t *testing.T) {
	d := start(t, memory.New(), testRootKey(t))
	if w := call(t, d, nil, "POST", Base+"/auth/login", `{"uid":"x","password":"y"}`, func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}); w.Code != http.StatusUnsupportedMediaType {
		t.Errorf("form: %d, want 415", w.Code)
	}
	for accept, want := range map[string]int{"text/html": 406, "application/json": 200, "text/html, */*;q=0.1": 200,
		"application/*": 200} {
		w := call(t, d, nil, "GET", Base+"/auth/providers", "", func(r *http.Request) { r.Header.Set("Accept", accept) })
		if w.Code != want {
			t.Errorf("accept %s: %d, want %d", accept, w.Code, want)
		}
	}
}

func TestLoginGivesTokenAndCookiesAndLogoutEndsThem(t *testing.T) {
	d := start(t, memory.New(), testRootKey(t))
	if err := d.CreateUser(t.Context(), "ann", NewUser{Description: "Ann", Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	w := call(t, d, nil, "POST", Base+"/auth/login", `{"uid":"ann","password":"secret"}`,
		func(r *http.Request) { r.TLS = &tls.ConnectionState{} })
	var answer struct{ Token string }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
		t.Fatalf("login: %d %s, %v", w.Code, w.Body, err)
	}
	p := must(d.Verify(t.Context(), answer.Token))(t)
	cookies := map[string]*http.Cookie{}
	for _, c := range w.Result().Cookies() {
		cookies[c.Name] = c
	}
	auth, info := cookies[AuthCookie], cookies[InfoCookie]
	if auth == nil || !auth.HttpOnly || !auth.Secure || auth.SameSite != http.SameSiteLaxMode || auth.Path != "/" ||
		auth.Value != answer.Token {
		t.Errorf("auth cookie %v", auth)
	}
	if info == nil || info.HttpOnly {
		t.Fatalf("info cookie %v", info)
	}
	if raw := must(base64.StdEncoding.DecodeString(info.Value))(t); string(raw) != `{"description":"Ann","is_remote":false,"uid":"ann"}` {
		t.Errorf("info cookie says %s", raw)
	}
	cross := func(r *http.Request) { r.AddCookie(auth); r.Header.Set("Sec-Fetch-Site", "cross-site") }
	if call(t, d, nil, "GET", Base+"/auth/logout", "", cross); ended(p) {
		t.Error("another site logged the user out")
	}
	w = call(t, d, nil, "GET", Base+"/auth/logout", "", func(r *http.Request) { r.AddCookie(auth) })
	if w.Code != 200 || !ended(p) {
		t.Errorf("logout: %d, token ended %v", w.Code, ended(p))
	}
	for _, c := range w.Result().Cookies() {
		if c.Value != "" || c.Expires.After(time.Now()) {
			t.Errorf("logout leaves cookie %v", c)
		}
	}
}

func TestServiceAccountLogsInByItsKey(t *testing.T) {
	d := start(t, memory.New(), testRootKey(t))
	if err := d.CreateUser(t.Context(), "svc", NewUser{PublicKey: servicePEM(t)}); err != nil {
		t.Fatal(err)
	}
	h := map[string]any{"alg": "RS256", "typ": "JWT"}
	c := map[string]any{"uid": "svc", "exp": time.Now().Add(time.Minute).Unix()}
	ours, other := testKeys()[1], testKeys()[0]
	for name, tc := range map[string]struct {
		token string
		want  int
	}{
		"good":           {forge(t, h, c, jwt.SigningMethodRS256, ours), 200},
		"another key":    {forge(t, h, c, jwt.SigningMethodRS256, other), 401},
		"another uid":    {forge(t, h, with(c, "uid", "ann"), jwt.SigningMethodRS256, ours), 401},
		"no uid":         {forge(t, h, with(c, "uid", nil), jwt.SigningMethodRS256, ours), 401},
		"no exp":         {forge(t, h, with(c, "exp", nil), jwt.SigningMethodRS256, ours), 401},
		"expired":        {forge(t, h, with(c, "exp", 1), jwt.SigningMethodRS256, ours), 401},
		"HS256 by PEM":   {forge(t, with(h, "alg", "HS256"), c, jwt.SigningMethodHS256, []byte(servicePEM(t))), 401},
		"none":           {forge(t, with(h, "alg", "none"), c, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType), 401},
		"not a token":    {"x", 401},
		"much too large": {strings.Repeat("x", MaxTokenBytes+1), 401},
	} {
		w := call(t, d, nil, "POST", Base+"/auth/login", fmt.Sprintf(`{"uid":"svc","token":%q}`, tc.token))
		if w.Code != tc.want {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, tc.want)
		}
	}
	if w := call(t, d, nil, "POST", Base+"/auth/login", `{"uid":"svc","password":"secret"}`); w.Code != 401 {
		t.Errorf("service account by password: %d, want 401", w.Code)
	}
}

func TestGuessingIsLimitedPerAccountAndPerSource(t *testing.T) {
	root := testRootKey(t)
	login := func(t *testing.T, d *Directory, source, uid, password string) int {
		return call(t, d, nil, "POST", Base+"/auth/login",
			fmt.Sprintf(`{"uid":%q,"password":%q}`, uid, password), func(r *http.Request) {
				r.RemoteAddr = source
				r.Header.Set("X-Forwarded-For", fmt.Sprint(time.Now().UnixNano())) // must not matter
			}).Code
	}
	for name, c := range map[string]struct {
		source, uid func(i int) string
		burst       int
		every       time.Duration
	}{
		"one account, many sources": {func(i int) string { return fmt.Sprintf("10.0.%d.1:1", i) },
			func(int) string { return "ann" }, accountBurst, accountEvery},
		"one source, many accounts": {func(i int) string { return fmt.Sprintf("10.0.0.1:%d", i+1) },
			func(i int) string { return fmt.Sprint("user", i) }, sourceBurst, sourceEvery},
		"one /64, many accounts": {func(i int) string { return fmt.Sprintf("[2001:db8::%x]:1", i) },
			func(i int) string { return fmt.Sprint("user", i) }, sourceBurst, sourceEvery},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := start(t, memory.New(), root)
				if err := d.CreateUser(t.Context(), "ann", NewUser{Password: "secret"}); err != nil {
					t.Fatal(err)
				}
				for i := range accountBurst + 1 { // logins that work cost nothing
					if got := login(t, d, c.source(i), "ann", "secret"); got != 200 {
						t.Fatalf("good login %d: %d", i, got)
					}
				}
				for i := range c.burst + 5 {
					want := 401
					if i >= c.burst {
						want = 429
					}
					if got := login(t, d, c.source(i), c.uid(i), "wrong"); got != want {
						t.Errorf("guess %d: %d, want %d", i, got, want)
					}
				}
				time.Sleep(c.every)
				if got := login(t, d, c.source(200), c.uid(200), "wrong"); got != 401 {
					t.Errorf("guess after %v: %d, want 401", c.every, got)
				}
				if got := login(t, d, c.source(201), c.uid(201), "wrong"); got != 429 {
					t.Errorf("guess right after: %d, want 429", got)
				}
			})
		})
	}
}

func TestUnknownUserCostsWhatAWrongPasswordDoes(t *testing.T) {
	h := newHasher()
	hash := must(h.hash(t.Context(), "secret"))(t)
	if ok := must(h.verify(t.Context(), "secret", hash))(t); !ok {
		t.Error("right password refused")
	}
	known, unknown := time.Hour, time.Hour // the fastest of several in turn, which other load cannot make faster
	for range 200 {
		for hash, best := range map[string]*time.Duration{hash: &known, "": &unknown} {
			began := time.Now()
			if ok := must(h.verify(t.Context(), "wrong", hash))(t); ok {
				t.Error("wrong password taken")
			}
			*best = min(*best, time.Since(began))
		}
		if unknown >= known/2 && known >= unknown/2 {
			return
		}
	}
	t.Errorf("known user %v, unknown user %v: they can be told apart", known, unknown)
}

func TestSocketGivesTheFirstTokenToRootOnly(t *testing.T) {
	d := start(t, memory.New(), testRootKey(t))
	path := filepath.Join(t.TempDir(), "run", "token.sock")
	for name, c := range map[string]struct {
		uids []int
		want int
	}{
		"owner":  {[]int{os.Geteuid()}, http.StatusCreated},
		"others": {[]int{os.Geteuid() + 1}, http.StatusForbidden},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		l := must(listenSocket(path))(t)
		done := make(chan error, 1)
		go func() { done <- d.serveSocket(ctx, l, nil, c.uids...) }()
		if info := must(os.Stat(path))(t); info.Mode().Perm() != 0o600 {
			t.Errorf("socket mode %v, want 600", info.Mode())
		}
		if info := must(os.Stat(filepath.Dir(path)))(t); info.Mode().Perm() != 0o700 {
			t.Errorf("directory mode %v, want 700", info.Mode())
		}
		if _, err := listenSocket(path); err == nil {
			t.Error("a second daemon took the socket")
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}}}
		resp := must(client.Post("http://marina/token", "application/json", bytes.NewReader([]byte(`{"ttlSeconds":60}`))))(t)
		raw := must(io.ReadAll(resp.Body))(t)
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, raw, c.want)
		}
		if c.want == http.StatusCreated {
			var issued Issued
			if err := json.Unmarshal(raw, &issued); err != nil {
				t.Fatal(err)
			}
			if p, err := d.Verify(t.Context(), issued.Secret); err != nil || p.UID != RootUID ||
				time.Until(issued.Expires) > time.Minute {
				t.Errorf("token of the socket: %+v, %v", p, err)
			}
		}
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("serve = %v, want canceled", err)
		}
	}
}

func TestSocketRefusesADirectoryOthersCanWriteTo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if l, err := listenSocket(filepath.Join(dir, "token.sock")); err == nil {
		l.Close()
		t.Error("took a directory that others can write to")
	}
}

func TestUnixPeerIsKnownByTheKernelAlone(t *testing.T) {
	c := must(net.Dial("udp", "127.0.0.1:9"))(t)
	defer c.Close()
	if _, err := peerUID(c); err == nil {
		t.Error("a UDP connection has a peer uid")
	}
}
