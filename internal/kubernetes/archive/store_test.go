package archive

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// opened is a store in a directory of its own, or the one that is there.
func opened(t *testing.T, dir string, known func(string) bool) *Store {
	t.Helper()
	s := New(dir)
	s.check = func(int64) error { return nil }
	if err := s.Open(known); err != nil {
		t.Fatal(err)
	}
	return s
}

func keep(t *testing.T, s *Store, id string, archive io.Reader) string {
	t.Helper()
	in, err := s.Receive(id, archive)
	if err != nil {
		t.Fatal(err)
	}
	name, err := in.Keep()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// files lists all names below a directory.
func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAnArchiveIsListedOnlyOnceItIsWhole(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, dir, nil)
	body, pipe := io.Pipe()
	received := make(chan *Incoming)
	go func() {
		in, err := s.Receive("a", body)
		if err != nil {
			t.Error(err)
		}
		received <- in
	}()
	for range 2 { // the second piece is taken when the first has been written
		if _, err := pipe.Write([]byte(strings.Repeat("x", 1000))); err != nil {
			t.Fatal(err)
		}
	}
	listed := func() []string {
		all, err := filepath.Glob(filepath.Join(dir, "a", "*.tar"))
		if err != nil {
			t.Fatal(err)
		}
		return append(all, s.List("a")...)
	}
	if got := listed(); len(got) != 0 {
		t.Errorf("while it is received there is %v", got)
	}
	pipe.Close()
	in := <-received
	if got := listed(); len(got) != 0 {
		t.Errorf("before it is kept there is %v", got)
	}
	name, err := in.Keep()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.List("a"); !slices.Equal(got, []string{name}) {
		t.Errorf("kept: got %v, want %s", got, name)
	}
	if b, err := os.ReadFile(s.Path("a", name)); err != nil || len(b) != 2000 {
		t.Errorf("%d bytes and %v, want 2000", len(b), err)
	}
	if err := in.Drop(); err != nil || len(files(t, dir)) != 1 {
		t.Errorf("dropped after it was kept: %v, files %v", err, files(t, dir))
	}
}

func TestTheNextStartFindsWhatIsWholeAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, dir, nil)
	name := keep(t, s, "a", strings.NewReader("whole"))
	keep(t, s, "gone", strings.NewReader("of a cluster that is none"))
	if _, err := s.Receive("a", strings.NewReader("a process ends here")); err != nil {
		t.Fatal(err)
	}
	if got := len(files(t, dir)); got != 3 {
		t.Fatalf("%d files, want 3", got)
	}
	again := opened(t, dir, nil) // nobody knows which clusters there are
	if got := files(t, dir); len(got) != 2 || len(again.List("gone")) != 1 {
		t.Errorf("without the cut-off one: got %v", got)
	}
	again = opened(t, dir, func(id string) bool { return id == "a" })
	if got := files(t, dir); len(got) != 1 || !slices.Equal(again.List("a"), []string{name}) {
		t.Errorf("got %v, listed %v, want %s", got, again.List("a"), name)
	}
	if n := again.bytes("a"); n != 5 {
		t.Errorf("%d bytes are counted, want 5", n)
	}
}

func TestArchivesAreBounded(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, dir, nil)
	s.maxCluster, s.maxBytes = 100, 150
	text := func(n int) io.Reader { return strings.NewReader(strings.Repeat("x", n)) }
	old := keep(t, s, "a", text(80))
	for what, c := range map[string]struct {
		id   string
		n    int
		says string // "": it fits
	}{
		"the rest of a cluster":     {"a", 20, ""},
		"more than a cluster may":   {"a", 21, "80 bytes of the 100 bytes"},
		"the rest of all":           {"b", 70, ""},
		"more than all may":         {"b", 71, "cluster of id a"},
		"more than a cluster alone": {"b", 101, "of the 100 bytes"},
	} {
		in, err := s.Receive(c.id, text(c.n))
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case c.says != "" && (!errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), c.says) ||
			!strings.Contains(err.Error(), "delete")):
			t.Errorf("%s: got %v, want a refusal with %q and what to do", what, err, c.says)
		}
		if err == nil {
			if err := in.Drop(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for id, n := range s.incoming {
		if n != 0 {
			t.Errorf("%d bytes of %s are still counted", n, id)
		}
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("refused ones are left: %v", got)
	}
	if err := s.Remove("a", old); err != nil {
		t.Fatal(err)
	}
	keep(t, s, "a", text(100))
	if err := s.RemoveAll("a"); err != nil || len(files(t, dir)) != 0 {
		t.Errorf("all removed: %v, %v", err, files(t, dir))
	}
	keep(t, s, "b", text(100))
	s.check = func(int64) error { return fmt.Errorf("1 GiB free: %w", errdefs.ErrResourceExhausted) }
	if _, err := s.Receive("c", text(1)); !errdefs.IsResourceExhausted(err) {
		t.Errorf("on a full disk: got %v, want a refusal", err)
	}
}

func TestTheNumberOfArchivesIsBounded(t *testing.T) {
	s := opened(t, t.TempDir(), nil)
	for range MaxArchives {
		keep(t, s, "a", strings.NewReader("x"))
	}
	if _, err := s.Receive("a", strings.NewReader("x")); !errdefs.IsResourceExhausted(err) {
		t.Errorf("one more than %d: got %v, want a refusal", MaxArchives, err)
	}
	keep(t, s, "b", strings.NewReader("x"))
}

func TestWhatALaterArchiveHasIsReplaced(t *testing.T) {
	s := opened(t, t.TempDir(), nil)
	both := keep(t, s, "a", tarOf(t, map[string]string{"manifest.json": `[{"RepoTags":["x:1","y:1"]}]`}))
	one := keep(t, s, "a", tarOf(t, map[string]string{"manifest.json": `[{"RepoTags":["x:1"]}]`}))
	keep(t, s, "a", bytes.NewBufferString("torn"))
	if got, want := s.Replaced("a", []string{"docker.io/library/x:1"}), []string{one}; !slices.Equal(got, want) {
		t.Errorf("by x: got %v, want %v", got, want)
	}
	if got, want := s.Replaced("a", []string{"docker.io/library/x:1", "docker.io/library/y:1", "z"}),
		[]string{both, one}; !slices.Equal(got, want) {
		t.Errorf("by x, y and z: got %v, want %v", got, want)
	}
	if got := s.Replaced("a", nil); len(got) != 0 {
		t.Errorf("by nothing: got %v", got)
	}
}

func TestWithoutADirectoryNothingIsKept(t *testing.T) {
	s := New("")
	if err := s.Open(nil); err != nil {
		t.Error(err)
	}
	if _, err := s.Receive("a", strings.NewReader("x")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v, want a refusal", err)
	}
	if err := s.RemoveAll("a"); err != nil {
		t.Error(err)
	}
	with := opened(t, t.TempDir(), nil)
	name := keep(t, with, "a", strings.NewReader("x"))
	if err := with.RemoveAll(""); err != nil || len(with.List("a")) != 1 {
		t.Errorf("a cluster without id: %v, and %s is gone", err, name)
	}
}
