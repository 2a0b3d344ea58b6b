package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
)

// dir is the sandboxes of a machine of a test's own, and the state directory they are in.
func dir(t *testing.T) (*Dir, string) {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	if err := root.Mkdir(Root, 0o700); err != nil {
		t.Fatal(err)
	}
	return In(root), root.Name()
}

func TestAskingForTasksThatWereNeverHereLeavesNothing(t *testing.T) {
	d, root := dir(t)
	for i := range 100 {
		if _, _, _, err := d.Read(kernel.TaskID(fmt.Sprint("task", i)), "stdout", 0, nil, 2); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want fs.ErrNotExist", err)
		}
	}
	if err := errors.Join(d.Make("there", nil), os.WriteFile(filepath.Join(root, Root, "there", "stdout"), []byte("hello"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if n, _, _, err := d.Read("there", "stdout", 0, make([]byte, 9), 2); n != 5 || err != nil {
		t.Errorf("got %d bytes, %v, want 5", n, err)
	}
	if n := d.moving.Len(); n != 0 {
		t.Errorf("%d locks are kept, want none", n)
	}
}

func put(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestASandboxIsMadeOnceAndKept(t *testing.T) {
	d, _ := dir(t)
	volumes := []kernel.Volume{{HostPath: "data/deep", ContainerPath: "x"},
		{HostPath: "/etc", ContainerPath: "y"}, {HostPath: "../out", ContainerPath: "z"}}
	for range 2 {
		if err := d.Make("web.1", volumes); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(d.Path("web.1"), "stdout"), "hello")
	}
	if err := d.Make("web.1", nil); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(d.Path("web.1"), "stdout")); err != nil || string(b) != "hello" {
		t.Errorf("output: got %q, %v, want it kept", b, err)
	}
	i, err := os.Stat(d.Path("web.1"))
	if err != nil || i.Mode().Perm() != 0o777 || i.Mode()&fs.ModeSticky == 0 {
		t.Errorf("got %v, %v, want a directory for every user, sticky", i.Mode(), err)
	}
	names, _ := os.ReadDir(d.Path("web.1"))
	var got []string
	for _, n := range names {
		got = append(got, n.Name())
	}
	if !slices.Equal(got, []string{"data", "stderr", "stdout"}) {
		t.Errorf("got %q, want the output and the relative volume", got)
	}
	if names, _ := os.ReadDir(filepath.Dir(d.Path("web.1"))); len(names) != 1 {
		t.Errorf("beside it: %v", names)
	}
}

// What a task puts into its sandbox must not lead the agent out of it, or make it wait.
func TestNothingLeadsOutOfASandboxOrBlocks(t *testing.T) {
	d, state := dir(t)
	if err := d.Make("t", nil); err != nil {
		t.Fatal(err)
	}
	box := d.Path("t")
	put(t, filepath.Join(state, "secret"), "hush")
	for _, err := range []error{
		os.Symlink("../../secret", filepath.Join(box, "relative")),
		os.Symlink(filepath.Join(state, "secret"), filepath.Join(box, "absolute")),
		os.Symlink("..", filepath.Join(box, "up")),
		unix.Mkfifo(filepath.Join(box, "pipe"), 0o600),
		os.Remove(filepath.Join(box, "stdout")),
		os.Symlink("/etc/passwd", filepath.Join(box, "stdout")),
		os.Remove(filepath.Join(box, "stderr")),
		unix.Mkfifo(filepath.Join(box, "stderr"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := d.Open("t")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"relative", "absolute", "up/secret", "../../secret"} {
		if _, err := OpenInside(root, name, os.O_RDONLY); !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: got %v, want errdefs.ErrPermissionDenied", name, err)
		}
	}
	if _, err := OpenInside(root, "nothing", os.O_RDONLY); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: got %v, want fs.ErrNotExist", err)
	}
	f, err := OpenInside(root, "pipe", os.O_RDONLY) // nobody writes to it
	if err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	for _, stream := range []string{"stdout", "stderr"} {
		if _, _, _, err := d.Read("t", stream, 0, make([]byte, 8), 2); !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: got %v, want errdefs.ErrPermissionDenied", stream, err)
		}
		if err := d.Rotate("t", stream, 0, 2); err == nil {
			t.Errorf("%s: what is no file was rotated", stream)
		}
	}
	if words := d.LastWords("t"); words != "" {
		t.Errorf("words of a pipe: %q", words)
	}
}

func TestUsageIsWhatASandboxTakesOnTheDisk(t *testing.T) {
	d, state := dir(t)
	if err := d.Make("t", nil); err != nil {
		t.Fatal(err)
	}
	empty, err := d.Usage("t")
	if err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20
	big := filepath.Join(d.Path("t"), "big")
	put(t, big, string(make([]byte, size)))
	put(t, filepath.Join(state, "outside"), string(make([]byte, 8*size)))
	if err := errors.Join(os.Link(big, filepath.Join(d.Path("t"), "again")),
		os.Symlink(filepath.Join(state, "outside"), filepath.Join(d.Path("t"), "link")),
		os.Truncate(filepath.Join(d.Path("t"), "stderr"), 64*size)); err != nil { // a hole takes nothing
		t.Fatal(err)
	}
	got, err := d.Usage("t")
	if more := got.Bytes - empty.Bytes; err != nil || more < size || more > size+64<<10 {
		t.Errorf("got %d bytes more, %v, want a file of %d counted once and nothing else", more, err, size)
	}
	if got.Files-empty.Files != 3 {
		t.Errorf("got %d files more, want three names", got.Files-empty.Files)
	}
	d.most = 4
	if got, err := d.Usage("t"); err != nil || got.Files != d.most {
		t.Errorf("got %+v, %v, want it to stop at %d files", got, err, d.most)
	}
	d.most = MaxFiles
	if _, err := d.Usage("nobody"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func TestSandboxesOfTheLiveAreKeptAndOthersByTheirAge(t *testing.T) {
	d, _ := dir(t)
	for _, task := range []kernel.TaskID{"live", "ended", "old"} {
		if err := d.Make(task, nil); err != nil {
			t.Fatal(err)
		}
		long := time.Now().Add(-time.Hour)
		if err := os.Chtimes(d.Path(task), long, long); err != nil {
			t.Fatal(err)
		}
	}
	d.End("ended")
	d.End("never was")
	removed, err := d.Collect(map[kernel.TaskID]bool{"live": true}, Limits{Age: time.Minute, Count: 9}, 1<<40)
	if err != nil || !slices.Equal(removed, []string{"old"}) {
		t.Errorf("removed %q, %v, want the old one", removed, err)
	}
	removed, err = d.Collect(map[kernel.TaskID]bool{"live": true}, Limits{Age: time.Hour, Count: 9, Free: 1 << 40}, 0)
	if err != nil || !slices.Equal(removed, []string{"ended"}) {
		t.Errorf("on a full disk: removed %q, %v, want all that ended", removed, err)
	}
	if _, err := os.Stat(d.Path("live")); err != nil {
		t.Error(err)
	}
}

// Offsets count from the first byte ever written, whatever was rotated and dropped since.
func TestOffsetsMeanTheSameBeforeAndAfterRotations(t *testing.T) {
	d, _ := dir(t)
	if err := d.Make("t", nil); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(d.Path("t"), "stdout")
	f, err := os.OpenFile(out, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []byte
	const keep, block = 2, 4096
	for i := range 12 {
		chunk := bytes.Repeat([]byte{byte('a' + i)}, 3*block/2)
		if _, err := f.Write(chunk); err != nil {
			t.Fatal(err)
		}
		all = append(all, chunk...)
		if err := d.Rotate("t", "stdout", 2*block, keep); err != nil {
			t.Fatal(err)
		}
		_, at, end, err := d.Read("t", "stdout", 0, make([]byte, block), keep)
		if err != nil || end != int64(len(all)) {
			t.Fatalf("after %d chunks: ends at %d, %v, want %d", i+1, end, err, len(all))
		}
		buf := make([]byte, block)
		for off, n := at, 0; off < end; off += int64(n) {
			var from int64
			if n, from, _, err = d.Read("t", "stdout", off, buf, keep); err != nil || n == 0 || from != off {
				t.Fatalf("at %d: got %d bytes at %d, %v", off, n, from, err)
			}
			if !bytes.Equal(buf[:n], all[off:off+int64(n)]) {
				t.Fatalf("at %d: other bytes than were written", off)
			}
		}
	}
	_, first, _, err := d.Read("t", "stdout", 0, make([]byte, 1), keep)
	if err != nil || first == 0 && supportsXattr(t, out) {
		t.Errorf("the oldest is at %d, %v, want old files dropped and counted", first, err)
	}
	if names, _ := filepath.Glob(out + ".*"); len(names) != keep {
		t.Errorf("got %q, want %d rotated files", names, keep)
	}
}

func supportsXattr(t *testing.T, name string) bool {
	t.Helper()
	return unix.Setxattr(name, "user.marina.test", nil, 0) == nil
}

func TestLastWordsAreReadFromTheEnd(t *testing.T) {
	d, _ := dir(t)
	if err := d.Make("t", nil); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(d.Path("t"), "stderr"),
		"panic: early\n"+strings.Repeat("noise\n", wordsTail/6)+"panic: out of luck\nmain.main()\n")
	if got := d.LastWords("t"); got != "panic: out of luck" {
		t.Errorf("got %q", got)
	}
	if got := d.LastWords("nobody"); got != "" {
		t.Errorf("of a task that never was: %q", got)
	}
}

// A task makes its output terabytes large out of nothing: it takes no more of the disk than is kept of any output, and
// what is written after it is read where it belongs.
func TestAHoleOfTerabytesInAStreamIsNotCopied(t *testing.T) {
	d, _ := dir(t)
	if err := d.Make("t", nil); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(d.Path("t"), "stdout")
	const keep, limit, hole = 2, 64 << 10, 15 << 40
	put(t, out, strings.Repeat("early", 20_000))
	if err := d.Rotate("t", "stdout", limit, keep); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(out, hole); err != nil {
		t.Skipf("this filesystem has no files of 15 TiB: %v", err)
	}
	f, err := os.OpenFile(out, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("last"); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := d.Rotate("t", "stdout", limit, keep); err != nil {
			t.Fatal(err)
		}
	}
	if used, err := d.Usage("t"); err != nil || used.Bytes > (keep+2)*(keep+1)*limit {
		t.Errorf("it takes %d bytes of the disk, %v", used.Bytes, err)
	}
	buf := make([]byte, 8)
	_, _, end, err := d.Read("t", "stdout", 0, nil, keep)
	if err != nil || end < 1<<20 && supportsXattr(t, out) {
		t.Fatalf("ends at %d, %v, want what was dropped counted", end, err)
	}
	if n, at, _, err := d.Read("t", "stdout", end-4, buf, keep); err != nil || string(buf[:n]) != "last" || at != end-4 {
		t.Errorf("the end: got %q at %d of %d, %v", buf[:n], at, end, err)
	}
}

// A task puts directories full of files where its output is rotated to: they are put aside at once, and removed by
// whoever has the time.
func TestDirectoriesInPlaceOfRotatedFilesHoldNothingUp(t *testing.T) {
	d, state := dir(t)
	if err := d.Make("t", nil); err != nil {
		t.Fatal(err)
	}
	const keep, limit = 2, 8 << 10
	for _, name := range []string{"stdout.new", "stdout.1", "stdout.2"} {
		if err := os.MkdirAll(filepath.Join(d.Path("t"), name, "a", "b"), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(d.Path("t"), name, "a", "file"), "x")
	}
	for range keep + 2 {
		put(t, filepath.Join(d.Path("t"), "stdout"), strings.Repeat("line\n", 4000))
		if err := d.Rotate("t", "stdout", limit, keep); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i <= keep; i++ {
		if st, err := os.Lstat(filepath.Join(d.Path("t"), rotated("stdout", i))); err != nil || !st.Mode().IsRegular() {
			t.Errorf("%s: got %v, %v, want a file", rotated("stdout", i), st, err)
		}
	}
	if aside, _ := os.ReadDir(filepath.Join(state, Trash)); len(aside) != 3 {
		t.Errorf("put aside: got %d, want 3", len(aside))
	}
	if _, err := d.Collect(map[kernel.TaskID]bool{"t": true}, Limits{Age: time.Hour, Count: 9}, 1<<40); err != nil {
		t.Error(err)
	}
	if aside, _ := os.ReadDir(filepath.Join(state, Trash)); len(aside) != 0 {
		t.Errorf("still there after a collection: %d", len(aside))
	}
}
