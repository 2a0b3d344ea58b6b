package datacenter_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/cli"
	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/settings"
)

// ending is a datacenter's own programs that end it; they note what they were asked.
func ending(asked *[]string, result error) cli.Programs {
	end := func(what string) func(context.Context, settings.Datacenter, io.Writer) error {
		return func(_ context.Context, s settings.Datacenter, progress io.Writer) error {
			*asked = append(*asked, what+" "+s.State)
			fmt.Fprintln(progress, "stopping tasks")
			return result
		}
	}
	return cli.Programs{Down: end("down"), Clean: end("clean")}
}

func TestDownRemovesNothingThatSomebodyDidNotAgreeTo(t *testing.T) {
	clitest.Home(t)
	for args, want := range map[string]struct {
		asked string
		code  int
		says  string
	}{
		"down":                     {"down STATE", exit.OK, "stopping tasks"},
		"down --yes":               {"down STATE", exit.OK, "stopping tasks"},
		"down --quiet":             {"down STATE", exit.OK, ""},
		"down --clean-state":       {"", exit.BadUsage, "Services, images and data are lost"},
		"down --clean-state --yes": {"clean STATE", exit.OK, "stopping tasks"},
		"down --clean-state -y -q": {"clean STATE", exit.OK, ""},
		"down everything":          {"", exit.BadUsage, "got 1 arguments"},
		"down --now":               {"", exit.BadUsage, "--now"},
	} {
		state := t.TempDir()
		var asked []string
		r := clitest.RunWith(t, ending(&asked, nil), "", append(strings.Fields(args), "--state", state)...)
		r.Says(t, args, want.code, want.says)
		got := strings.ReplaceAll(strings.Join(asked, "\n"), state, "STATE")
		clitest.Same(t, args, got, want.asked)
		if want.says == "" && r.Out+r.Err != "" {
			t.Errorf("%s: said %q%q", args, r.Out, r.Err)
		}
	}
	var asked []string
	clitest.RunWith(t, ending(&asked, errors.New("a task does not end")), "", "down", "--state", t.TempDir()).
		Says(t, "one that cannot", exit.Failed, "a task does not end")
}

func TestALoginIsSavedOnceItWorks(t *testing.T) {
	home := clitest.Home(t)
	var status int
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization") + " " + r.URL.Path; got != "Bearer secret /service/marathon/v2/info" {
			t.Errorf("asked with %q", got)
		}
		w.WriteHeader(status)
		io.WriteString(w, `{"message": "this token has ended"}`)
	}))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, clitest.PEM(srv.Certificate()), 0o600); err != nil {
		t.Fatal(err)
	}
	login := func(url string, more ...string) clitest.Result {
		return clitest.RunWith(t, cli.Programs{}, "", append([]string{"login", url, "--state", t.TempDir()}, more...)...)
	}
	saved := func() (files []string) {
		files, _ = filepath.Glob(filepath.Join(home, ".config", "marina", "*"))
		return files
	}
	login("http://192.0.2.1:8080").Says(t, "plain HTTP", exit.BadUsage, "is not an https address",
		"marina login https://HOST:8443")
	login(srv.URL, "--ca", ca).Says(t, "no token", exit.BadUsage, "a token is needed", "MARINA_TOKEN=")
	login(srv.URL, "--token", "secret").Says(t, "a CA that nobody knows", exit.Denied,
		"a CA that is not trusted here", "--ca FILE")
	status = http.StatusUnauthorized
	login(srv.URL, "--ca", ca, "--token", "secret").Says(t, "a token that is none", exit.Denied, "this token has ended")
	if got := saved(); len(got) != 0 {
		t.Errorf("saved %v of logins that do not work", got)
	}
	status = http.StatusOK
	r := login(srv.URL, "--ca", ca, "--token", "secret")
	clitest.Same(t, "login", r.Out+r.Err, "logged in to "+srv.URL+"\n")
	if got := saved(); len(got) != 1 {
		t.Errorf("saved %v, want one file", got)
	}
	clitest.RunWith(t, cli.Programs{}, "", "app", "list", "--state", t.TempDir(), "--url", "https://192.0.2.1:1",
		"--token", "", "--ca", "/none").
		Says(t, "another address that is said", exit.BadUsage, "/none")
}

func TestUpStartsNothingOnAMachineThatCannot(t *testing.T) {
	clitest.Home(t)
	started := false
	programs := cli.Programs{
		Running: func(settings.Datacenter) bool { return false },
		Build:   func() string { return "b" },
		Daemon:  func(context.Context, settings.Datacenter) error { started = true; return nil },
		Preflight: func(context.Context, settings.Datacenter) []kernel.Finding {
			return []kernel.Finding{{Severity: kernel.Good, What: "kernel 6.1"},
				{Severity: kernel.Warning, What: "few keys", Do: "sysctl"},
				{Severity: kernel.Fatal, What: "port :8443 is taken", Do: "stop nginx, or choose another with --https"}}
		},
	}
	state := filepath.Join(t.TempDir(), "state")
	r := clitest.RunWith(t, programs, "", "up", "--state", state)
	r.Says(t, "up", exit.Failed, "port :8443 is taken", "stop nginx", "few keys")
	if _, err := os.Stat(filepath.Join(state, "run")); started || err == nil {
		t.Errorf("up went on: daemon started %v, %v", started, err)
	}
	clitest.RunWith(t, programs, "", "up", "now", "--state", state).Says(t, "an argument", exit.BadUsage,
		"got 1 arguments")
}

func TestProcessesRunWithTheirSettings(t *testing.T) {
	clitest.Home(t)
	var ran []string
	note := func(what string) func(context.Context, settings.Datacenter) error {
		return func(_ context.Context, s settings.Datacenter) error {
			ran = append(ran, what+" "+s.HTTPS+" "+s.Placement+" "+strings.Join(s.HostVolume, ","))
			return errors.New(what + " ended")
		}
	}
	programs := cli.Programs{Daemon: note("daemon"), Agent: note("agent")}
	args := []string{"--state", t.TempDir(), "--https", ":9443", "--placement", "binpack", "--host-volume", "/a",
		"--host-volume", "/b"}
	for _, name := range []string{"daemon", "agent"} {
		clitest.RunWith(t, programs, "", append([]string{name}, args...)...).Says(t, name, exit.Failed, name+" ended")
	}
	if want := []string{"daemon :9443 binpack /a,/b", "agent :9443 binpack /a,/b"}; !slices.Equal(ran, want) {
		t.Errorf("ran %q, want %q", ran, want)
	}
}

func TestStatusThatCannotBeHadSaysWhy(t *testing.T) {
	clitest.Home(t)
	for what, tc := range map[string]struct {
		status int
		body   string
		code   int
		says   string
	}{
		"no token":  {401, `{"message": "no token"}`, exit.Denied, "marina login"},
		"starting":  {503, `{"message": "no leader"}`, exit.Unreachable, "no leader"},
		"no answer": {200, `{"units": 7}`, exit.Failed, "not what this version expects"},
		"half of one": {200, `{"units": [{"id": "marina-x.service", "health": 1, "output": "sick"}]}`, exit.Failed,
			"1 parts of the datacenter"},
	} {
		clitest.Run(t, clitest.Answers(tc.status, tc.body), "", "status").Says(t, what, tc.code, tc.says)
	}
	r := clitest.Run(t, datacenterOf(clitest.WellUnits), "", "status", "--json")
	if r.Code != 0 || !strings.Contains(r.Out, `"marina-store.service"`) || strings.Contains(r.Out, "UNIT") {
		t.Errorf("status --json: exit %d, %q, want the answer alone", r.Code, r.Out)
	}
}
