package client

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// serveSocket answers on a datacenter's admin socket.
func serveSocket(t *testing.T, state string, h http.Handler) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(Socket(state)), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", Socket(state))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	t.Cleanup(func() { srv.Close() })
	go srv.Serve(l)
}

func TestTheLocalDatacenterIsAskedWhereItListens(t *testing.T) {
	o := Options{State: t.TempDir()}
	serveSocket(t, o.State, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewEncoder(w).Encode(Info{URL: "https://127.0.0.1:9443", CA: "pem"}); err != nil {
			t.Error(err)
		}
	}))
	old := Account{URL: "https://127.0.0.1:8443", CA: "pem", Token: "still good", Until: time.Now().Add(time.Hour)}
	if err := old.Save(filepath.Join(o.State, "run", "admin.token")); err != nil {
		t.Fatal(err)
	}
	a, err := o.local(t.Context())
	if err != nil || a.URL != "https://127.0.0.1:9443" || a.Token != "still good" {
		t.Errorf("got %s with token %q (%v), want the address it has now and the token kept", a.URL, a.Token, err)
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
