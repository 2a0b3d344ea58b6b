package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// TestMain is a machine's agent when a test starts this program as one: it says who it is and lives until it is told to end.
func TestMain(m *testing.M) {
	if len(os.Args) != 4 || os.Args[1] != "agent" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	s := &site{Config: Config{State: os.Args[3]}}
	release, err := s.writePID(ctx, s.agentPID())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "the agent runs in", s.State)
	<-ctx.Done()
	stop()
	release()
	os.Exit(0)
}

func completed(t *testing.T) *site {
	t.Helper()
	s, err := config(t).complete()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestALockThatAProcessHoldsIsRefusedAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run", "x.pid")
	synctest.Test(t, func(t *testing.T) {
		held, err := lock(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		begin := time.Now()
		if _, err := lock(t.Context(), file); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), file) {
			t.Errorf("taking it again: %v, want unavailable and which file", err)
		}
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("waited %v for a lock that nobody will give back, want not at all", waited)
		}
	})
}

func TestALockIsWaitedForWhileSomebodyLooksAtIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.pid")
	look := func() *os.File {
		f, err := os.OpenFile(file, os.O_RDONLY|os.O_CREATE, 0o600)
		if err == nil {
			err = unix.Flock(int(f.Fd()), unix.LOCK_SH)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	synctest.Test(t, func(t *testing.T) {
		looker := look()
		time.AfterFunc(lockPatience/2, func() { looker.Close() })
		f, err := lock(t.Context(), file)
		if err != nil {
			t.Fatalf("while somebody looks for a moment: %v, want it taken afterwards", err)
		}
		f.Close()

		looker = look()
		defer looker.Close()
		if _, err := lock(t.Context(), file); !errdefs.IsUnavailable(err) {
			t.Errorf("while somebody looks for ever: %v, want unavailable in the end", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begin := time.Now()
		if _, err := lock(ctx, file); !errors.Is(err, context.Canceled) || time.Since(begin) != 0 {
			t.Errorf("told to end: %v after %v, want the end at once", err, time.Since(begin))
		}
	})
}

func TestAnAgentWhoseBuildCannotBeNotedIsToldInTheDaemonsLog(t *testing.T) {
	s := completed(t)
	if err := os.MkdirAll(s.path("log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.path("run", "agent.build"), 0o700); err != nil { // no file can take its place
		t.Fatal(err)
	}
	var said bytes.Buffer
	pid, err := s.startAgent("build", slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := end(t.Context(), pid, 10*time.Second); err != nil {
			t.Error(err)
		}
	}()
	if !strings.Contains(said.String(), "agent's build not noted") {
		t.Errorf("the daemon's log has %q, want that the build was not noted", &said)
	}
}
