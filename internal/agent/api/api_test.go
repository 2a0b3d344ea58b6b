package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/agent/sandbox"
	"github.com/marinaos/marina/internal/kernel"
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

// answers is an API over the sandbox of one task.
func answers(t *testing.T, output string) (get func(path string) *httptest.ResponseRecorder, box string) {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	d := sandbox.In(root)
	if err := d.Make("t", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Path("t"), "stdout"), []byte(output), 0o644); err != nil {
		t.Fatal(err)
	}
	h := New(Config{Agent: "a1", State: root.Name(), Sandboxes: d, LogKeep: 2, Log: slog.New(slog.DiscardHandler),
		Task: func(kernel.TaskID) (Task, bool) { return Task{}, false },
		Up:   func() map[kernel.TaskID]Task { return nil }}).Handler()
	return func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/agent/v1"+path, nil))
		return w
	}, d.Path("t")
}

func TestOutputIsServedFromAnyOffset(t *testing.T) {
	get, _ := answers(t, "0123456789")
	for query, want := range map[string]struct{ body, offset string }{
		"":                           {"0123456789", "0"},
		"?offset=4":                  {"456789", "4"},
		"?offset=-3":                 {"789", "7"},
		"?offset=-30":                {"0123456789", "0"},
		"?offset=99":                 {"", "10"},
		"?offset=2&limit=3":          {"234", "2"},
		"?limit=0":                   {"", "0"},
		"?offset=-3&follow=true":     {"789", "7"}, // it ended: there is nothing to follow
		"?offset=5&limit=2&follow=x": {"56", "5"},
	} {
		w := get("/tasks/t/logs/stdout" + query)
		if w.Code != http.StatusOK || w.Body.String() != want.body || w.Header().Get("Marina-Offset") != want.offset {
			t.Errorf("%q: got %d %q from %s, want %q from %s",
				query, w.Code, w.Body, w.Header().Get("Marina-Offset"), want.body, want.offset)
		}
	}
	for path, code := range map[string]int{
		"/tasks/t/logs/stdin":             http.StatusBadRequest,
		"/tasks/t/logs/stdout?offset=x":   http.StatusBadRequest,
		"/tasks/t/logs/stdout?limit=-1":   http.StatusBadRequest,
		"/tasks/..%2F..%2Fx/logs/stdout":  http.StatusBadRequest,
		"/tasks/nobody/logs/stdout":       http.StatusNotFound,
		"/tasks/nobody/files/":            http.StatusNotFound,
		"/tasks/t/files/nothing":          http.StatusNotFound,
		"/tasks/t/usage":                  http.StatusNotFound,
		"/nothing":                        http.StatusNotFound,
		"/tasks/t/files/../../../../etc/": http.StatusTemporaryRedirect,
	} {
		if w := get(path); w.Code != code && !(code == http.StatusTemporaryRedirect && w.Code/100 == 3) {
			t.Errorf("%s: got %d %s, want %d", path, w.Code, w.Body, code)
		}
	}
}

func TestFilesOfASandboxAreServedAndNothingElse(t *testing.T) {
	get, box := answers(t, "hello")
	if err := errors.Join(os.Mkdir(filepath.Join(box, "dir"), 0o755),
		os.Symlink("/etc/passwd", filepath.Join(box, "link")),
		os.Symlink("stdout", filepath.Join(box, "inside")),
		os.WriteFile(filepath.Join(box, "page.html"), []byte("<script>"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if w := get("/tasks/t/files/inside"); w.Code != http.StatusOK || w.Body.String() != "hello" {
		t.Errorf("a link inside: got %d %q", w.Code, w.Body)
	}
	if w := get("/tasks/t/files/link"); w.Code != http.StatusForbidden {
		t.Errorf("a link that leads out: got %d", w.Code)
	}
	if w := get("/tasks/t/files/page.html"); w.Header().Get("Content-Type") != "application/octet-stream" ||
		w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("a page: got %v, want nothing a browser would run", w.Header())
	}
	w := get("/tasks/t/files/")
	var list []struct {
		Name string
		Size int64
		Dir  bool `json:"folder"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
		if e.Dir != (e.Name == "dir") || e.Name == "stdout" && e.Size != 5 {
			t.Errorf("got %+v", e)
		}
	}
	if want := []string{"dir", "inside", "link", "page.html", "stderr", "stdout"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestStatsOfAMachineWithoutTasks(t *testing.T) {
	get, _ := answers(t, "")
	w := get("/stats")
	var got AgentStats
	err := json.Unmarshal(w.Body.Bytes(), &got)
	if err != nil || got.Agent != "a1" || got.FreeDisk <= 0 || got.Tasks == nil {
		t.Errorf("got %s, %v", w.Body, err)
	}
}
