package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

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
	if err := root.Mkdir(Folder, 0o700); err != nil {
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
	if err := errors.Join(d.Make("there", nil), os.WriteFile(filepath.Join(root, Folder, "there", "stdout"), []byte("hello"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if n, _, _, err := d.Read("there", "stdout", 0, make([]byte, 9), 2); n != 5 || err != nil {
		t.Errorf("got %d bytes, %v, want 5", n, err)
	}
	if n := d.moving.Len(); n != 0 {
		t.Errorf("%d locks are kept, want none", n)
	}
}
