package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func local(t *testing.T, running bool) (*invocation, *bytes.Buffer) {
	t.Helper()
	var e bytes.Buffer
	return &invocation{settings: Settings{State: t.TempDir()}, out: &e, err: &e, programs: Programs{Running: func(Settings) bool { return running }}}, &e
}

func TestUpTellsAtOnceThatTheDaemonEnded(t *testing.T) {
	v, _ := local(t, false)
	if err := os.MkdirAll(filepath.Dir(v.daemonLog()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.daemonLog(), []byte("marina: the disk is full\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	close(ended)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := v.ready(ctx, v.progress(), ended)
	if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("got %v (%v), want at once what the daemon said last", err, ctx.Err())
	}
}

func TestUpWaitsForADaemonThatAnotherUpStarted(t *testing.T) {
	v, _ := local(t, true)
	v.quiet = true
	v.programs.Preflight = nil // not asked: its ports are taken, by itself
	time.AfterFunc(100*time.Millisecond, func() { serveInfo(t, v, `{"healthy":true}`) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := v.up(ctx, false); err != nil {
		t.Errorf("up: %v", err)
	}
}

func TestUpNamesTheAlarmsOfADatacenterThatIsUp(t *testing.T) {
	v, said := local(t, true)
	serveInfo(t, v, `{"healthy":true,"url":"https://10.0.0.5:8443","units":[{"name":"master","healthy":true},{"name":"services","output":"app /x: unreadable\napp /y: unreadable"}]}`)
	if err := v.ready(t.Context(), v.progress(), nil); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(said.String(), "  !!  services: app /x: unreadable\n  !!  services: app /y: unreadable\n") {
		t.Errorf("said %q, want each alarm in a line", said)
	}
}

func TestADeadProcessThatNobodyWaitedForHasEnded(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	v, _ := local(t, false)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := v.end(ctx, cmd.Process.Pid); err != nil {
		t.Errorf("end: %v", err)
	}
}

func TestTheLocalDatacenterIsAskedWhereItListens(t *testing.T) {
	v, _ := local(t, true)
	serveInfo(t, v, `{"url":"https://127.0.0.1:9443","ca":"pem"}`)
	old := account{URL: "https://127.0.0.1:8443", CA: "pem", Token: "still good", Until: time.Now().Add(time.Hour)}
	if err := saveAs(filepath.Join(v.settings.State, "run", "admin.token"), old); err != nil {
		t.Fatal(err)
	}
	a, err := v.local(t.Context())
	if err != nil || a.URL != "https://127.0.0.1:9443" || a.Token != "still good" {
		t.Errorf("got %s with token %q (%v), want the address it has now and the token kept", a.URL, a.Token, err)
	}
}

// serveInfo answers on the admin socket.
func serveInfo(t *testing.T, v *invocation, answer string) {
	path := Socket(v.settings.State)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Error(err)
		return
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Error(err)
		return
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewEncoder(w).Encode(json.RawMessage(answer)); err != nil {
			t.Error(err)
		}
	})}
	t.Cleanup(func() { srv.Close() })
	go srv.Serve(l)
}
