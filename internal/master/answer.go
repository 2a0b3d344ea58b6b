package master

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// allow refuses other methods.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) error {
	if slices.Contains(methods, r.Method) {
		return nil
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	return methodError{r.Method, r.URL.Path}
}

type methodError struct{ method, path string }

// Error names what was tried.
func (e methodError) Error() string { return e.method + " is not possible on " + e.path }

func writeJSON(w http.ResponseWriter, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(raw, '\n')) // a client that has gone is no error of ours
	return nil
}

// statuses are the answers to kinds of errors.
var statuses = []struct {
	kind   error
	status int
}{
	{errdefs.ErrInvalidArgument, http.StatusBadRequest},
	{errdefs.ErrNotFound, http.StatusNotFound},
	{errdefs.ErrAlreadyExists, http.StatusConflict},
	{errdefs.ErrFailedPrecondition, http.StatusConflict},
	{errdefs.ErrPermissionDenied, http.StatusForbidden},
	{errdefs.ErrResourceExhausted, http.StatusTooManyRequests},
	{errdefs.ErrUnavailable, http.StatusServiceUnavailable},
}

// writeError answers as Marathon does: a status and {"message": "..."}.
func writeError(w http.ResponseWriter, err error) {
	status, message := http.StatusInternalServerError, "internal error: see the master's log"
	for _, k := range statuses {
		if errors.Is(err, k.kind) {
			status, message = k.status, strings.TrimSuffix(err.Error(), ": "+k.kind.Error())
			break
		}
	}
	if e, ok := errors.AsType[methodError](err); ok {
		status, message = http.StatusMethodNotAllowed, e.Error()
	}
	if status == http.StatusNotFound {
		message = err.Error()
	}
	raw, _ := json.Marshal(map[string]string{"message": message})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n'))
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
