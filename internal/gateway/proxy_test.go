package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/identity"
)

type services map[string]Upstream

func (s services) Resolve(name string) (Upstream, bool) { up, ok := s[name]; return up, ok }

type report struct{}

func (report) Health(context.Context) HealthReport {
	master := HealthUnit{ID: "dcos-mesos-master.service", Name: "Mesos Master", Description: "the kernel"}
	sick := HealthUnit{ID: "dcos-net.service", Name: "Net", Description: "addresses",
		Health: Unhealthy, Output: "no bridge", Help: "look at it"}
	well := sick
	well.Health, well.Output = Healthy, ""
	return HealthReport{Hostname: "h1", IP: "10.0.0.1", Version: "0.1", Nodes: []HealthNode{
		{IP: "10.0.0.1", Role: "master", Units: []HealthUnit{master, well}},
		{IP: "10.0.0.2", Role: "agent", Health: Unhealthy, Units: []HealthUnit{sick}},
	}}
}

// upstream is a task.
func upstream(t testing.TB, h http.HandlerFunc) Upstream {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return Upstream{Scheme: "http", Endpoint: netip.MustParseAddrPort(s.Listener.Addr().String())}
}

func TestAppsGetNoCredentialsAndOnlyTheGatewaysWord(t *testing.T) {
	got := make(chan *http.Request, 1)
	up := upstream(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); got <- r })
	d := runGateway(t, Config{LoopbackServices: true}, Deps{Services: services{"app": up}})
	for _, proto := range []string{"h1", "h2"} {
		h := header("Authorization", "token="+d.token, "Cookie",
			"theme=dark; "+identity.AuthCookie+"="+d.token+"; DCOS-ACS-info-cookie=x;a=b",
			"X-Forwarded-For", "6.6.6.6", "X-Forwarded-User", "admin", "X_Forwarded_User", "admin", "x-marina-user", "admin",
			"X_Marina_User", "admin",
			"X-Real-IP", "6.6.6.6", "Forwarded", "for=6.6.6.6", "Remote-User", "admin", "X-Remote-User", "admin", "X-Custom",
			"stays")
		if proto == "h1" {
			h.Add("Connection", "x-marina-user, x-forwarded-for, x-real-ip")
			h.Add("Proxy-Authorization", "Basic x")
		}
		r := must(http.NewRequest("POST", d.url("/service/app/x"), io.MultiReader(strings.NewReader("body"))))(t)
		r.Header = h
		r.Trailer = header("X-Marina-User", "admin")
		resp := must(d.client(t, proto).Do(r))(t)
		resp.Body.Close()
		in := <-got
		var all strings.Builder
		for name, values := range in.Header {
			fmt.Fprintln(&all, name, values)
		}
		fmt.Fprintln(&all, in.Trailer)
		for _, bad := range []string{d.token, "dcos-acs", "6.6.6.6", "admin", "Authorization", "token="} {
			if strings.Contains(strings.ToLower(all.String()), strings.ToLower(bad)) {
				t.Errorf("%s: the app sees %q in\n%s", proto, bad, all.String())
			}
		}
		want := map[string]string{"X-Marina-User": "root", "X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1",
			"X-Forwarded-Proto": "https", "X-Forwarded-Host": d.https.String(), "X-Custom": "stays", "Cookie": "theme=dark; a=b"}
		for name, v := range want {
			if got := in.Header.Values(name); len(got) != 1 || got[0] != v {
				t.Errorf("%s: %s = %q, want %q once", proto, name, got, v)
			}
		}
		if in.Host != d.https.String() {
			t.Errorf("%s: Host %q, want the original", proto, in.Host)
		}
	}
}

func TestAppsCannotSpeakForTheGateway(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "dcos-acs-auth-cookie=stolen; Path=/")
		w.Header().Add("Set-Cookie", "DCOS-ACS-INFO-COOKIE=x")
		w.Header().Add("Set-Cookie", "own=1")
		w.Header().Set("Strict-Transport-Security", "max-age=99999999")
		w.Header().Set("Clear-Site-Data", `"cookies"`)
		w.Header().Set("X-Frame-Options", "ALLOWALL")
	})
	d := runGateway(t, Config{LoopbackServices: true}, Deps{Services: services{"app": up}})
	resp, _ := do(t, d.client(t, "h1"), "GET", d.url("/service/app/"), "", d.authorized())
	if got := resp.Header.Values("Set-Cookie"); !slices.Equal(got, []string{"own=1"}) {
		t.Errorf("Set-Cookie %q, want only the app's own", got)
	}
	for _, name := range []string{"Strict-Transport-Security", "Clear-Site-Data"} {
		if got := resp.Header.Get(name); got != "" {
			t.Errorf("%s %q came through", name, got)
		}
	}
	if got := resp.Header.Values("X-Frame-Options"); !slices.Equal(got, []string{"ALLOWALL"}) {
		t.Errorf("X-Frame-Options %q, want the app's", got)
	}
}

func TestServicesAreFoundByTheirShortestPrefix(t *testing.T) {
	path := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, " ", r.URL.RequestURI()) }
	}
	keep := upstream(t, path("keep"))
	keep.KeepPath = true
	d := runGateway(t, Config{LoopbackServices: true}, Deps{Services: services{
		"app": upstream(t, path("app")), "b.a": upstream(t, path("b.a")), "c.b.a": upstream(t, path("c.b.a")), "keep": keep,
		"gone": {Scheme: "http", Endpoint: netip.MustParseAddrPort("127.0.0.1:1")},
	}})
	c := d.client(t, "h1")
	for p, want := range map[string]string{
		"/service/app/":                        "200 app /",
		"/service/app/x/y?q=1":                 "200 app /x/y?q=1",
		"/service//app///x%20y":                "200 app /x%20y",
		"/service/a/b/c":                       "200 b.a /c",
		"/service/a/b":                         "200 b.a /",
		"/service/keep/x":                      "200 keep /service/keep/x",
		"/service/app?q=1":                     "301 /service/app/?q=1",
		"/service/nothing/":                    "404",
		"/service/gone/":                       "502",
		"/service/":                            "404",
		"/service":                             "404",
		"/service/" + strings.Repeat("x/", 50): "404",
	} {
		resp, body := do(t, c, "GET", d.url(p), "", d.authorized())
		got := fmt.Sprint(resp.StatusCode)
		switch resp.StatusCode {
		case 200:
			got += " " + body
		case 301:
			got += " " + resp.Header.Get("Location")
		default:
			if !strings.Contains(body, `"message"`) {
				t.Errorf("%s: %s without a message", p, body)
			}
		}
		if got != want {
			t.Errorf("GET %.40s: %s, want %s", p, got, want)
		}
	}
	if resp, body := do(t, c, "POST", d.url("/service/app"), "", d.authorized()); resp.StatusCode != 200 ||
		body != "app /" {
		t.Errorf("POST without the slash: %d %s, want it to arrive", resp.StatusCode, body)
	}
}

func TestRedirectsOfAppsStayUnderTheirMount(t *testing.T) {
	up := Upstream{Scheme: "http", Endpoint: netip.MustParseAddrPort("10.1.2.3:8080")}
	for in, want := range map[string]string{
		"/login?x=1":                 "/service/app/login?x=1",
		"http://m:8443/login":        "/service/app/login",
		"http://10.1.2.3:8080/a%20b": "/service/app/a%20b",
		"https://m:8443/login":       "https://m:8443/login",
		"http://other/login":         "http://other/login",
		"//other/login":              "//other/login",
		"relative":                   "relative",
		"/service/app/x":             "/service/app/x",
		"/service/apple":             "/service/app/service/apple",
		"http://u@m:8443/":           "http://u@m:8443/",
		"mailto:x@y":                 "mailto:x@y",
	} {
		if got := mapLocation(in, up, "m:8443", "/service/app"); got != want {
			t.Errorf("mapLocation(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestOnlyTaskAddressesAreConnectedTo(t *testing.T) {
	for addr, want := range map[string]bool{
		"10.1.2.3:80": true, "192.168.0.7:65535": true, "[fd00::7]:80": true, "203.0.113.9:80": true,
		"127.0.0.1:80": false, "127.9.9.9:80": false, "[::1]:80": false, "[::ffff:127.0.0.1]:80": false,
		"[::ffff:169.254.169.254]:80": false,
		"169.254.169.254:80":          false, "0.0.0.0:80": false, "[::]:80": false, "[fe80::1]:80": false,
		"224.0.0.1:80":       false,
		"255.255.255.255:80": false, "10.1.2.3:0": false,
	} {
		if err := checkTarget(netip.MustParseAddrPort(addr), false); (err == nil) != want {
			t.Errorf("checkTarget(%s) = %v, want allowed %v", addr, err, want)
		}
	}
	dial := taskDialer(false)
	for _, addr := range []string{"localhost:80", "metadata.internal:80", "2130706433:80", "0x7f.1:80",
		"169.254.169.254:80", ":80"} {
		if c, err := dial(t.Context(), "tcp", addr); err == nil {
			c.Close()
			t.Errorf("connected to %s", addr)
		}
	}
	d := runGateway(t, Config{}, Deps{Services: services{"app": upstream(t,
		func(http.ResponseWriter, *http.Request) { t.Error("loopback was reached") })}})
	if resp, _ := do(t, d.client(t, "h1"), "GET", d.url("/service/app/"), "", d.authorized()); resp.StatusCode != 502 {
		t.Errorf("service on loopback: %d, want 502", resp.StatusCode)
	}
}

func TestWebsocketPassesAndEndsWithItsToken(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(w, "no upgrade", http.StatusBadRequest)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
		rw.Flush()
		io.Copy(c, rw)
	})
	d := runGateway(t, Config{LoopbackServices: true}, Deps{Services: services{"app": up}})
	token := d.issue(t)
	upgrade := func(path string) (*tls.Conn, *bufio.Reader, *http.Response) {
		c := must(tls.Dial("tcp", d.https.String(), &tls.Config{RootCAs: d.ca.Pool()}))(t)
		fmt.Fprintf(c,
			"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: token=%s\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n",
			path, token.Secret)
		br := bufio.NewReader(c)
		return c, br, must(http.ReadResponse(br, nil))(t)
	}
	c, br, resp := upgrade("/service/app/no")
	if resp.StatusCode != 400 {
		t.Errorf("refused upgrade: %d, want 400", resp.StatusCode)
	}
	io.Copy(io.Discard, resp.Body)
	fmt.Fprintf(c, "GET /service/app/no HTTP/1.1\r\nHost: x\r\n\r\n") // what follows is a request like any other
	if resp := must(http.ReadResponse(br, nil))(t); resp.StatusCode != 401 {
		t.Errorf("request after a refused upgrade: %d, want 401", resp.StatusCode)
	}
	c.Close()
	c, br, resp = upgrade("/service/app/yes")
	defer c.Close()
	if resp.StatusCode != 101 {
		t.Fatalf("upgrade: %d, want 101", resp.StatusCode)
	}
	fmt.Fprint(c, "ping\n")
	if got := must(br.ReadString('\n'))(t); got != "ping\n" {
		t.Errorf("echo %q", got)
	}
	began := time.Now()
	if err := d.dir.Revoke(t.Context(), token.ID); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := io.Copy(io.Discard, br); err == nil && n > 0 || time.Since(began) > 2*time.Second {
		t.Errorf("connection went on for %v after its token was revoked: %d bytes, %v", time.Since(began), n, err)
	}
}

func TestAppThatDiesMidAnswerBreaksTheAnswer(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	d := runGateway(t, Config{LoopbackServices: true}, Deps{Services: services{"app": up}})
	r := must(http.NewRequest("GET", d.url("/service/app/"), nil))(t)
	r.Header = d.authorized()
	resp, err := d.client(t, "h2").Do(r)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if raw, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("read %q to its end, want a broken answer", raw)
	}
}

func TestHealthAnswersAsDCOS(t *testing.T) {
	d := runGateway(t, Config{}, Deps{Health: report{}})
	c := d.client(t, "h2")
	for path, want := range map[string]string{
		"":                                       `{"units":[{"id":"dcos-mesos-master.service","health":0,"output":"","description":"the kernel","help":"","name":"Mesos Master"},`,
		"/units":                                 `{"units":[{"id":"dcos-mesos-master.service","name":"Mesos Master","health":0,"description":"the kernel"},{"id":"dcos-net.service","name":"Net","health":1,"description":"addresses"}]}`,
		"/units/dcos-net.service":                `{"id":"dcos-net.service","name":"Net","health":1,"description":"addresses"}`,
		"/units/dcos-net.service/nodes":          `{"nodes":[{"host_ip":"10.0.0.1","health":0,"role":"master"},{"host_ip":"10.0.0.2","health":1,"role":"agent"}]}`,
		"/units/dcos-net.service/nodes/10.0.0.2": `{"host_ip":"10.0.0.2","health":1,"role":"agent","output":"no bridge","help":"look at it"}`,
		"/nodes":                                 `{"nodes":[{"host_ip":"10.0.0.1","health":0,"role":"master"},{"host_ip":"10.0.0.2","health":1,"role":"agent"}]}`,
		"/nodes/10.0.0.2":                        `{"host_ip":"10.0.0.2","health":1,"role":"agent"}`,
		"/nodes/10.0.0.2/units":                  `{"units":[{"id":"dcos-net.service","name":"Net","health":1,"description":"addresses"}]}`,
		"/nodes/10.0.0.2/units/dcos-net.service": `{"id":"dcos-net.service","health":1,"output":"no bridge","description":"addresses","help":"look at it","name":"Net"}`,
		"/report":                                `{"Nodes":{"10.0.0.1":`,
	} {
		resp, body := do(t, c, "GET", d.url(healthBase+path), "", d.authorized())
		if resp.StatusCode != 200 || !strings.HasPrefix(body, want) {
			t.Errorf("%s: %d %s, want %s", path, resp.StatusCode, body, want)
		}
	}
	for _, path := range []string{"/units/x", "/units/x/nodes", "/units/dcos-net.service/nodes/10.0.0.9",
		"/units/dcos-net.service/x", "/nodes/x", "/nodes/10.0.0.2/x", "/nodes/10.0.0.2/units/x", "/x",
		"/nodes/10.0.0.2/units/x/y"} {
		if resp, body := do(t, c, "GET", d.url(healthBase+path), "", d.authorized()); resp.StatusCode != 404 {
			t.Errorf("%s: %d %s, want 404", path, resp.StatusCode, body)
		}
	}
}

func TestMetadataForDCOSClients(t *testing.T) {
	d := runGateway(t, Config{}, Deps{})
	c := d.client(t, "h2")
	for path, want := range map[string]string{
		"/dcos-metadata/dcos-version.json": `"dcos-variant":"open"`,
		"/metadata":                        `{"CLUSTER_ID":"dc-1","PUBLIC_IPV4":"192.0.2.1"}`,
		"/ca/dcos-ca.crt":                  "BEGIN CERTIFICATE",
		"/acs/api/v1/auth/providers":       "dcos-uid-password",
		"/acs/api/v1/users":                `{"array":[{"uid":"root"`,
	} {
		if resp, body := do(t, c, "GET", d.url(path), "", d.authorized()); resp.StatusCode != 200 ||
			!strings.Contains(body, want) {
			t.Errorf("%s: %d %s, want %s", path, resp.StatusCode, body, want)
		}
	}
}

func TestRoutesAreChecked(t *testing.T) {
	for name, routes := range map[string][]Route{
		"twice":        {{Prefix: "/a", Asks: true, Handler: echo}, {Prefix: "/a/", Asks: true, Handler: echo}},
		"no slash":     {{Prefix: "a", Asks: true, Handler: echo}},
		"escape":       {{Prefix: "/a%20b", Asks: true, Handler: echo}},
		"double slash": {{Prefix: "/a//b", Asks: true, Handler: echo}},
		"dots":         {{Prefix: "/a/../b", Asks: true, Handler: echo}},
		"no handler":   {{Prefix: "/a", Asks: true}},
		"empty":        {{Asks: true, Handler: echo}},
		"nobody asks":  {{Prefix: "/a", Handler: echo}},
	} {
		if _, err := newTable(routes); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	table := must(newTable([]Route{{Prefix: "/", Exact: true, Open: true, Handler: echo},
		{Prefix: "/a", Asks: true, Handler: echo}, {Prefix: "/a/b", Asks: true, Handler: echo}}))(t)
	for path, want := range map[string]string{"/": "", "/a": "/a", "/a/x": "/a", "/a/b": "/a/b", "/a/bc": "/a",
		"/a/b/c": "/a/b"} {
		if rt, _ := table.findRoute(path); rt == nil || rt.Prefix != want {
			t.Errorf("find(%s) = %v, want %q", path, rt, want)
		}
	}
	if rt, _ := table.findRoute("/b"); rt != nil {
		t.Errorf("find(/b) = %v, want none", rt.Prefix)
	}
}
