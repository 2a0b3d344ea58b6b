package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/durable"
)

// supervised keeps an agent running for a state until stop, which returns once nobody keeps it any more.
func supervised(t *testing.T, c *config, build string) (log *bytes.Buffer, stop func()) {
	t.Helper()
	if err := os.MkdirAll(c.path("log"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	log = &bytes.Buffer{}
	wg.Go(func() {
		if err := c.keepAgent(ctx, build, slog.New(slog.NewTextHandler(log, nil))); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(func() {
		stop()
		endAgent(t, c)
	})
	return log, stop
}

// other waits until another agent than pid runs.
func other(t *testing.T, c *config, pid int) (now int) {
	t.Helper()
	await(t, "another agent", func() bool {
		now = durable.Holder(c.agentPID())
		return now != 0 && now != pid
	})
	return now
}

func TestAnAgentThatDiesIsStartedAgain(t *testing.T) {
	c := completed(t)
	log, stop := supervised(t, c, "build")
	first := other(t, c, 0)
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := other(t, c, first)
	stop()
	if pid := durable.Holder(c.agentPID()); pid != second {
		t.Errorf("after its daemon ended the agent is process %d, want %d still", pid, second)
	}
	if !strings.Contains(log.String(), "agent ended, starting it again") {
		t.Errorf("the log has %q, want that the agent ended", log)
	}
	b, err := os.ReadFile(c.path("log", "agent.log"))
	if want := "the agent runs in " + c.State; err != nil || strings.Count(string(b), want) != 2 {
		t.Errorf("the agents' log is %q (%v), want what both said", b, err)
	}
}

func TestAnAgentOfThisBuildIsAdoptedAndOneOfAnotherReplaced(t *testing.T) {
	c := completed(t)
	_, stop := supervised(t, c, "one")
	first := other(t, c, 0)
	stop()
	_, stop = supervised(t, c, "one")
	stop()
	if pid := durable.Holder(c.agentPID()); pid != first {
		t.Errorf("a daemon of the same build has agent %d, want %d adopted", pid, first)
	}
	log, _ := supervised(t, c, "two")
	second := other(t, c, first)
	if err := unix.Kill(first, 0); !errors.Is(err, unix.ESRCH) && !zombie(first) {
		t.Errorf("the agent of the other build: %v, want it gone", err)
	}
	if second == first {
		t.Errorf("agent %d, want another process: %s", second, log)
	}
}

// zombie reports whether a process is dead and only not waited for.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(b), ") ")
	return err == nil && strings.HasPrefix(state, "Z")
}

func TestLogsOfProcessesAreTurnedOnceTheyAreLarge(t *testing.T) {
	file := completed(t).path("x.log")
	write := func(text string) {
		t.Helper()
		f, err := openLog(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.WriteString(f, text); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	write("second\n")
	if b, err := os.ReadFile(file); err != nil || string(b) != "first\nsecond\n" {
		t.Errorf("the log is %q (%v), want it continued", b, err)
	}
	if err := os.Truncate(file, maxLog+1); err != nil {
		t.Fatal(err)
	}
	write("third\n")
	if b, err := os.ReadFile(file); err != nil || string(b) != "third\n" {
		t.Errorf("the log is %.100q (%v), want a new one", b, err)
	}
	fi, err := os.Stat(file + ".1")
	if err != nil || fi.Size() != maxLog+1 {
		t.Errorf("the one before is %v (%v), want it kept", fi, err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the log is %v (%v), want it for its owner only", fi, err)
	}
}

func TestAProcessThatIsGoneHasEnded(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := waitFor(t.Context(), cmd.Process.Pid); err != nil {
		t.Errorf("waiting for it: %v, want nil", err)
	}
	if err := end(t.Context(), cmd.Process.Pid, time.Minute); err != nil {
		t.Errorf("ending it: %v, want nil", err)
	}
}

func TestWaitingForAProcessEndsWithItsContext(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := waitFor(ctx, cmd.Process.Pid); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
	if err := end(ctx, cmd.Process.Pid, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("ending it without time: %v, want the context's end", err)
	}
}
