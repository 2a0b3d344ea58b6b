package client

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/cli/exit"
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
	for to, want := range map[string]bool{"https://marina.invalid/x": true, "http://127.0.0.1:8080/x": true,
		"http://marina.invalid/x": false} {
		req := httptest.NewRequest(http.MethodGet, to, nil)
		if err := followRedirect(req, nil); err != nil {
			t.Errorf("to %s without a token: %v, want it followed", to, err)
		}
		req.Header.Set("Authorization", "Bearer t")
		if err := followRedirect(req, nil); (err == nil) != want {
			t.Errorf("to %s with a token: %v, want followed %v", to, err, want)
		}
	}
	if err := followRedirect(httptest.NewRequest(http.MethodGet, "https://marina.invalid/", nil),
		make([]*http.Request, 10)); err == nil {
		t.Error("an eleventh redirect was followed, want an end")
	}
}

func TestWhomToSpeakToIsFoundInOrder(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("MARINA_TOKEN", "")
	nowhere := t.TempDir()
	if _, err := (&Options{State: nowhere}).account(t.Context()); !exit.Is(err, exit.Unreachable) ||
		!strings.Contains(err.Error(), "no datacenter found") {
		t.Errorf("with nothing: %v, want that there is none", err)
	}
	file, err := LoginFile()
	if err != nil {
		t.Fatal(err)
	}
	saved := Account{URL: "https://saved:8443", Token: "saved", CA: "saved CA"}
	if err := saved.Save(file); err != nil {
		t.Fatal(err)
	}
	here := t.TempDir()
	serveSocket(t, here, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			fmt.Fprintf(w, `{"token":"socket","expires":"%s"}`, time.Now().Add(time.Hour).Format(time.RFC3339))
			return
		}
		io.WriteString(w, `{"url":"https://here:8443","ca":"here CA"}`)
	}))
	for what, tc := range map[string]struct {
		o    Options
		env  string
		want Account
	}{
		"a saved login": {Options{State: nowhere}, "", saved},
		"a saved login, another token": {Options{State: nowhere}, "env",
			Account{URL: saved.URL, Token: "env", CA: saved.CA}},
		"the machine's own": {Options{State: here}, "",
			Account{URL: "https://here:8443", Token: "socket", CA: "here CA"}},
		"the machine's own, with a token": {Options{State: here, Token: "flag"}, "env",
			Account{URL: "https://here:8443", Token: "flag", CA: "here CA"}},
		"an address": {Options{State: here, URL: "https://said:8443/"}, "env",
			Account{URL: "https://said:8443", Token: "env"}},
		"the saved address": {Options{State: here, URL: "https://saved:8443"}, "", saved},
		"the saved address, another token": {Options{State: here, URL: "https://saved:8443/", Token: "flag"}, "",
			Account{URL: saved.URL, Token: "flag", CA: saved.CA}},
		"another address gets no old token": {Options{State: here, URL: "https://other:8443"}, "",
			Account{URL: "https://other:8443"}},
	} {
		t.Setenv("MARINA_TOKEN", tc.env)
		got, err := tc.o.account(t.Context())
		got.Until = time.Time{}
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v (%v), want %+v", what, got, err, tc.want)
		}
	}
}

func TestTheSocketIsForRootOnly(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	o := Options{State: t.TempDir()}
	dir := filepath.Dir(Socket(o.State))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		t.Skip("root may open everything")
	}
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	if _, err := o.account(t.Context()); !exit.Is(err, exit.Denied) {
		t.Errorf("got %v, want that it is not for this user", err)
	}
}

func TestSaveLeavesNothingThatOthersCanRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "login.json")
	for _, token := range []string{"first", "second"} {
		if err := (Account{Token: token}).Save(file); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(file)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("saved as %v (%v), want mode 0600", fi, err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(b), "second") {
		t.Errorf("saved %q (%v), want the second token", b, err)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Errorf("left %v (%v), want the file alone", left, err)
	}
}

// serve makes a client of a server.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	t.Setenv("HOME", t.TempDir())
	cl, err := (&Options{URL: srv.URL, Token: "secret"}).Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

func TestRequestsCarryTokenAndJSON(t *testing.T) {
	cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.URL, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), b)
	})
	for in, want := range map[any]string{
		nil: "", 7: "7", struct {
			A string `json:"a"`
		}{"b"}: `{"a":"b"}`,
	} {
		status, b, err := cl.Send(t.Context(), http.MethodPut, "/x?y=z", in)
		if want = "PUT /x?y=z Bearer secret application/json " + want; err != nil || status != 201 || string(b) != want {
			t.Errorf("%v: %d %q (%v), want 201 %q", in, status, b, err, want)
		}
	}
	if b, err := cl.Call(t.Context(), http.MethodPost, "/raw", []byte("as it is")); err != nil ||
		!bytes.HasSuffix(b, []byte("as it is")) {
		t.Errorf("bytes: %q (%v), want them sent as they are", b, err)
	}
	if _, err := cl.Call(t.Context(), http.MethodPost, "/x", func() {}); err == nil {
		t.Error("a value that JSON cannot have was sent")
	}
}

func TestAnswersThatAreNoneAreErrors(t *testing.T) {
	cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			io.WriteString(w, `{"a":1}`)
		case "/text":
			io.WriteString(w, `hello`)
		default:
			w.WriteHeader(http.StatusTeapot)
		}
	})
	var out struct{ A int }
	if b, err := cl.Get(t.Context(), "/good", &out); err != nil || out.A != 1 || string(b) != `{"a":1}` {
		t.Errorf("good: %q %+v (%v)", b, out, err)
	}
	if _, err := cl.Get(t.Context(), "/text", &out); err == nil || !strings.Contains(err.Error(), "/text") {
		t.Errorf("text: %v, want an error that names the path", err)
	}
	if err := Unmarshal([]byte("x"), &out); err == nil {
		t.Error("what is not JSON was read")
	}
	if _, err := cl.Get(t.Context(), "/tea", &out); !exit.Is(err, exit.Failed) || !strings.Contains(err.Error(), "418") {
		t.Errorf("tea: %v, want the status", err)
	}
	if _, err := cl.Read(t.Context(), "/tea"); !exit.Is(err, exit.Failed) {
		t.Errorf("a stream of tea: %v, want an error", err)
	}
	resp, err := cl.Read(t.Context(), "/text")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hello" {
		t.Errorf("a stream: %q (%v)", b, err)
	}
}

func TestAnswersSayWhatToDoNext(t *testing.T) {
	for _, tc := range []struct {
		status  int
		body    string
		code    int
		message string
		next    string
	}{
		{404, `{"message":"App '/x' does not exist"}`, exit.NotFound, "App '/x' does not exist", ""},
		{409, `{"message":"locked","deployments":[{"id":"d1"},{"id":"d2"}]}`, exit.Conflict, "locked",
			"marina deployment follow d1, or --force"},
		{409, `{"message":"exists"}`, exit.Conflict, "exists", ""},
		{401, `{"description":"no token"}`, exit.Denied, "no token", "marina login URL --token TOKEN"},
		{403, `{}`, exit.Denied, "the datacenter answered 403", ""},
		{503, ``, exit.Unreachable, "the datacenter answered 503", "again in a moment; marina status tells what is not well"},
		{502, `<html>`, exit.Unreachable, "the datacenter answered 502",
			"again in a moment; marina status tells what is not well"},
		{422, `{"message":"not valid","details":[{"path":"/cpus","errors":["error.min","odd"]},{"path":"/id","errors":["bad"]}]}`,
			exit.Failed, "not valid\n  /cpus: error.min; odd\n  /id: bad", ""},
		{422, `{"message":"not valid","details":"in words"}`, exit.Failed, "not valid: in words", ""},
		{500, `{"message":"broken","details":17}`, exit.Failed, "broken", ""},
	} {
		e, ok := errors.AsType[*exit.Error](AnswerError(tc.status, []byte(tc.body)))
		if !ok || e.Code != tc.code || e.Message != tc.message || e.Next != tc.next {
			t.Errorf("%d %s: %+v, want code %d, %q and %q", tc.status, tc.body, e, tc.code, tc.message, tc.next)
		}
	}
}

func TestWhoDoesNotAnswerIsNamed(t *testing.T) {
	cl := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err := cl.Call(t.Context(), http.MethodGet, "/", nil)
	if e, ok := errors.AsType[*exit.Error](err); !ok || e.Code != exit.Unreachable ||
		!strings.HasPrefix(e.Message, cl.URL+" does not answer: ") || strings.Contains(e.Message, "Get ") {
		t.Errorf("got %v, want who does not answer and why, in one sentence", err)
	}
	cl.URL = "http://bad host"
	if _, err := cl.Call(t.Context(), http.MethodGet, "/", nil); !exit.Is(err, exit.BadUsage) {
		t.Errorf("an address that is none: %v, want an error of usage", err)
	}
}

func TestACAIsReadFromAFile(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter,
		_ *http.Request) {
		io.WriteString(w, "{}")
	}))
	defer srv.Close()
	srv.Config.ErrorLog = nil
	t.Setenv("HOME", t.TempDir())
	o := Options{URL: srv.URL, Token: "t", CA: filepath.Join(t.TempDir(), "ca.pem")}
	if _, err := o.Client(t.Context()); !exit.Is(err, exit.BadUsage) {
		t.Errorf("a CA file that is not there: %v, want an error of usage", err)
	}
	if err := os.WriteFile(o.CA, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Client(t.Context()); !exit.Is(err, exit.BadUsage) {
		t.Errorf("a CA file that has none: %v, want an error of usage", err)
	}
	pemText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(o.CA, pemText, 0o600); err != nil {
		t.Fatal(err)
	}
	cl, err := o.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Call(t.Context(), http.MethodGet, "/", nil); err != nil {
		t.Errorf("with its CA: %v", err)
	}
	o.CA = ""
	if cl, err = o.Client(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Call(t.Context(), http.MethodGet, "/", nil); !exit.Is(err, exit.Denied) ||
		!strings.Contains(err.Error(), "not trusted") {
		t.Errorf("without its CA: %v, want that it is not trusted", err)
	}
}

func TestEventsAreReadOneByOne(t *testing.T) {
	stream := "data: {\"n\":0}\n\nevent: a\ndata: {\"n\":1}\n\n: comment\nevent:b\ndata:{\"n\":2}\n\ndata: " + strings.Repeat("x", 1<<20) + "\n\nevent: c\ndata: last\n"
	var got []string
	ScanEvents(strings.NewReader(stream), func(kind string, data []byte) bool {
		got = append(got, fmt.Sprintf("%s %.10s", kind, data))
		return len(got) < 4
	})
	if want := ` {"n":0}|a {"n":1}|b {"n":2}|b xxxxxxxxxx`; strings.Join(got, "|") != want {
		t.Errorf("read %q, want %q", got, want)
	}
	cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != "text/event-stream" || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("asked with %v, want a stream and the token", r.Header)
		}
		if r.URL.Path == "/none" {
			w.WriteHeader(http.StatusNotFound)
		}
		io.WriteString(w, "event: x\ndata: 1\n\n")
	})
	if _, err := cl.Events(t.Context(), "/none"); !exit.Is(err, exit.NotFound) {
		t.Errorf("no stream: %v, want not found", err)
	}
	body, err := cl.Events(t.Context(), "/some")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	ScanEvents(body, func(kind string, data []byte) bool {
		if kind != "x" || string(data) != "1" {
			t.Errorf("event %s %s", kind, data)
		}
		return true
	})
}

func TestTheSocketsAnswersAreChecked(t *testing.T) {
	o := Options{State: t.TempDir()}
	answer, status := `{"healthy":true,"pid":7,"units":[{"name":"store","healthy":true}]}`, http.StatusOK
	serveSocket(t, o.State, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	i, err := o.Info(t.Context())
	if err != nil || !i.Healthy || i.PID != 7 || len(i.Units) != 1 || i.Units[0].Name != "store" {
		t.Errorf("got %+v (%v)", i, err)
	}
	answer = "{"
	if _, err := o.Info(t.Context()); err == nil {
		t.Error("a torn answer was read")
	}
	answer, status = `{"message":"root only"}`, http.StatusForbidden
	if _, err := o.Info(t.Context()); !exit.Is(err, exit.Denied) || err.Error() != "root only" {
		t.Errorf("refused: %v, want what it said", err)
	}
}
