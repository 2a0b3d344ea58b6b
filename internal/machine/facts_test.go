package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

func TestReleasesAreCompared(t *testing.T) {
	for release, want := range map[string]bool{"5.15": true, "5.15.0-91-generic": true, "6.1.0": true, "10.0": true, "6.18-rc1": true,
		"5.14.21": false, "5.4": false, "4.19.0": false, "strange": true, "": true} {
		if got := ReleaseAtLeast(release, 5, 15); got != want {
			t.Errorf("%q: got %v, want %v", release, got, want)
		}
	}
	if KernelRelease() == "" {
		t.Error("this machine's release is empty")
	}
}

func TestMemoryIsWhatTheKernelSays(t *testing.T) {
	n, err := Memory()
	if err != nil || n < 64<<20 || n%1024 != 0 {
		t.Errorf("got %d, %v", n, err)
	}
	if kb, ok := kilobytes("MemTotalX: 1 kB\nMemTotal:   12 kB\n", "MemTotal"); !ok || kb != 12 {
		t.Errorf("got %d, %v, want 12", kb, ok)
	}
	if _, ok := kilobytes("MemTotal: much\n", "MemTotal"); ok {
		t.Error("what is no number was read")
	}
}

func TestFreeDiskIsThatOfTheFilesystem(t *testing.T) {
	bytes, inodes, err := FreeDisk(t.TempDir())
	if err != nil || bytes <= 0 || inodes <= 0 || inodes > 1 {
		t.Errorf("got %d bytes, %v of the inodes, %v", bytes, inodes, err)
	}
	if _, _, err := FreeDisk("/nowhere"); err == nil {
		t.Error("want an error for a path that is not there")
	}
}

func TestStatIsReadWhateverAProcessIsCalled(t *testing.T) {
	boot := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	line := "42 (a) b) (c) S 7 42 40 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 12345 1 2 3"
	p, err := parseStat([]byte(line), boot)
	want := Process{PID: 42, Parent: 7, Session: 40, Started: boot.Add(123450 * time.Millisecond), CPU: 2 * time.Second}
	if err != nil || p != want {
		t.Errorf("got %+v, %v, want %+v", p, err, want)
	}
	if p, err := parseStat([]byte(strings.Replace(line, " S ", " Z ", 1)), boot); err != nil || !p.Zombie {
		t.Errorf("got %+v, %v, want a zombie", p, err)
	}
	for _, short := range []string{"", "42 (a) S 7", "x (a) S 7"} {
		if _, err := parseStat([]byte(short), boot); !errdefs.IsInternal(err) {
			t.Errorf("%q: got %v, want errdefs.ErrInternal", short, err)
		}
	}
}

func TestAProcessAndWhatIsBelowIt(t *testing.T) {
	before := time.Now()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "sleep 600 & echo started; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range Descendants(cmd.Process.Pid) {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		}
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	p, err := ReadProcess(pid)
	if err != nil || p.PID != pid || p.Parent != os.Getpid() || p.Zombie {
		t.Errorf("got %+v, %v, want a child of %d", p, err, os.Getpid())
	}
	if d := p.Started.Sub(before).Abs(); d > 2*time.Second { // the boot is known to the second
		t.Errorf("started %v from when it was started", d)
	}
	all := Descendants(pid)
	if len(all) != 2 || all[0] != pid {
		t.Fatalf("got %v, want the shell and what it started", all)
	}
	if line, err := CommandLine(all[1]); err != nil || string(line) != "sleep\x00600\x00" {
		t.Errorf("got %q, %v", line, err)
	}
	if m := MemoryOf(pid); m.Resident <= 0 || m.Anonymous < 0 || m.Anonymous+m.Files > m.Resident {
		t.Errorf("got %+v, want proportional parts of what is resident", m)
	}
	pids, err := PIDs()
	if err != nil || !slices.Contains(pids, pid) {
		t.Errorf("%d is not among the processes (%v)", pid, err)
	}
}

func TestWhatIsNotThereIsSaid(t *testing.T) {
	if _, err := ReadProcess(1 << 30); !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want errdefs.ErrNotFound", err)
	}
	if m := MemoryOf(1 << 30); m != (ProcessMemory{}) {
		t.Errorf("got %+v, want nothing", m)
	}
	if got := Descendants(1 << 30); len(got) != 1 {
		t.Errorf("got %v, want the process alone", got)
	}
}

func TestBootIsNamedAndDated(t *testing.T) {
	id, err := BootID()
	if err != nil || len(id) != 36 {
		t.Errorf("got %q, %v", id, err)
	}
	at, err := BootTime()
	if err != nil || at.IsZero() || at.After(time.Now()) {
		t.Errorf("got %v, %v", at, err)
	}
}

func TestControllersThatAreMissingAreNamed(t *testing.T) {
	dir := func(files ...string) string {
		d := t.TempDir()
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(d, f), []byte("cpu memory"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	for _, c := range []struct {
		at       string
		severity kernel.Severity
		words    string
	}{
		{dir("cpu", "memory", "pids", "freezer", "devices"), kernel.Good, "cgroups v1"},
		{dir("cpu", "memory", "pids", "devices"), kernel.Fatal, "the freezer cgroup controller is not mounted"},
		{dir("cgroup.controllers"), kernel.Fatal, "cgroup v2 has no pids controller"},
	} {
		f := cgroups(c.at)
		if len(f) != 1 || f[0].Severity != c.severity || !strings.Contains(f[0].What, c.words) || (c.severity == kernel.Fatal) != (f[0].Do != "") {
			t.Errorf("got %+v, want %s with %q", f, c.severity, c.words)
		}
	}
	if got := unified(dir("cgroup.controllers")); !slices.Equal(got, []string{"cpu", "memory"}) {
		t.Errorf("got %v", got)
	}
}

func TestPreflightSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	if f := root(1000); len(f) != 1 || f[0].Severity != kernel.Fatal || f[0].Do == "" {
		t.Errorf("not root: got %+v", f)
	}
	if f := root(0); len(f) != 0 {
		t.Errorf("root: got %+v", f)
	}
	for is, want := range map[string]kernel.Severity{"5.4.0-generic": kernel.Fatal, "": kernel.Fatal, "6.8.0": kernel.Good} {
		if f := release(is); len(f) != 1 || f[0].Severity != want {
			t.Errorf("%q: got %+v, want %s", is, f, want)
		}
	}
	s, put, _ := settings(t)
	put("fs/inotify/max_user_instances", "128")
	put("kernel/pid_max", "4194304")
	put("kernel/keys/maxkeys", "many")
	f := smallLimits(s.sys)
	if len(f) != 1 || f[0].Severity != kernel.Warning || f[0].Do != "sysctl -w fs.inotify.max_user_instances=512" {
		t.Errorf("got %+v, want a warning for what is small alone", f)
	}
	for _, f := range Preflight() {
		if f.What == "" || f.Severity == kernel.Fatal && f.Do == "" {
			t.Errorf("finding %+v says nothing, or not what to do", f)
		}
	}
}
