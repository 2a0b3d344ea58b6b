package datacenter

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

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/settings"
)

// here is a verb over a datacenter of this machine, and what it says.
func here(t *testing.T, running bool) (*local, *bytes.Buffer) {
	t.Helper()
	var e bytes.Buffer
	env := &command.Env{Printer: output.Printer{Out: &e, Err: &e}, Options: client.Options{State: t.TempDir()}}
	l := newLocal(env, Programs{Running: func(settings.Datacenter) bool { return running }})
	l.settings.State = l.State
	return l, &e
}

func TestUpTellsAtOnceThatTheDaemonEnded(t *testing.T) {
	v, _ := here(t, false)
	if err := os.MkdirAll(filepath.Dir(daemonLog(v.State)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(daemonLog(v.State), []byte("marina: the disk is full\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	close(ended)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := v.ready(ctx, v.Progress(), ended)
	if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("got %v (%v), want at once what the daemon said last", err, ctx.Err())
	}
}

func TestUpWaitsForADaemonThatAnotherUpStarted(t *testing.T) {
	v, _ := here(t, true)
	v.Quiet = true
	v.programs.Preflight = nil // not asked: its ports are taken, by itself
	time.AfterFunc(100*time.Millisecond, func() { serveInfo(t, v, `{"healthy":true}`) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := v.up(ctx, false); err != nil {
		t.Errorf("up: %v", err)
	}
}

func TestUpNamesTheAlarmsOfADatacenterThatIsUp(t *testing.T) {
	v, said := here(t, true)
	serveInfo(t, v, `{"healthy":true,"url":"https://10.0.0.5:8443","units":[{"name":"master","healthy":true},{"name":"services","output":"app /x: unreadable\napp /y: unreadable"}]}`)
	if err := v.ready(t.Context(), v.Progress(), nil); err != nil {
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
	v, _ := here(t, false)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := v.end(ctx, cmd.Process.Pid); err != nil {
		t.Errorf("end: %v", err)
	}
}

// serveInfo answers on the admin socket.
func serveInfo(t *testing.T, v *local, answer string) {
	path := client.Socket(v.State)
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
