package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	before = bytes.Repeat([]byte("before "), 5000)
	after  = bytes.Repeat([]byte("after "), 9000)
)

// steps lists the acts of a durable write, in order; it can be cut off at each.
var steps = []string{"create", "write", "sync", "name", "sync dir"}

func open(t *testing.T, dir string, step func(string) error) Dir {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return Dir{root: root, step: step}
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func content(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestContentAndModeAreThoseAskedFor(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	for name, write := range map[string]func(string, []byte, fs.FileMode) error{"WriteFile": WriteFile,
		"ReplaceFile": ReplaceFile} {
		file := filepath.Join(t.TempDir(), "file")
		for _, want := range [][]byte{before, after, nil} {
			if err := write(file, want, 0o644); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := content(t, file); !bytes.Equal(got, want) {
				t.Errorf("%s: got %d bytes, want %d", name, len(got), len(want))
			}
		}
		i, err := os.Stat(file)
		if err != nil || i.Mode().Perm() != 0o644 {
			t.Errorf("%s: mode %v (%v), want 0644 whatever the umask", name, i.Mode(), err)
		}
		if got := names(t, filepath.Dir(file)); !slices.Equal(got, []string{"file"}) {
			t.Errorf("%s leaves %v, want the file alone", name, got)
		}
	}
}

func TestSyncsBeforeTheNameIsGivenAndTheDirectoryAfter(t *testing.T) {
	var did []string
	d := open(t, t.TempDir(), func(op string) error { did = append(did, op); return nil })
	if err := d.WriteFile("file", after, 0o600); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(did, steps) {
		t.Errorf("WriteFile did %q, want %q", did, steps)
	}
	did = nil
	if err := d.ReplaceFile("file", after, 0o600); err != nil {
		t.Fatal(err)
	}
	if want := steps[:len(steps)-1]; !slices.Equal(did, want) {
		t.Errorf("ReplaceFile did %q, want %q", did, want)
	}
}

func TestAnErrorAtAnyStepLeavesAWholeFileAndNothingElse(t *testing.T) {
	broken := errors.New("the disk is full")
	for _, at := range steps {
		dir := t.TempDir()
		if err := WriteFile(filepath.Join(dir, "file"), before, 0o600); err != nil {
			t.Fatal(err)
		}
		d := open(t, dir, func(op string) error {
			if op == at {
				return broken
			}
			return nil
		})
		if err := d.WriteFile("file", after, 0o600); !errors.Is(err, broken) {
			t.Errorf("at %q: got error %v, want %v", at, err, broken)
		}
		want := before
		if at == "sync dir" { // it has its name already, and is reported as not certain
			want = after
		}
		if got := content(t, filepath.Join(dir, "file")); !bytes.Equal(got, want) {
			t.Errorf("at %q: the file has %d bytes, want %d", at, len(got), len(want))
		}
		if got := names(t, dir); !slices.Equal(got, []string{"file"}) {
			t.Errorf("at %q: left %v, want the file alone", at, got)
		}
	}
}

// A disk that really is full, not one that is said to be.
func TestAFullDiskKeepsTheOldFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small filesystem needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("no tmpfs to be had: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(dir, "file")
	if err := WriteFile(file, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(file, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a megabyte into 128 KiB: got %v, want ENOSPC", err)
	}
	if got := content(t, file); !bytes.Equal(got, before) {
		t.Errorf("the file has %d bytes, want the old %d", len(got), len(before))
	}
	if got := names(t, dir); !slices.Equal(got, []string{"file"}) {
		t.Errorf("left %v, want the file alone", got)
	}
}

// dieAt names the step before which the test's own program is to kill itself, as a process of its own.
const dieAt = "DURABLE_TEST_DIE_AT"

func TestMain(m *testing.M) {
	if at, dir := os.Getenv(dieAt), os.Getenv("DURABLE_TEST_DIR"); at != "" {
		root, err := os.OpenRoot(dir)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		err = Dir{root: root, step: func(op string) error {
			if op == at {
				_ = unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
			return nil
		}}.WriteFile("file", after, 0o600)
		fmt.Println("still alive after writing:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestAProcessKilledAtAnyStepLeavesAWholeFile(t *testing.T) {
	for _, at := range steps {
		dir := t.TempDir()
		file := filepath.Join(dir, "file")
		if err := WriteFile(file, before, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), dieAt+"="+at, "DURABLE_TEST_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err == nil || err.Error() != "signal: killed" {
			t.Fatalf("at %q: the writer ended with %v, want it killed: %s", at, err, out)
		}
		want := before
		if at == "sync dir" {
			want = after
		}
		if got := content(t, file); !bytes.Equal(got, want) {
			t.Errorf("killed before %q: the file has %d bytes, want %d", at, len(got), len(want))
		}
		if err := open(t, dir, nil).Sweep("."); err != nil {
			t.Fatal(err)
		}
		if got := names(t, dir); !slices.Equal(got, []string{"file"}) {
			t.Errorf("killed before %q and swept: left %v, want the file alone", at, got)
		}
	}
}

func TestReadersNeverSeeAPart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := ReplaceFile(file, before, 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, want := range [][]byte{before, after} { // two writers meet, too
		wg.Go(func() {
			for range 100 {
				if err := ReplaceFile(file, want, 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 500 {
		if got := content(t, file); !bytes.Equal(got, before) && !bytes.Equal(got, after) {
			t.Fatalf("read %d bytes, want %d or %d", len(got), len(before), len(after))
		}
	}
	wg.Wait()
}

func TestOneOfManyCreatesANewFile(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	won := make(chan string, 16)
	for i := range cap(won) {
		wg.Go(func() {
			f, err := Create(filepath.Join(dir, "name"), 0o600)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			mine := fmt.Sprint("written by ", i)
			if _, err := f.WriteString(mine); err != nil {
				t.Error(err)
			}
			switch err := f.CommitNew(); {
			case err == nil:
				won <- mine
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("got %v, want fs.ErrExist", err)
			}
		})
	}
	wg.Wait()
	close(won)
	var winners []string
	for w := range won {
		winners = append(winners, w)
	}
	if got := string(content(t, filepath.Join(dir, "name"))); len(winners) != 1 || got != winners[0] {
		t.Errorf("winners %q, the file says %q", winners, got)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"name"}) {
		t.Errorf("left %v, want the file alone", got)
	}
}

func TestAFileThatIsGivenUpLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f, err := Create(filepath.Join(dir, "file"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); len(got) != 1 || !strings.HasPrefix(got[0], temporary) ||
		f.Name() != filepath.Join(dir, got[0]) {
		t.Errorf("while it is written there is %v, and its name is %s", got, f.Name())
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("left %v, want nothing", got)
	}
}

func TestNamesDoNotLeaveTheDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "in", "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "in", "link")); err != nil {
		t.Fatal(err)
	}
	d := open(t, filepath.Join(dir, "in"), nil)
	for _, name := range []string{"../file", "link/file"} {
		if err := d.WriteFile(name, after, 0o600); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if err := d.WriteFile("below/file", after, 0o600); err != nil {
		t.Error(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"in"}) {
		t.Errorf("outside there is %v, want nothing new", got)
	}
}

func TestALinkIsReplacedAndNotFollowed(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := WriteFile(target, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(link, after, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := content(t, target); !bytes.Equal(got, before) {
		t.Error("what the link led to was written")
	}
	if got := content(t, link); !bytes.Equal(got, after) {
		t.Error("the link's place does not have the new file")
	}
}

func TestSweepLeavesWhatIsNotATemporaryFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", ".b", "c.new-x", temporary + "left"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, temporary+"dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := open(t, dir, nil)
	if err := d.Sweep("."); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, dir), []string{".b", temporary + "dir", "a", "c.new-x"}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
	if err := d.Sweep("nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("sweeping what is not there: got %v, want fs.ErrNotExist", err)
	}
}

func TestAMissingDirectoryIsAnError(t *testing.T) {
	if err := WriteFile(filepath.Join(t.TempDir(), "nowhere", "file"), after, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}
