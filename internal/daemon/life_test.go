package daemon

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/durable"
)

func TestDownWhereNothingWasStartedDoesNothing(t *testing.T) {
	for what, dir := range map[string]string{"no directory": filepath.Join(t.TempDir(), "none"),
		"empty directory": t.TempDir()} {
		c := given(t)
		c.State = dir
		var said strings.Builder
		if err := Down(t.Context(), c, &said); err != nil || !strings.Contains(said.String(), "no datacenter was started") {
			t.Errorf("%s: %v, said %q; want no error and that there is nothing", what, err, &said)
		}
	}
}

func TestCleanLeavesDirectoriesAloneThatAreNotOurs(t *testing.T) {
	c := given(t)
	file := filepath.Join(c.State, "network", "interfaces")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Clean(t.Context(), c, io.Discard); !errdefs.IsFailedPrecondition(err) ||
		!strings.Contains(err.Error(), "network") {
		t.Errorf("clean: %v, want a refusal that says what is there", err)
	}
	if err := Run(t.Context(), c); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("run: %v, want a refusal", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("somebody's file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.State, "run")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("somebody's directory was written to: %v", err)
	}
}

func TestCleanRemovesWhatAStartThatFailedLeft(t *testing.T) {
	c := given(t)
	s, err := complete(c)
	if err != nil {
		t.Fatal(err)
	}
	release, err := s.writePID(t.Context(), s.daemonPID())
	if err != nil {
		t.Fatal(err)
	}
	release()
	for _, name := range []string{"log/daemon.log", "root.key", ".new-1"} {
		if err := replaceFile(s.path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Clean(t.Context(), c, io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.State); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("state directory: %v, want it gone", err)
	}
}

func TestNothingStartsWhileADatacenterIsTakenDown(t *testing.T) {
	c := given(t)
	s, err := complete(c)
	if err != nil {
		t.Fatal(err)
	}
	err = take(t.Context(), c, io.Discard, func(_ context.Context, _ *config, _ *machine) error {
		for _, file := range []string{s.daemonPID(), s.agentPID()} {
			if _, err := s.writePID(t.Context(), file); !errdefs.IsUnavailable(err) {
				t.Errorf("%s was taken (%v), want unavailable", file, err)
			}
			if pid := durable.Holder(file); pid != 0 {
				t.Errorf("%s names process %d, which another down would end", file, pid)
			}
		}
		if err := Down(t.Context(), c, io.Discard); !errdefs.IsUnavailable(err) {
			t.Errorf("a second down: %v, want unavailable", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAPIDFileThatIsOnlyLookedAtNamesNobody(t *testing.T) {
	s, err := complete(given(t))
	if err != nil {
		t.Fatal(err)
	}
	release, err := s.writePID(t.Context(), s.agentPID())
	if err != nil {
		t.Fatal(err)
	}
	release() // its content is stale now, and the number may be anybody's
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 {
			durable.Holder(s.agentPID())
		}
	}()
	for range 2000 {
		if pid := durable.Holder(s.agentPID()); pid != 0 {
			t.Fatalf("two who look at once: one sees process %d, which holds nothing", pid)
		}
	}
	<-done
	if release, err = s.writePID(t.Context(), s.agentPID()); err != nil {
		t.Fatalf("taking it after they looked: %v", err)
	}
	release()
}

func TestADaemonGoesOnWhileItsAgentCannotBeStarted(t *testing.T) {
	s, err := complete(given(t))
	if err != nil {
		t.Fatal(err)
	}
	// There is no directory for the agent's log: starting it fails, as on a full disk.
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.keepAgent(ctx, "build", slog.New(slog.DiscardHandler)); err != nil || ctx.Err() == nil {
			t.Errorf("supervision ended with %v before its context, want it to try again", err)
		}
	})
}

func TestAStateDirectoryWithTooLongAPathIsRefused(t *testing.T) {
	c := given(t)
	c.State = filepath.Join(c.State, strings.Repeat("a", 100))
	if err := Run(t.Context(), c); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("run: %v, want a refusal that names the limit", err)
	}
}

func TestAgentIDIsOneForAllWhoAskAtOnce(t *testing.T) {
	for range 20 {
		s, err := complete(given(t))
		if err != nil {
			t.Fatal(err)
		}
		ids := make(chan string, 8)
		for range cap(ids) {
			go func() {
				id, err := s.agentID()
				if err != nil {
					id = err.Error()
				}
				ids <- id
			}()
		}
		first := <-ids
		for range cap(ids) - 1 {
			if id := <-ids; id != first {
				t.Fatalf("one is told %q, another %q", first, id)
			}
		}
	}
}

func TestAnAgentIDThatCannotBeReadIsNotReplaced(t *testing.T) {
	s, err := complete(given(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("agent.id", s.path("agent.id")); err != nil { // reading it fails, writing another would not
		t.Fatal(err)
	}
	if id, err := s.agentID(); err == nil {
		t.Errorf("got a new name %s, want an error", id)
	}
}
