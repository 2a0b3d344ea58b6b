package images

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/store"
)

// used is what is counted, which must be what is there.
func used(t *testing.T, s *Images) int64 {
	t.Helper()
	s.space.mu.Lock()
	counted := s.space.used
	s.space.mu.Unlock()
	if err := s.measureAll(); err != nil {
		t.Fatal(err)
	}
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	if counted != s.space.used {
		t.Errorf("%d bytes are counted and %d are there", counted, s.space.used)
	}
	return counted
}

func TestAllContentTogetherIsBounded(t *testing.T) {
	s := open(t)
	if _, err := s.Load(t.Context(), bytes.NewReader(archive(t, picture(t), "a:1", nil)), ""); err != nil {
		t.Fatal(err)
	}
	had := used(t, s)
	s.space.max = had + 1000
	_, err := s.Load(t.Context(), bytes.NewReader(archive(t, picture(t), "b:1", nil)), "")
	if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "marina image remove") {
		t.Errorf("got %v, want a refusal that says what to do", err)
	}
	if got := used(t, s); got != had {
		t.Errorf("after the refusal %d bytes are counted, want %d", got, had)
	}
	if left, err := fs.ReadDir(s.root.FS(), "incoming"); err != nil || len(left) != 0 {
		t.Errorf("%d leftovers (%v), want none", len(left), err)
	}
	rec := httptest.NewRecorder()
	s.Handler(nil).ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/images/v1", bytes.NewReader(archive(t, picture(t), "b:1", nil))))
	if rec.Code != http.StatusInsufficientStorage || !strings.Contains(rec.Body.String(), "bytes") {
		t.Errorf("got %d %s, want %d with numbers", rec.Code, rec.Body, http.StatusInsufficientStorage)
	}
	if err := s.Remove(t.Context(), "a:1"); err != nil {
		t.Fatal(err)
	}
	if got := used(t, s); got != 0 {
		t.Errorf("with nothing loaded %d bytes are counted", got)
	}
}

func TestADiskThatIsFullIsLeftToTheStore(t *testing.T) {
	s := open(t)
	s.space.check = func(int64) error { return fmt.Errorf("1 GiB free: %w", errdefs.ErrResourceExhausted) }
	if _, err := s.Load(t.Context(), bytes.NewReader(archive(t, picture(t), "a:1", nil)), ""); !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v, want a refusal", err)
	}
	if got := used(t, s); got != 0 {
		t.Errorf("%d bytes are kept of what was refused", got)
	}
}

func TestWhatWasBeingReceivedIsRemovedAtTheStart(t *testing.T) {
	s := open(t)
	if _, err := s.Load(t.Context(), bytes.NewReader(archive(t, picture(t), "a:1", nil)), ""); err != nil {
		t.Fatal(err)
	}
	had := used(t, s)
	if err := s.root.Mkdir("incoming/x", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"incoming/x/archive.tar", "incoming/blob"} {
		if err := s.root.WriteFile(n, []byte("half of it"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again, err := New(s.root.Name(), s.st, s.fence, s.log)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := fs.ReadDir(again.root.FS(), "incoming"); err != nil || len(left) != 0 {
		t.Errorf("%d leftovers (%v), want none", len(left), err)
	}
	if got := used(t, again); got != had {
		t.Errorf("the next start counts %d bytes, want %d", got, had)
	}
}

func TestTablesOfADockerArchiveHaveALimit(t *testing.T) {
	img := picture(t)
	tag, err := name.NewTag("big:1")
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if err := tarball.Write(tag, img, &plain); err != nil {
		t.Fatal(err)
	}
	for _, which := range []string{"manifest.json", "sha256:"} { // the config's file is named by its digest
		s := open(t)
		_, err := s.Load(t.Context(), bytes.NewReader(padded(t, plain.Bytes(), which, MaxManifest+1)), "")
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "at most") {
			t.Errorf("a huge %s: got %v, want a refusal", which, err)
		}
	}
}

func TestAnswersTellNoInternals(t *testing.T) {
	var log bytes.Buffer
	s := open(t)
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	s.fence = func() (store.Guard, error) { return store.Guard{}, errors.New("open /secret/path: permission denied") }
	rec := httptest.NewRecorder()
	s.Handler(nil).ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/images/v1", bytes.NewReader(archive(t, picture(t), "a:1", nil))))
	if rec.Code != http.StatusInternalServerError || strings.Contains(rec.Body.String(), "secret") {
		t.Errorf("got %d %s, want %d and no internals", rec.Code, rec.Body, http.StatusInternalServerError)
	}
	if !strings.Contains(log.String(), "/secret/path") {
		t.Errorf("the log does not tell: %s", log.String())
	}
}

// Who may nothing sees no image, loads none and removes none.
func TestNothingIsToldOrDoneWithoutTheRight(t *testing.T) {
	s := open(t)
	if _, err := s.Load(t.Context(), bytes.NewReader(archive(t, picture(t), "a:1", nil)), ""); err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/images/v1", "", 200, `{"images":[]}`},
		{"POST", "/images/v1?name=b:1", "x", 403, "create marina:images:/b:1"},
		{"DELETE", "/images/v1/a:1", "", 403, "delete marina:images:/a:1"},
	} {
		rec := httptest.NewRecorder()
		s.Handler(access.Nobody{}).ServeHTTP(rec, httptest.NewRequest(q.method, q.path, bytes.NewReader([]byte(q.body))))
		if rec.Code != q.status || !strings.Contains(rec.Body.String(), q.says) {
			t.Errorf("%s %s: %d %s, want %d with %q", q.method, q.path, rec.Code, rec.Body, q.status, q.says)
		}
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("images are %v (%v), want the one", all, err)
	}
}
