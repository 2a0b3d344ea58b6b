package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/store"
)

func answer(w http.ResponseWriter, status int, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n')) // a client that is gone gets nothing
	return nil
}

// fail turns the kind of an error into a status. What is not the client's to know goes to the log.
func fail(w http.ResponseWriter, r *http.Request, err error, log *slog.Logger) {
	status, message := http.StatusInternalServerError, err.Error()
	switch {
	case errors.Is(err, store.ErrUnknownOutcome), errors.Is(err, store.ErrFenced), errors.Is(err, store.ErrConflict):
		log.Error("request lost", "path", r.URL.Path, "err", err)
		status = http.StatusServiceUnavailable
		message = "this master stops leading, and whether it was done is not known: look, and ask again"
		w.Header().Set("Retry-After", "1")
	case errors.Is(err, errdefs.ErrInvalidArgument), errors.Is(err, errdefs.ErrResourceExhausted):
		status = http.StatusUnprocessableEntity
	case errors.Is(err, errdefs.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, errdefs.ErrAlreadyExists), errors.Is(err, errdefs.ErrFailedPrecondition):
		status = http.StatusConflict
	case errors.Is(err, errdefs.ErrPermissionDenied):
		status = http.StatusForbidden
	case errors.Is(err, errdefs.ErrUnavailable):
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	default:
		log.Error("request failed", "path", r.URL.Path, "err", err)
		message = "it could not be done; the daemon's log says why"
	}
	for _, kind := range []error{errdefs.ErrInvalidArgument, errdefs.ErrResourceExhausted, errdefs.ErrNotFound,
		errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition, errdefs.ErrPermissionDenied, errdefs.ErrUnavailable} {
		message = strings.TrimSuffix(message, ": "+kind.Error()) // it is the status
	}
	_ = answer(w, status, map[string]string{"message": message})
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
