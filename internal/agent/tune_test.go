package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestSettingsAreRaisedNeverLoweredAndRestored(t *testing.T) {
	sys, state := t.TempDir(), t.TempDir()
	put := func(name, value string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(sys, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, name), []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	is := func(when, name string, want int64) {
		t.Helper()
		if got, err := readSetting(sys, name); err != nil || got != want {
			t.Errorf("%s: %s: got %d, %v, want %d", when, name, got, err, want)
		}
	}
	put("fs/inotify/max_user_instances", "128")
	put("fs/inotify/max_user_watches", "65536")
	put("kernel/pid_max", "8388608")
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	for range 2 { // the second finds what the first made, and must not take it for what was
		if err := tune(sys, state, log); err != nil {
			t.Fatal(err)
		}
	}
	is("raised", "fs/inotify/max_user_instances", 8192)
	is("raised", "fs/inotify/max_user_watches", 1<<20)
	is("not lowered", "kernel/pid_max", 8388608)
	put("fs/inotify/max_user_watches", "2000000")
	for range 2 {
		if err := untune(sys, state); err != nil {
			t.Fatal(err)
		}
	}
	is("restored", "fs/inotify/max_user_instances", 128)
	is("changed by somebody else", "fs/inotify/max_user_watches", 2000000)
	is("never touched", "kernel/pid_max", 8388608)
}
