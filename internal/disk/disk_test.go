package disk

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestTheReserveIsLeftAndTheRefusalHasItsNumbers(t *testing.T) {
	for what, c := range map[string]struct {
		space Space
		more  int64
		says  string // "": it is allowed
	}{
		"a large disk with room":           {Space{1 << 40, 5 << 30}, 1 << 30, ""},
		"a large disk, one byte too many":  {Space{1 << 40, 5 << 30}, 1<<30 + 1, "5 GiB free, of which 4 GiB"},
		"a small disk keeps a tenth":       {Space{10 << 30, 2 << 30}, 1 << 30, ""},
		"a small disk, one byte too many":  {Space{10 << 30, 2 << 30}, 1<<30 + 1, "2 GiB free, of which 1 GiB"},
		"nothing more on a full one":       {Space{10 << 30, 512 << 20}, 0, "512 MiB free"},
		"more than there is in all wholly": {Space{1 << 30, 1 << 30}, 1 << 50, "1 GiB free, of which 102 MiB"},
	} {
		err := c.space.Check(c.more)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: got %v, want none", what, err)
		case c.says != "" && (!errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: got %v, want a refusal with %q", what, err, c.says)
		}
	}
}

func TestTheFilesystemOfADirectoryIsAsked(t *testing.T) {
	s, err := Of(t.TempDir())
	if err != nil || s.Size <= 0 || s.Free < 0 || s.Free > s.Size {
		t.Errorf("got %+v, %v", s, err)
	}
	if err := Check(t.TempDir(), 1<<60); !errdefs.IsResourceExhausted(err) {
		t.Errorf("an exabyte: got %v, want a refusal", err)
	}
	if err := Check(t.TempDir()+"/none", 0); err == nil {
		t.Error("a directory that is none has a filesystem")
	}
}

func TestAMeterStopsAtWhatIsRefusedAndWritesNoMore(t *testing.T) {
	full := errors.New("full")
	for what, c := range map[string]struct {
		budget, room int64
		want         int64 // bytes written
	}{
		"a budget":                    {budget: 100 << 10, room: 1 << 40, want: 96 << 10}, // pieces of 32 KiB
		"no room at all":              {budget: 1 << 40, room: 0, want: 0},
		"room that ends on the way":   {budget: 1 << 40, room: 70 << 20, want: 64 << 20},
		"neither: all of it is there": {budget: 1 << 40, room: 1 << 40, want: 200 << 20},
	} {
		taken, written := int64(0), int64(0)
		m := &Meter{To: writer(func(p []byte) (int, error) { written += int64(len(p)); return len(p), nil }),
			Take: func(n int64) error {
				if taken+n > c.budget {
					return full
				}
				taken += n
				return nil
			},
			Check: func(more int64) error {
				if written+more > c.room {
					return full
				}
				return nil
			}}
		_, err := io.CopyBuffer(m, io.LimitReader(zeros{}, 200<<20), make([]byte, 32<<10))
		if (err == nil) != (c.want == 200<<20) || written > c.want || written < c.want-checkEvery {
			t.Errorf("%s: %d bytes written and %v, want %d", what, written, err, c.want)
		}
		if taken < written {
			t.Errorf("%s: %d bytes written and only %d taken", what, written, taken)
		}
	}
	var out bytes.Buffer
	m := &Meter{To: &out, Take: func(int64) error { return nil }, Check: func(int64) error { return nil }}
	if _, err := io.WriteString(m, "hello"); err != nil || out.String() != "hello" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func TestSizesAreReadable(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 5 << 20: "5 MiB", 3 << 29: "1.5 GiB", 64 << 30: "64 GiB", 256 << 30: "256 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
