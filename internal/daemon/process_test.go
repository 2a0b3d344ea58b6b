package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/settings"
)

// TestMain is a machine's agent when a test starts this program as one: it says who it is and lives until it is told to
// end.
func TestMain(m *testing.M) {
	if len(os.Args) != 4 || os.Args[1] != "agent" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	s := &config{Datacenter: settings.Datacenter{State: os.Args[3]}}
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

func completed(t *testing.T) *config {
	t.Helper()
	s, err := complete(given(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
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
