package api

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
		a := New(Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
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
