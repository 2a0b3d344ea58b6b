package daemon

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/machine"
)

// patience is how long a test waits for something that is to happen at once.
const patience = 20 * time.Second

// TestMain lets the test's own program stand in for those of the bundle, by the name of a link to it. Files beside the
// link say how it behaves.
func TestMain(m *testing.M) {
	name, dir := filepath.Base(os.Args[0]), filepath.Dir(os.Args[0])
	switch {
	case len(os.Args) == 2 && os.Args[1] == "--version":
		if version, err := os.ReadFile(filepath.Join(dir, name+".version")); err == nil {
			os.Stdout.Write(version)
			return
		}
		os.Exit(1)
	case name == "containerd" || name == "containerd-shim-runc-v2":
		if _, err := os.Stat(filepath.Join(dir, name+".dies")); err == nil {
			os.Exit(3)
		}
		term := make(chan os.Signal, 1)
		signal.Notify(term, unix.SIGTERM)
		<-term
		return
	}
	os.Exit(m.Run())
}

// bundle is a directory with programs of these versions, as they say them.
func bundle(t *testing.T, versions map[string]string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"runc", "containerd", "containerd-shim-runc-v2"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, name+".version"), versions[name])
	}
	return dir
}

var good = map[string]string{"runc": "runc version 1.5.0\ncommit: x\n", "containerd": "containerd x/v2 v2.3.2 abc\n"}

func put(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// place is where a containerd lives, with nothing there yet. At the end of the test it runs no more.
func place(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{Bin: bundle(t, good), File: filepath.Join(dir, "containerd.toml"), Log: filepath.Join(dir, "log"),
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Temp: filepath.Join(dir, "temp"),
		Socket: filepath.Join(dir, "c.sock"), Shims: filepath.Join(dir, "s"),
		Namespace: "ns", RuncRoot: filepath.Join(dir, "r")}
	t.Cleanup(func() {
		d := open(t, cfg, says("v2.3.2"))
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return cfg
}

// says is a containerd that answers with a version.
func says(version string) Ask { return func(context.Context) (string, error) { return version, nil } }

// silent is one that does not answer.
func silent(ctx context.Context) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func open(t *testing.T, cfg Config, ask Ask) *Daemon {
	t.Helper()
	d, err := New(context.Background(), cfg, ask, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func pid(t *testing.T, d *Daemon) int {
	t.Helper()
	n, err := d.PID()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMissingAndUnsafeProgramsAreRefused(t *testing.T) {
	for what, versions := range map[string]map[string]string{
		"unsafe runc":       {"runc": "runc version 1.1.5\n", "containerd": good["containerd"]},
		"unsafe containerd": {"runc": good["runc"], "containerd": "containerd x v1.6.20\n"},
		"no version":        {"runc": "runc of today\n", "containerd": good["containerd"]},
	} {
		cfg := Config{Bin: bundle(t, versions)}
		if _, err := New(t.Context(), cfg, silent, slog.New(slog.DiscardHandler)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: got %v, want a failed precondition", what, err)
		}
	}
	_, err := New(t.Context(), Config{Bin: t.TempDir()}, silent, slog.New(slog.DiscardHandler))
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "make -C bundle/runtime") {
		t.Errorf("missing: got %v, want a failed precondition that says how to build it", err)
	}
	unsafe := map[string]string{"runc": good["runc"], "containerd": "containerd x v1.6.20\n"}
	cfg := Config{Bin: bundle(t, unsafe), External: true}
	if _, err := New(t.Context(), cfg, silent, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("somebody else runs containerd: got %v, want that ours is not asked", err)
	}
}

func TestAContainerdThatFitsIsAdoptedAndAnotherReplaced(t *testing.T) {
	cfg := place(t)
	first := open(t, cfg, says("v2.3.2"))
	if n := pid(t, first); n != 0 {
		t.Fatalf("before the start: got pid %d, want none", n)
	}
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := pid(t, first)
	later := open(t, cfg, says("v2.3.2")) // as another agent process
	if err := later.Start(t.Context()); err != nil || pid(t, later) != old || old == 0 {
		t.Fatalf("got pid %d, %v, want %d adopted", pid(t, later), err, old)
	}

	moved := cfg
	moved.Temp += "-elsewhere"
	changed := open(t, moved, says("v2.3.2"))
	if err := changed.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := pid(t, changed)
	if line, _ := machine.CommandLine(old); now == old || now == 0 || len(line) > 0 { // one that ended has no words
		t.Errorf("another configuration: got pid %d, and the old one, %d, is %q, want it replaced", now, old, line)
	}
	if b, err := os.ReadFile(moved.File); err != nil || !strings.Contains(string(b), moved.Temp) {
		t.Errorf("configuration: got %v\n%s", err, b)
	}

	asked := 0
	upgraded := open(t, moved, func(context.Context) (string, error) {
		if asked++; asked == 1 {
			return "v2.3.1", nil // the one that runs; then the new one
		}
		return "v2.3.2", nil
	})
	if err := upgraded.Start(t.Context()); err != nil || pid(t, upgraded) == now {
		t.Errorf("another version: got pid %d, %v, want another than %d", pid(t, upgraded), err, now)
	}
}

func TestAContainerdThatDoesNotComeUpIsSaidWithItsLogAndLeftNowhere(t *testing.T) {
	cfg := place(t)
	put(t, filepath.Join(cfg.Bin, "containerd.dies"), "")
	d := open(t, cfg, silent)
	if err := d.Start(t.Context()); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), cfg.Log) {
		t.Errorf("one that dies: got %v, want unavailable and where its log is", err)
	}
	if err := os.Remove(filepath.Join(cfg.Bin, "containerd.dies")); err != nil {
		t.Fatal(err)
	}
	d = open(t, cfg, says("v9.9.9"))
	if err := d.Start(t.Context()); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "v9.9.9") {
		t.Errorf("one of another version than the program's: got %v, want unavailable and the version", err)
	}
	if n := pid(t, d); n != 0 {
		t.Errorf("it runs on as %d", n)
	}
}

func TestAContainerdThatEndsIsStartedAgainAndOutlivesRun(t *testing.T) {
	cfg := place(t)
	d := open(t, cfg, says("v2.3.2"))
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{}, 10)
	var run sync.WaitGroup
	run.Go(func() {
		if err := d.Run(ctx, func() { ready <- struct{}{} }); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	wait := func() {
		t.Helper()
		select {
		case <-ready:
		case <-time.After(patience):
			t.Fatalf("not ready within %v", patience)
		}
	}
	wait()
	old := pid(t, d)
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait()
	now := pid(t, d)
	if now == old || now == 0 {
		t.Errorf("got pid %d after %d was killed, want another", now, old)
	}
	cancel()
	run.Wait()
	if got := pid(t, d); got != now {
		t.Errorf("after Run: got pid %d, want %d to run on", got, now)
	}
	for range 2 {
		if err := d.Stop(t.Context()); err != nil || pid(t, d) != 0 {
			t.Errorf("stopped: got %v and pid %d, want none", err, pid(t, d))
		}
	}
}

func TestSomebodyElsesContainerdIsJudgedAndLeftAlone(t *testing.T) {
	cfg := place(t)
	cfg.External = true
	ctx, cancel := context.WithCancel(t.Context())
	d := open(t, cfg, says("v2.3.2"))
	ready := false
	if err := d.Run(ctx, func() { ready = true; cancel() }); err != nil || !ready {
		t.Errorf("got %v, ready: %t", err, ready)
	}
	if err := errors.Join(d.Start(t.Context()), d.Stop(t.Context())); err != nil || pid(t, d) != 0 {
		t.Errorf("started or stopped: %v, pid %d", err, pid(t, d))
	}
	if _, err := os.Stat(cfg.File); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its configuration: got %v, want none written", err)
	}
	unsafe := open(t, cfg, says("v1.6.20"))
	if err := unsafe.Run(t.Context(), func() { t.Error("ready") }); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("an unsafe one: got %v, want a failed precondition", err)
	}
}

func TestOnlyOurForgottenProcessesAreKilled(t *testing.T) {
	cfg := place(t)
	d := open(t, cfg, silent)
	start := func(namespace, id string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command(filepath.Join(cfg.Bin, "containerd-shim-runc-v2"), "-namespace", namespace, "-id", id, "start")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd
	}
	ours, other, theirs := start("ns", "m1"), start("ns", "m2"), start("ns2", "m1")
	alive := func(cmd *exec.Cmd) bool { return unix.Kill(cmd.Process.Pid, 0) == nil }
	kill := func(id string, gone *exec.Cmd) {
		t.Helper()
		ended := make(chan error, 1)
		go func() { ended <- gone.Wait() }()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := d.KillForgotten(ctx, id); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatalf("the one of %q lives on", id)
		}
	}
	kill("m1", ours)
	if !alive(other) || !alive(theirs) {
		t.Errorf("another container's is alive: %t, another datacenter's: %t, want both", alive(other), alive(theirs))
	}
	kill("", other)
	if !alive(theirs) {
		t.Error("another datacenter's was killed")
	}
}

func TestALogThatGrewIsPutAside(t *testing.T) {
	cfg := place(t)
	put(t, cfg.Log, strings.Repeat("x", maxLog+1))
	d := open(t, cfg, says("v2.3.2"))
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	old, err1 := os.Stat(cfg.Log + ".old")
	now, err2 := os.Stat(cfg.Log)
	if err1 != nil || err2 != nil || old.Size() != maxLog+1 || now.Size() > maxLog {
		t.Errorf("got %v and %v (%v, %v), want the large one put aside", old, now, err1, err2)
	}
}
