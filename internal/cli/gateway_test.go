package cli_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/cli"
	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/gateway"
	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/identity/ca"
	"github.com/marinaos/marina/internal/store/memory"
)

// door is the real front door of a datacenter, with real tokens and certificates; behind it is a recorded API.
type door struct {
	url   string
	ca    string // file
	state string // of the datacenter, with its admin socket
	dir   *identity.Directory
	api   *clitest.Recorded
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func openDoor(t *testing.T) *door {
	t.Helper()
	raw := make([]byte, 32)
	rand.Read(raw)
	st, root := memory.New(), must(identity.NewRootKey(raw))(t)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	authority := must(ca.Open(t.Context(), st, root, "dc-1"))(t)
	d := &door{dir: must(identity.Open(t.Context(), identity.Config{Datacenter: "dc-1"}, st, root, log))(t),
		api: clitest.Record(t), state: t.TempDir()}
	d.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(d.ca, authority.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	var routes []gateway.Route
	for _, prefix := range []string{"/service/marathon", "/tasks/v1", "/machines/v1"} {
		routes = append(routes, gateway.Route{Prefix: prefix, Handler: d.api, Streaming: true, BodyLimit: -1, Asks: true})
	}
	leaderless := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"message":"The datacenter has no leader at the moment: try again in a second."}`)
	})
	routes = append(routes, gateway.Route{Prefix: "/quota/v1", Handler: leaderless, Asks: true})
	_, ips := ca.Hosts("127.0.0.1")
	gw := must(gateway.New(gateway.Config{HTTPS: "127.0.0.1:0", HTTP: "-",
		TLS: ca.ServerTLS(authority.ServerSource(log, "m1", nil, ips), nil, "dc-1")},
		gateway.Deps{Identity: d.dir, Routes: routes, Info: gateway.Info{Datacenter: "dc-1", CA: authority.CertPEM()},
			Log: log}))(t)
	info := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(client.Info{URL: d.url, CA: string(authority.CertPEM())})
	})
	if err := os.MkdirAll(filepath.Join(d.state, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for what, run := range map[string]func(context.Context) error{"identity": d.dir.Run, "gateway": gw.Run,
		"socket": func(ctx context.Context) error { return d.dir.ServeSocket(ctx, client.Socket(d.state), info) }} {
		wg.Go(func() {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	select {
	case <-gw.Ready():
	case <-time.After(clitest.Limit):
		t.Fatal("the gateway does not listen")
	}
	for late := time.After(clitest.Limit); ; {
		if _, err := os.Stat(client.Socket(d.state)); err == nil {
			break
		}
		select {
		case <-late:
			t.Fatal("the admin socket is not there")
		case <-time.After(5 * time.Millisecond):
		}
	}
	https, _ := gw.Addrs()
	d.url = "https://" + https.String()
	return d
}

// marina runs a command line of somebody on another computer.
func (d *door) marina(t *testing.T, in string, args ...string) clitest.Result {
	t.Helper()
	return clitest.RunWith(t, cli.Programs{}, in, append([]string{"--state", "/nowhere"}, args...)...)
}

func TestWhoLogsInIsRememberedUntilTheTokenIsRevoked(t *testing.T) {
	d := openDoor(t)
	home := clitest.Home(t)
	issued := must(d.dir.IssueRoot(t.Context(), time.Hour, "test"))(t)
	t.Setenv("MARINA_TOKEN", issued.Secret)
	d.marina(t, "", "login", d.url).Says(t, "login without the CA", exit.Denied, "a CA that is not trusted", "--ca FILE")
	d.marina(t, "", "login", d.url, "--ca", d.ca, "--token", "wrong").Says(t, "login with a wrong token", exit.Denied,
		"marina login URL")
	file := filepath.Join(home, ".config", "marina", "login.json")
	if _, err := os.Stat(file); err == nil {
		t.Error("a login that failed was saved")
	}
	if r := d.marina(t, "", "login", d.url+"/", "--ca", d.ca); r.Code != 0 || r.Out != "logged in to "+d.url+"\n" {
		t.Fatalf("login: %+v", r)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the login is saved as %v (%v), want it for its owner only", fi, err)
	}

	t.Setenv("MARINA_TOKEN", "")
	if r := d.marina(t, "", "app", "list"); r.Code != 0 || !strings.Contains(r.Out, "/prod/web") {
		t.Errorf("app list after login: %+v", r)
	}
	t.Setenv("MARINA_URL", d.url) // the address of the login: its token and CA hold
	if r := d.marina(t, "", "task", "list", "--ids"); r.Code != 0 {
		t.Errorf("with the login's address said: %+v", r)
	}
	t.Setenv("MARINA_URL", "")
	d.marina(t, "", "quota").Says(t, "without a leader", exit.Unreachable, "no leader", "marina status")
	if err := d.dir.Revoke(t.Context(), issued.ID); err != nil {
		t.Fatal(err)
	}
	d.marina(t, "", "app", "list").Says(t, "after the token was revoked", exit.Denied, "marina login URL")
}

func TestTokensAreMadeListedAndRevoked(t *testing.T) {
	d := openDoor(t)
	clitest.Home(t)
	t.Setenv("MARINA_TOKEN", must(d.dir.IssueRoot(t.Context(), time.Hour, "mine"))(t).Secret)
	t.Setenv("MARINA_URL", d.url)
	t.Setenv("MARINA_CA", d.ca)
	made := d.marina(t, "", "token", "create", "--ttl", "2h", "--description", "for a script")
	made.Says(t, "create", 0, "good until", "curl -H")
	secret := strings.TrimSpace(made.Out)
	list := d.marina(t, "", "token", "list")
	if list.Code != 0 || !strings.Contains(list.Out, "for a script") || strings.Contains(list.Out, secret) {
		t.Errorf("list: %+v, want the token's description and not the token", list)
	}
	var answer struct {
		Array []struct{ ID, Description string }
	}
	if err := json.Unmarshal([]byte(d.marina(t, "", "token", "list", "--json").Out), &answer); err != nil {
		t.Fatal(err)
	}
	id := ""
	for _, token := range answer.Array {
		if token.Description == "for a script" {
			id = token.ID
		}
	}
	if r := d.marina(t, "", "app", "list", "--token", secret); r.Code != 0 {
		t.Errorf("the new token: %+v, want it good", r)
	}
	if r := d.marina(t, "", "token", "revoke", id); r.Code != 0 || r.Out != "revoked "+id+"\n" {
		t.Errorf("revoke: %+v", r)
	}
	d.marina(t, "", "app", "list", "--token", secret).Says(t, "the revoked token", exit.Denied)
	d.marina(t, "", "token", "revoke", id).Says(t, "revoking it again", exit.NotFound)
	d.marina(t, "", "token", "create", "--ttl", "-1h").Says(t, "a negative life", exit.Failed)
}

func TestCommandsInTasksRunThroughTheGateway(t *testing.T) {
	d := openDoor(t)
	clitest.Home(t)
	t.Setenv("MARINA_TOKEN", must(d.dir.IssueRoot(t.Context(), time.Hour, "mine"))(t).Secret)
	t.Setenv("MARINA_URL", d.url)
	t.Setenv("MARINA_CA", d.ca)
	big := strings.Repeat("0123456789abcdef", 64<<10/16) + "end"
	if r := d.marina(t, big, "task", "exec", "x", "--", "cat"); r.Code != 0 || r.Out != "[cat] tty=false "+big+"\n" ||
		r.Err != "a warning\n" {
		t.Errorf("cat: exit %d, %d bytes of output, error %q; want all that was sent", r.Code, len(r.Out), r.Err)
	}
	if r := d.marina(t, "", "task", "exec", "x", "--", "false"); r.Code != 3 {
		t.Errorf("false: %+v, want its own exit code", r)
	}
	if r := d.marina(t, "", "task", "log", "x", "--lines", "1"); r.Code != 0 || r.Out != "three\n" {
		t.Errorf("log: %+v, want the last line", r)
	}
}

func TestRootOnTheMachineNeedsNoLogin(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the admin socket answers root only")
	}
	d := openDoor(t)
	clitest.Home(t)
	local := func(args ...string) clitest.Result {
		t.Helper()
		return clitest.RunWith(t, cli.Programs{}, "", append([]string{"--state", d.state}, args...)...)
	}
	for i := range 3 {
		if r := local("token", "list"); r.Code != 0 || strings.Count(r.Out, "marina command on the machine") != 1 {
			t.Errorf("command %d: %+v, want one token for all of them", i, r)
		}
	}
	cached := filepath.Join(d.state, "run", "admin.token")
	if fi, err := os.Stat(cached); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the token is kept as %v (%v), want it for its owner only", fi, err)
	}
	if r := local("token", "ca"); r.Code != 0 || !strings.Contains(r.Out, "BEGIN CERTIFICATE") {
		t.Errorf("token ca: %+v", r)
	}
	// One that is about to end, or of a CA that is gone, is not used again.
	for what, a := range map[string]client.Account{
		"about to end":  {Token: "old", CA: local("token", "ca").Out, Until: time.Now().Add(30 * time.Second)},
		"of another CA": {Token: "old", CA: "other", Until: time.Now().Add(time.Hour)},
		"damaged":       {},
	} {
		if err := a.Save(cached); err != nil {
			t.Fatal(err)
		}
		if r := local("app", "list"); r.Code != 0 {
			t.Errorf("with a kept token that is %s: %+v, want a new one", what, r)
		}
	}
}

func TestAnAddressThatIsSaidWinsOverTheMachinesOwn(t *testing.T) {
	d := openDoor(t)
	clitest.Home(t)
	r := clitest.RunWith(t, cli.Programs{}, "", "--state", d.state, "--url", "https://127.0.0.1:1", "--token", "t", "app",
		"list")
	r.Says(t, "nobody there", exit.Unreachable, fmt.Sprintf("%s does not answer", "https://127.0.0.1:1"), "another --url")
}
