package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

type value struct {
	Name string
	N    int
}

var sample = value{Name: "a group", N: 7}

func open(t *testing.T, dir string, log *bytes.Buffer) *Dir {
	t.Helper()
	d, err := Open(t.Context(), dir, slog.New(slog.NewTextHandler(log, nil)), "groups")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// TestEveryDamageIsNoticed cuts and flips a checkpoint at every place.
func TestEveryDamageIsNoticed(t *testing.T) {
	good, err := encode(sample)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte) {
		t.Helper()
		var v value
		if err := decode(b, &v); !errors.Is(err, ErrCorrupt) || !errdefs.IsDataLoss(err) {
			t.Errorf("%s: got %v, want it noticed", what, err)
		}
	}
	for i := range good {
		check(fmt.Sprintf("cut at %d", i), good[:i])
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			check(fmt.Sprintf("bit %d of byte %d flipped", bit, i), b)
		}
	}
	check("lengthened", append(bytes.Clone(good), 0))
	var v value
	if err := decode(good, &v); err != nil || v != sample {
		t.Errorf("undamaged: got %+v, %v", v, err)
	}
}

func TestCutOffSaveLeavesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir, new(bytes.Buffer))
	if err := d.Save("groups/a.ckpt", sample); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(filepath.Join(dir, "groups/a.ckpt"))
	left := []string{"groups/a.ckpt" + temporaryExt, "groups/.new-cut"} // crashes before the rename
	for _, l := range left {
		if err := os.WriteFile(filepath.Join(dir, l), b[:len(b)-2], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names, err := d.List("groups")
	if err != nil || !slices.Equal(names, []string{"groups/a.ckpt"}) {
		t.Errorf("got %v, %v, want what was saved", names, err)
	}
	var v value
	if err := d.Load("groups/a.ckpt", &v); err != nil || v != sample {
		t.Errorf("got %+v, %v, want what was saved", v, err)
	}
	for _, l := range left {
		if _, err := os.Stat(filepath.Join(dir, l)); err == nil {
			t.Errorf("%s, the rest of a save that was cut off, is still there", l)
		}
	}
}

func TestDamageIsSetAsideAndNamed(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	d := open(t, dir, &log)
	file := filepath.Join(dir, "groups", "a.ckpt")
	if err := os.WriteFile(file, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	var v value
	if err := d.Load("groups/a.ckpt", &v); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want the file named", err)
	}
	if b, err := os.ReadFile(file + corruptExt); err != nil || string(b) != "torn" {
		t.Errorf("set aside: got %q, %v, want it kept", b, err)
	}
	if !strings.Contains(log.String(), file+corruptExt) {
		t.Errorf("log %q does not name the file that was set aside", log.String())
	}
	if err := d.Load("groups/a.ckpt", &v); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("then: got %v, want fs.ErrNotExist", err)
	}
	if names, err := d.List("groups"); err != nil || len(names) != 0 {
		t.Errorf("then: listed %v, %v, want none", names, err)
	}
}

func TestTheDirectoryIsOneAgentsAtATime(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir, new(bytes.Buffer))
	_, err := Open(t.Context(), dir, slog.New(slog.DiscardHandler))
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("got %v, want unavailable and who holds it", err)
	}
	first.Close()
	open(t, dir, new(bytes.Buffer))
}

func TestDroppedIsGoneAndCanBeDroppedAgain(t *testing.T) {
	d := open(t, t.TempDir(), new(bytes.Buffer))
	if err := d.Save("groups/a.ckpt", sample); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Remove("groups/a.ckpt"); err != nil {
			t.Error(err)
		}
	}
	var v value
	if err := d.Load("groups/a.ckpt", &v); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func TestWhatIsTooLargeIsRefusedAndNotReadWhole(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir, new(bytes.Buffer))
	if err := d.Save("groups/a.ckpt", make([]byte, maxSize)); !errdefs.IsOutOfRange(err) { // a third more in JSON
		t.Errorf("got %v, want errdefs.ErrOutOfRange", err)
	}
	file := filepath.Join(dir, "groups", "huge.ckpt")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, maxSize+1)); err != nil {
		t.Fatal(err)
	}
	var v value
	if err := d.Load("groups/huge.ckpt", &v); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range []any{sample, nil, []int{1}, map[string]any{"Name": 1}} {
		b, err := encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-3])
	}
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var v value
		if err := decode(b, &v); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("got %v, want it to be of kind ErrCorrupt", err)
		}
	})
}
