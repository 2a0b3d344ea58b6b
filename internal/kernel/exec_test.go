package kernel

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

func TestExecFramesComeBackAsTheyWereWritten(t *testing.T) {
	var b bytes.Buffer
	want := map[ExecKind]string{ExecStdin: "hello\n", ExecStdinEOF: "", ExecExit: `{"code":3}`}
	for _, k := range []ExecKind{ExecStdin, ExecStdinEOF, ExecExit} {
		if err := WriteExecFrame(&b, k, []byte(want[k])); err != nil {
			t.Fatal(err)
		}
	}
	for range want {
		k, p, err := ReadExecFrame(&b)
		if err != nil || string(p) != want[k] {
			t.Errorf("got frame %d %q, %v, want %q", k, p, err, want[k])
		}
	}
	if _, _, err := ReadExecFrame(&b); err != io.EOF {
		t.Errorf("after the last frame: got %v, want io.EOF", err)
	}
}

// A connection gives what it has: frames come in pieces, several at once.
func TestExecFramesAreFoundInAnyPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type frame struct {
			kind    ExecKind
			payload []byte
		}
		var want []frame
		var b bytes.Buffer
		for range rapid.IntRange(0, 6).Draw(t, "frames") {
			f := frame{ExecKind(rapid.IntRange(int(ExecStart), int(ExecExit)).Draw(t, "kind")),
				bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")},
					rapid.SampledFrom([]int{0, 1, 100, MaxExecFrame}).Draw(t, "length"))}
			if err := WriteExecFrame(&b, f.kind, f.payload); err != nil {
				t.Fatal(err)
			}
			want = append(want, f)
		}
		cut := b.Len() - rapid.IntRange(0, min(b.Len(), 7)).Draw(t, "cut")
		whole := cut == b.Len()
		r := iotest.OneByteReader(bytes.NewReader(b.Bytes()[:cut]))
		if rapid.Bool().Draw(t, "halves") {
			r = iotest.HalfReader(bytes.NewReader(b.Bytes()[:cut]))
		}
		for k := 0; ; k++ {
			kind, payload, err := ReadExecFrame(r)
			if err != nil {
				if ended := errors.Is(err, io.EOF); whole && (!ended || k != len(want)) ||
					!ended && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("after %d of %d frames, whole %v: %v", k, len(want), whole, err)
				}
				return
			}
			if k >= len(want) || kind != want[k].kind || !bytes.Equal(payload, want[k].payload) {
				t.Fatalf("frame %d is of kind %d with %d bytes, want %d frames, %v", k, kind, len(payload),
					len(want), k < len(want))
			}
		}
	})
}

func TestExecFramesThatAreNoneAreRefused(t *testing.T) {
	if err := WriteExecFrame(io.Discard, ExecStdin, make([]byte, MaxExecFrame+1)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("oversized write: got %v, want an invalid argument", err)
	}
	for _, in := range []string{"\x00\x00\x00\x00\x00", "\x63\x00\x00\x00\x00", "\x02\xff\xff\xff\xff"} {
		if _, _, err := ReadExecFrame(bytes.NewReader([]byte(in))); !errdefs.IsInvalidArgument(err) {
			t.Errorf("frame %q: got %v, want an invalid argument", in, err)
		}
	}
	if _, _, err := ReadExecFrame(bytes.NewReader([]byte("\x02\x00\x00\x00\x05ab"))); !errors.Is(err,
		io.ErrUnexpectedEOF) {
		t.Errorf("cut off: got %v, want io.ErrUnexpectedEOF", err)
	}
}
