package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestKindsOfErrorsAreStatusCodesAndOtherErrorsAreNotTold(t *testing.T) {
	inside := errors.New("open /var/lib/marina/agent/sandboxes: too many open files")
	for _, c := range []struct {
		err  error
		code int
		told bool
	}{
		{fmt.Errorf("offset: %w", errdefs.ErrInvalidArgument), http.StatusBadRequest, true},
		{fmt.Errorf("task x: %w", errdefs.ErrNotFound), http.StatusNotFound, true},
		{fmt.Errorf("stdout: %w", fs.ErrNotExist), http.StatusNotFound, true},
		{fmt.Errorf("link: %w", errdefs.ErrPermissionDenied), http.StatusForbidden, true},
		{fmt.Errorf("task x: %w", errdefs.ErrFailedPrecondition), http.StatusConflict, true},
		{inside, http.StatusInternalServerError, false},
	} {
		var log bytes.Buffer
		a := &Agent{log: slog.New(slog.NewTextHandler(&log, nil))}
		w := httptest.NewRecorder()
		a.answer(func(http.ResponseWriter, *http.Request) error { return c.err })(w, httptest.NewRequest("GET", "/agent/v1/stats", nil))
		if w.Code != c.code {
			t.Errorf("%v: got %d, want %d", c.err, w.Code, c.code)
		}
		if told := strings.Contains(w.Body.String(), c.err.Error()); told != c.told {
			t.Errorf("%v: the answer is %q", c.err, w.Body)
		}
		if logged := strings.Contains(log.String(), c.err.Error()); logged == c.told {
			t.Errorf("%v: the log says %q", c.err, log.String())
		}
	}
}

func TestAskingForTasksThatWereNeverHereLeavesNothing(t *testing.T) {
	f, err := openFolder(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	s := newStreams(f)
	for i := range 100 {
		if _, _, _, err := s.read(fmt.Sprint("task", i), "stdout", 0, nil, 2); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want fs.ErrNotExist", err)
		}
	}
	box := filepath.Join(f.path, "sandboxes", "there")
	if err := errors.Join(os.Mkdir(box, 0o700), os.WriteFile(filepath.Join(box, "stdout"), []byte("hello"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if n, _, _, err := s.read("there", "stdout", 0, make([]byte, 9), 2); n != 5 || err != nil {
		t.Errorf("got %d bytes, %v, want 5", n, err)
	}
	if n := s.moving.Len(); n != 0 {
		t.Errorf("%d locks are kept, want none", n)
	}
}
