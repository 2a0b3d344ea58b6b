package stories

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

// revokeLimit bounds the time that a stream goes on after its token's end.
const revokeLimit = 2 * time.Second

// skew is the time that a token is good longer than it says, for masters whose clocks differ.
const skew = time.Minute

// token makes a token by the command and returns it with its id.
func token(t *testing.T, h *testbed.Datacenter, flags ...string) (secret, id string) {
	t.Helper()
	var made struct{ Token, ID string }
	decode(t, h.Must(t, append([]string{"token", "create", "--json"}, flags...)...), &made)
	return made.Token, made.ID
}

func TestARevokedTokenEndsItsStreamsAtOnce(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	secret, id := token(t, h)
	mine := *c
	mine.Auth = "Bearer " + secret
	mine.Ask(t, "GET", "/v2/apps", nil, 200, nil)

	req, err := http.NewRequestWithContext(t.Context(), "GET", c.Base+testbed.Marathon+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "token="+secret)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := (&http.Client{Transport: c.HTTPS.Transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || !strings.Contains(lines.Text(), "event_stream_attached") {
		t.Fatalf("the stream begins with %q, %v", lines.Text(), lines.Err())
	}
	ended := make(chan time.Time, 1)
	go func() {
		for lines.Scan() {
		}
		ended <- time.Now()
	}()
	h.Must(t, "token", "revoke", id)
	revoked := time.Now()
	select {
	case at := <-ended:
		t.Logf("the stream ended %v after the revocation was answered", at.Sub(revoked))
	case <-time.After(revokeLimit):
		t.Errorf("the stream still goes on %v after its token was revoked", revokeLimit)
	}
	if a := mine.Ask(t, "GET", "/v2/apps", nil, 401, nil); !strings.Contains(string(a.Body), "revoked") {
		t.Errorf("a revoked token: got %v, want it to say so", a)
	}
	if list := h.Must(t, "token", "list"); strings.Contains(list, id) {
		t.Errorf("token list still has %s: %s", id, list)
	}
	if o := h.Run("token", "revoke", id); o.Code != 3 {
		t.Errorf("revoking it again: got %+v, want exit code 3", o)
	}
}

func TestAnExpiredTokenIsRefused(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	fresh, _ := token(t, h, "--ttl", "2s")
	mine := *c
	mine.Auth = "Bearer " + fresh
	mine.Ask(t, "GET", "/v2/apps", nil, 200, nil)
	mine.Auth = "Bearer " + shortLived // made long ago, so that waiting for its end is short
	testbed.Until(t, skew+10*time.Second, "the token's end", func() error {
		a, err := mine.Do("GET", "/v2/apps", nil)
		if err == nil && (a.Status != 401 || !strings.Contains(string(a.Body), "expired")) {
			err = fmt.Errorf("%d %.100s", a.Status, a.Body)
		}
		return err
	})
	for _, args := range [][]string{{"--ttl", "0s"}, {"--ttl", "-1h"}, {"--ttl", "1000000h"}} {
		if o := h.Run(append([]string{"token", "create"}, args...)...); o.Code == 0 {
			t.Errorf("token create %v: got a token, want a refusal", args)
		}
	}
}

func TestSomeoneOnAnotherComputerLogsIn(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	other, err := testbed.NewComputer()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	removeAfter(t, c, "/seen")
	c.Deploy(t, h.ProbeApp("/seen", 1))

	home := t.TempDir()
	ca := filepath.Join(home, "ca.crt")
	if err := os.WriteFile(ca, []byte(h.Must(t, "token", "ca")), 0o600); err != nil {
		t.Fatal(err)
	}
	secret, id := token(t, h)
	_, port, _ := strings.Cut(h.HTTPS, ":")
	url := "https://" + outward(t) + ":" + port
	env := []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "MARINA_STATE=" + filepath.Join(home, "nothing")}
	run := func(more []string, args ...string) testbed.Output {
		return other.Run(append(env, more...), h.Marina, args...)
	}

	if o := run(nil, "app", "list"); o.Code != 7 || !strings.Contains(o.Err, "marina login") {
		t.Errorf("before login: got %+v, want exit code 7 and the way to log in", o)
	}
	if o := run([]string{"MARINA_TOKEN=" + secret}, "login", url); o.Code != 5 || !strings.Contains(o.Err, "--ca") {
		t.Errorf("login without the CA: got %+v, want exit code 5 and --ca", o)
	}
	if o := run([]string{"MARINA_TOKEN=wrong.wrong.wrong"}, "login", url, "--ca", ca); o.Code != 5 {
		t.Errorf("login with a wrong token: got %+v, want exit code 5", o)
	}
	if o := run([]string{"MARINA_TOKEN=" + secret}, "login", url, "--ca", ca); o.Code != 0 {
		t.Fatalf("login: got %+v", o)
	}
	if o := run(nil, "app", "list"); o.Code != 0 || !strings.Contains(o.Out, "/seen") {
		t.Errorf("app list after login: got %+v, want /seen in it", o)
	}
	if o := run(nil, "task", "exec", "seen", "--", "/probe"); o.Code != 2 {
		t.Errorf("exec from another computer: got %+v, want the command's own exit code 2", o)
	}
	h.Must(t, "token", "revoke", id)
	if o := run(nil, "app", "list"); o.Code != 5 {
		t.Errorf("after the token was revoked: got %+v, want exit code 5", o)
	}
}
