package kernel

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/containerd/errdefs"
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

func TestExecFramesThatAreNoneAreRefused(t *testing.T) {
	if err := WriteExecFrame(io.Discard, ExecStdin, make([]byte, MaxExecFrame+1)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("oversized write: got %v, want an invalid argument", err)
	}
	for _, in := range []string{"\x00\x00\x00\x00\x00", "\x63\x00\x00\x00\x00", "\x02\xff\xff\xff\xff"} {
		if _, _, err := ReadExecFrame(bytes.NewReader([]byte(in))); !errdefs.IsInvalidArgument(err) {
			t.Errorf("frame %q: got %v, want an invalid argument", in, err)
		}
	}
	if _, _, err := ReadExecFrame(bytes.NewReader([]byte("\x02\x00\x00\x00\x05ab"))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: got %v, want io.ErrUnexpectedEOF", err)
	}
}
