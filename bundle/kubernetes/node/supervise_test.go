package main

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// reaper waits for the children of the test, which no os/exec may do beside it.
func reaper(t *testing.T) *Reaper {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	r := &Reaper{}
	done := make(chan struct{})
	go func() { r.Run(ended); close(done) }()
	t.Cleanup(func() { signal.Stop(ended); close(ended); <-done })
	return r
}

// lines is where a Log writes to; Next waits for a line that holds a text.
type lines struct {
	io.Writer
	scan *bufio.Scanner
}

func newLines() *lines {
	r, w := io.Pipe()
	return &lines{w, bufio.NewScanner(r)}
}

func (l *lines) next(t *testing.T, want string) string {
	t.Helper()
	for l.scan.Scan() {
		if strings.Contains(l.scan.Text(), want) {
			return l.scan.Text()
		}
	}
	t.Fatalf("no line with %q", want)
	return ""
}

func TestAProgramThatEndsStartsAgain(t *testing.T) {
	out := newLines()
	p := newProgram("sh", []string{"/bin/sh", "-c", "echo hello; exit 3"}, nil, time.Second, reaper(t), &Log{out: out})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	out.next(t, "marina-node: sh ended (exit status 3), starts again in 200ms")
	out.next(t, "starts again in 400ms")
	out.next(t, "sh: hello") // what a run says may come after the word that it ended
	cancel()
	go io.Copy(io.Discard, &scanned{out})
	<-done
}

// scanned drains what is left, so that nobody waits to write it.
type scanned struct{ l *lines }

func (s *scanned) Read(b []byte) (int, error) {
	if !s.l.scan.Scan() {
		return 0, io.EOF
	}
	return 0, nil
}

func TestARestartIsAskedForAndDoesNotWait(t *testing.T) {
	out := newLines()
	p := newProgram("sh", []string{"/bin/sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"}, nil, time.Minute, reaper(t), &Log{out: out})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	out.next(t, "sh: up")
	p.Restart()
	out.next(t, "marina-node: sh starts again")
	out.next(t, "sh: up")
	cancel()
	<-done
}

func TestAProgramThatIgnoresTERMIsKilled(t *testing.T) {
	out := newLines()
	p := newProgram("sh", []string{"/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"}, nil, 10*time.Millisecond, reaper(t), &Log{out: out})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	out.next(t, "sh: up")
	cancel()
	<-done
}

func TestOutputOfAProgram(t *testing.T) {
	r := reaper(t)
	got, err := r.Output(t.Context(), []string{"/bin/sh", "-c", "echo one; echo two >&2"}, nil)
	if want := "one\ntwo\n"; got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err = r.Output(t.Context(), []string{"/bin/sh", "-c", "echo why; exit 4"}, nil); err == nil || err.Error() != "sh: exit status 4: why" {
		t.Errorf("got %v, want the status and what was said", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err = r.Output(ctx, []string{"/bin/sh", "-c", "while :; do :; done"}, nil); err == nil {
		t.Error("got nil, want an error when time is up")
	}
}

func TestBackoffDoublesAndIsForgotten(t *testing.T) {
	for _, tc := range []struct{ last, ran, want time.Duration }{
		{0, 0, firstWait},
		{firstWait, time.Second, 2 * firstWait},
		{8 * time.Second, time.Second, longest},
		{longest, time.Second, longest},
		{longest, longest, firstWait},
	} {
		if got := backoff(tc.last, tc.ran); got != tc.want {
			t.Errorf("after %v and a run of %v: got %v, want %v", tc.last, tc.ran, got, tc.want)
		}
	}
}

func TestLongLinesAreCut(t *testing.T) {
	var b strings.Builder
	(&Log{out: &b}).Copy("x", io.NopCloser(strings.NewReader(strings.Repeat("a", maxLine+1)+"\nb")))
	if want := "x: " + strings.Repeat("a", maxLine) + "\nx: a\nx: b\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestOnlyWhatIsMissingIsImported(t *testing.T) {
	dir := t.TempDir()
	archive(t, filepath.Join(dir, "a.tar"), `{"manifests":[{"digest":"sha256:1","annotations":{"io.containerd.image.name":"docker.io/x/a:1"}},
		{"digest":"sha256:2","annotations":{"io.containerd.image.name":"docker.io/x/b:1"}}]}`)
	archive(t, filepath.Join(dir, "c.tar"), `{"manifests":[{"digest":"sha256:3","annotations":{"io.containerd.image.name":"docker.io/x/c:1"}}]}`)
	images, err := listImages(dir)
	if err != nil {
		t.Fatal(err)
	}
	const header = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n"
	all := header + "docker.io/x/a:1 application/x sha256:1 1 KiB linux/amd64 -\ndocker.io/x/b:1 t sha256:2\ndocker.io/x/c:1 t sha256:3\n"
	for name, tc := range map[string]struct {
		listed string
		want   string
	}{
		"nothing there":   {header, "a.tar c.tar"},
		"all there":       {all, ""},
		"another by name": {strings.Replace(all, "sha256:2", "sha256:9", 1), "a.tar"},
	} {
		var got []string
		for _, a := range missing(images, tc.listed) {
			got = append(got, filepath.Base(a))
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: got %v, want %s", name, got, tc.want)
		}
	}
}

func archive(t *testing.T, file, index string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, e := range []struct{ name, content string }{{"blobs/sha256/1", strings.Repeat("x", 3000)}, {"index.json", index}} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: 0o644, Size: int64(len(e.content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCheckSaysWhatIsNotReady(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answer := func(status, body string) {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 1024))
		fmt.Fprintf(conn, "HTTP/1.0 %s\r\nContent-Type: text/plain\r\n\r\n%s", status, body)
	}
	ready := filepath.Join(t.TempDir(), "ready")
	look := func(status, body string) string {
		go answer(status, body)
		if err := check(l.Addr().String(), ready); err != nil {
			return err.Error()
		}
		return "Ready"
	}
	if got, want := look("500 Internal Server Error", "syncloop failed"), "the kubelet is not healthy: syncloop failed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := look("200 OK", "ok"), "the node's network is not ready"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := look("200 OK", "ok"); got != "Ready" {
		t.Errorf("got %q, want Ready", got)
	}
}
