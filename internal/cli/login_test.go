package cli

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// nobody is an environment without a home folder and without anything said.
func nobody(t *testing.T) (temp string) {
	temp = t.TempDir()
	t.Setenv("TMPDIR", temp)
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "MARINA_URL", "MARINA_TOKEN", "MARINA_CA"} {
		t.Setenv(name, "")
	}
	return temp
}

// run runs a command line in the environment as it is.
func run(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(t.Context(), append(args, "--state", t.TempDir()), strings.NewReader(""), &o, &e, Programs{})
	return code, o.String(), e.String()
}

func TestWithoutAHomeNoLoginIsSavedNorRead(t *testing.T) {
	temp := nobody(t)
	srv := httptest.NewTLSServer(answers(200, `{}`))
	defer srv.Close()
	planted := filepath.Join(temp, "marina", "login.json")
	if err := os.MkdirAll(filepath.Dir(planted), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(planted, []byte(`{"url":"https://192.0.2.1:1","token":"planted"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, e := run(t, "app", "list"); code != ExitUnreachable || !strings.Contains(e, "no datacenter found") {
		t.Errorf("what anybody can plant: exit %d, error %q, want that there is no login", code, e)
	}
	code, _, e := run(t, "login", srv.URL, "--token", "secret")
	if code != ExitFailed || !strings.Contains(e, "HOME") || !strings.Contains(e, "MARINA_TOKEN") {
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
		{"http://marina.invalid" + port, "t", ExitUsage, "in clear"},
		{"http://192.0.2.1:9", "t", ExitUsage, "https://192.0.2.1:9"},
		{"ftp://marina.invalid:9", "t", ExitUsage, "https"},
		{"marina.invalid:9", "t", ExitUsage, "https"},
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

func TestARedirectTakesNoTokenIntoTheClear(t *testing.T) {
	for to, want := range map[string]bool{"https://marina.invalid/x": true, "http://127.0.0.1:8080/x": true, "http://marina.invalid/x": false} {
		req := httptest.NewRequest(http.MethodGet, to, nil)
		if err := followRedirect(req, nil); err != nil {
			t.Errorf("to %s without a token: %v, want it followed", to, err)
		}
		req.Header.Set("Authorization", "Bearer t")
		if err := followRedirect(req, nil); (err == nil) != want {
			t.Errorf("to %s with a token: %v, want followed %v", to, err, want)
		}
	}
	if err := followRedirect(httptest.NewRequest(http.MethodGet, "https://marina.invalid/", nil), make([]*http.Request, 10)); err == nil {
		t.Error("an eleventh redirect was followed, want an end")
	}
}
