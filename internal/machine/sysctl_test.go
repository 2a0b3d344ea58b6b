package machine

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// settings is a /proc/sys of a test's own.
func settings(t *testing.T) (s *Sysctls, put func(name, value string), is func(when, name, want string)) {
	sys := t.TempDir()
	s = &Sysctls{file: filepath.Join(t.TempDir(), "state", "sysctls.json"), sys: sys}
	put = func(name, value string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(sys, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, name), []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	is = func(when, name, want string) {
		t.Helper()
		if got, err := s.read(name); err != nil || got != want {
			t.Errorf("%s: %s: got %s, %v, want %s", when, name, got, err, want)
		}
	}
	return s, put, is
}

func TestSettingsAreRaisedNeverLoweredAndRestored(t *testing.T) {
	s, put, is := settings(t)
	put("fs/inotify/max_user_instances", "128")
	put("fs/inotify/max_user_watches", "65536")
	put("kernel/pid_max", "8388608")
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	for range 2 { // the second finds what the first made, and must not take it for what was
		if err := s.RaiseLimits(log); err != nil {
			t.Fatal(err)
		}
	}
	is("raised", "fs/inotify/max_user_instances", "8192")
	is("raised", "fs/inotify/max_user_watches", "1048576")
	is("not lowered", "kernel/pid_max", "8388608")
	put("fs/inotify/max_user_watches", "2000000")
	for range 2 {
		if err := s.Restore(); err != nil {
			t.Fatal(err)
		}
	}
	is("restored", "fs/inotify/max_user_instances", "128")
	is("changed by somebody else", "fs/inotify/max_user_watches", "2000000")
	is("never touched", "kernel/pid_max", "8388608")
}

func TestASettingThatIsSetIsRestoredWhateverItIsByThen(t *testing.T) {
	s, put, is := settings(t)
	put("net/ipv4/ip_forward", "0")
	for range 2 {
		if err := s.Set("net/ipv4/ip_forward", "1"); err != nil {
			t.Fatal(err)
		}
	}
	is("set", "net/ipv4/ip_forward", "1")
	if err := s.Restore(); err != nil {
		t.Fatal(err)
	}
	is("restored", "net/ipv4/ip_forward", "0")
	if _, err := os.Stat(s.file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the memory of it is still there: %v", err)
	}
}

// Files of agents and networks of before are read, and look the same when they are written.
func TestFilesOfEarlierVersionsAreUnderstood(t *testing.T) {
	for _, file := range []string{
		`[{"name":"kernel/pid_max","was":32768,"set":4194304}]`,
		`[{"name":"kernel/pid_max","was":"32768"}]`,
	} {
		s, put, is := settings(t)
		put("kernel/pid_max", "4194304")
		if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.file, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := s.changes()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := json.Marshal(all); err != nil || string(b) != file {
			t.Errorf("written again it is %s (%v), want %s", b, err, file)
		}
		if err := s.Restore(); err != nil {
			t.Fatal(err)
		}
		is(file, "kernel/pid_max", "32768")
	}
}

func TestNothingIsChangedThatCannotBeWrittenDown(t *testing.T) {
	s, put, is := settings(t)
	put("kernel/pid_max", "32768")
	put("net/ipv4/ip_forward", "0")
	if err := os.WriteFile(filepath.Dir(s.file), nil, 0o600); err != nil { // in the directory's place
		t.Fatal(err)
	}
	if err := s.RaiseLimits(slog.New(slog.DiscardHandler)); err == nil {
		t.Error("limits were raised without a memory of what they were")
	}
	if err := s.Set("net/ipv4/ip_forward", "1"); err == nil {
		t.Error("a setting was changed without a memory of what it was")
	}
	is("untouched", "kernel/pid_max", "32768")
	is("untouched", "net/ipv4/ip_forward", "0")
}

func TestADamagedMemoryIsNotWrittenOver(t *testing.T) {
	s, put, is := settings(t)
	put("kernel/pid_max", "32768")
	damaged := `[{"name":"kernel/p`
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file, []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.RaiseLimits(slog.New(slog.DiscardHandler)) == nil || s.Restore() == nil {
		t.Error("want errors for a memory that cannot be read")
	}
	is("untouched", "kernel/pid_max", "32768")
	if b, _ := os.ReadFile(s.file); string(b) != damaged {
		t.Errorf("the file says %s, want it left for people", b)
	}
}

func TestASettingThatCannotBeRaisedIsNamedAndTheOthersAre(t *testing.T) {
	s, put, is := settings(t)
	put("kernel/keys/maxkeys", "unlimited") // no number
	put("kernel/pid_max", "32768")
	var log strings.Builder
	if err := s.RaiseLimits(slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "kernel/keys/maxkeys") {
		t.Errorf("the log says %q, want the setting named", log.String())
	}
	is("raised", "kernel/pid_max", "4194304")
	all, err := s.changes()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
	}
	if diff := cmp.Diff([]string{"kernel/pid_max"}, names); diff != "" {
		t.Errorf("remembered (-want +got):\n%s", diff)
	}
}

func TestSysctlsOfThisMachineAreRead(t *testing.T) {
	if v, err := Sysctl("kernel/pid_max"); err != nil || v == "" {
		t.Errorf("got %q, %v", v, err)
	}
	if _, err := Sysctl("kernel/no_such_setting"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	if v, _ := Sysctl("kernel/pid_max"); SetSysctl("kernel/pid_max", v) != nil { // as it is: not written
		t.Error("a setting that is so already must not be written")
	}
}
