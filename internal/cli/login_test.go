package cli_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/cli"
	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
)

// nobody is an environment without a home directory and without anything said.
func nobody(t *testing.T) (temp string) {
	clitest.Home(t)
	temp = t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("HOME", "")
	return temp
}

// run runs a command line in the environment as it is.
func run(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	r := clitest.RunWith(t, cli.Programs{}, "", append(args, "--state", t.TempDir())...)
	return r.Code, r.Out, r.Err
}

func TestWithoutAHomeNoLoginIsSavedNorRead(t *testing.T) {
	temp := nobody(t)
	srv := httptest.NewTLSServer(clitest.Answers(200, `{}`))
	defer srv.Close()
	planted := filepath.Join(temp, "marina", "login.json")
	if err := os.MkdirAll(filepath.Dir(planted), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(planted, []byte(`{"url":"https://192.0.2.1:1","token":"planted"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, e := run(t, "app", "list"); code != exit.Unreachable || !strings.Contains(e, "no datacenter found") {
		t.Errorf("what anybody can plant: exit %d, error %q, want that there is no login", code, e)
	}
	code, _, e := run(t, "login", srv.URL, "--token", "secret")
	if code != exit.Failed || !strings.Contains(e, "HOME") || !strings.Contains(e, "MARINA_TOKEN") {
		t.Errorf("login: exit %d, error %q, want a refusal that names HOME, and what works without it", code, e)
	}
	if b, err := os.ReadFile(planted); err != nil || strings.Contains(string(b), "secret") {
		t.Errorf("the planted file is %q (%v), want it as it was", b, err)
	}
}

func TestATokenGoesInClearToThisMachineOnly(t *testing.T) {
	nobody(t)
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Authorization"))
		io.WriteString(w, `{"apps":[]}`)
	}))
	defer srv.Close()
	port := srv.URL[strings.LastIndex(srv.URL, ":"):]
	for _, tc := range []struct {
		url, token string
		code       int
		says       string
	}{
		{srv.URL, "t", 0, ""},
		{"http://localhost" + port, "t", 0, ""},
		{"http://marina.invalid" + port, "t", exit.BadUsage, "in clear"},
		{"http://192.0.2.1:9", "t", exit.BadUsage, "https://192.0.2.1:9"},
		{"ftp://marina.invalid:9", "t", exit.BadUsage, "https"},
		{"marina.invalid:9", "t", exit.BadUsage, "https"},
	} {
		t.Setenv("MARINA_URL", tc.url)
		t.Setenv("MARINA_TOKEN", tc.token)
		if code, _, e := run(t, "app", "list"); code != tc.code || !strings.Contains(e, tc.says) {
			t.Errorf("%s with token %q: exit %d, error %q, want %d and %q", tc.url, tc.token, code, e, tc.code, tc.says)
		}
	}
	if len(asked) != 2 {
		t.Errorf("asked with %q, want the two of this machine", asked)
	}
}
