package api

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// Task is a task of an instance that is here, as it was told last.
type Task struct {
	Container string
	Status    kernel.Status // zero before anything was told
}

// Up reports whether its process was told to run, and not to have ended.
func (t *Task) Up() bool { return t.Status.State == kernel.Running || t.Status.State == kernel.Killing }

// answer turns the kind of an error that came before the first byte into a status code. An error of no kind that a
// client could act on is logged, and its text not told.
func (p *API) answer(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		var code int
		switch {
		case err == nil:
			return
		case errdefs.IsInvalidArgument(err):
			code = http.StatusBadRequest
		case errdefs.IsNotFound(err), errors.Is(err, fs.ErrNotExist):
			code = http.StatusNotFound
		case errdefs.IsPermissionDenied(err), errors.Is(err, fs.ErrPermission):
			code = http.StatusForbidden
		case errdefs.IsFailedPrecondition(err):
			code = http.StatusConflict
		case r.Context().Err() != nil:
			return // nobody waits for an answer
		default:
			p.cfg.Log.Error("request of a master failed", "path", r.URL.Path, "err", err)
			http.Error(w, unexplained, http.StatusInternalServerError)
			return
		}
		http.Error(w, err.Error(), code)
	}
}

func serveJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // a client that went away needs no answer
	return nil
}
