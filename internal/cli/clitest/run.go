package clitest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/cli"
)

// Limit bounds a command line of a test: a verb that does not end is one that fails.
const Limit = 30 * time.Second

// Home makes a home directory of its own for the test, and an environment in which nothing is said of any datacenter.
func Home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	for _, name := range []string{"XDG_CONFIG_HOME", "KUBECONFIG", "MARINA_URL", "MARINA_TOKEN", "MARINA_CA",
		"MARINA_STATE", "MARINA_HTTPS", "MARINA_HTTP",
		"MARINA_AGENT_PORT", "MARINA_RUNTIME", "MARINA_VERBOSE"} {
		t.Setenv(name, "")
	}
	return dir
}

// Result is the outcome of a command line.
type Result struct {
	Code     int
	Out, Err string
}

// Run runs a command line against a datacenter's API.
func Run(t *testing.T, api http.Handler, in string, args ...string) Result {
	t.Helper()
	srv := httptest.NewServer(api)
	defer srv.Close()
	defer srv.CloseClientConnections() // streams that somebody still follows
	return RunWith(t, cli.Programs{}, in, append([]string{"--url", srv.URL, "--token", "t", "--state", t.TempDir()},
		args...)...)
}

// RunWith runs a command line as it stands, with the programs that main would lend.
func RunWith(t *testing.T, programs cli.Programs, in string, args ...string) Result {
	t.Helper()
	var out, errOut bytes.Buffer
	code := RunOn(t, programs, strings.NewReader(in), &out, &errOut, args...)
	return Result{code, out.String(), errOut.String()}
}

// RunOn is RunWith with streams of the caller's.
func RunOn(t *testing.T, programs cli.Programs, in io.Reader, out, errOut io.Writer, args ...string) (code int) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), Limit, errors.New("it does not end"))
	defer cancel()
	code = cli.Run(ctx, args, in, out, errOut, programs)
	if ctx.Err() != nil && t.Context().Err() == nil {
		t.Errorf("marina %s: %v", strings.Join(args, " "), context.Cause(ctx))
	}
	return code
}

// Answers is an API that answers everything with the same.
func Answers(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

// PEM is a certificate as --ca takes it.
func PEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Same compares texts.
func Same(t *testing.T, what, got, want string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s, want (-) and got (+):\n%s", what, d)
	}
}

// Says checks a result's code, and that its errors say something.
func (r Result) Says(t *testing.T, what string, code int, says ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("%s: exit %d, want %d; output %q, error %q", what, r.Code, code, r.Out, r.Err)
	}
	for _, s := range says {
		if !strings.Contains(r.Err, s) {
			t.Errorf("%s: error %q does not say %q", what, r.Err, s)
		}
	}
}
