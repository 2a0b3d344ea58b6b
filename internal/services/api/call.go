package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/services"
	"github.com/marinaos/marina/internal/services/core"
)

// call is one request on its way through the routes: what every handler may ask of it, and the answer. It cannot
// write: the answer is built first. Handlers are methods of a type for each noun, which is a call.
type call struct {
	services *services.Services
	api      *API
	r        *http.Request
	rights   rights
	out      answer
}

// answer is the response to a request, built before any of it is written.
type answer struct {
	status int
	header http.Header
	body   any                       // its JSON is written; nil: nothing is
	plain  string                    // written instead, as text
	stream func(http.ResponseWriter) // called instead, to write for as long as it likes
}

// errNoRoute and errMethod are answers of routing itself.
var (
	errNoRoute = marathon.Problemf(errdefs.ErrNotFound, "URI not found")
	errMethod  = errors.New("HTTP method not allowed")
)

// segments are the parts of a path between slashes, however many those are.
func segments(u *url.URL) ([]string, error) {
	out := []string{}
	for _, p := range strings.Split(u.EscapedPath(), "/") {
		if p == "" {
			continue
		}
		name, err := url.PathUnescape(p)
		if err != nil || strings.ContainsAny(name, "/\\\x00") || name == "." || name == ".." {
			return nil, marathon.Problemf(errdefs.ErrInvalidArgument, "path segment %.80q is not allowed", p)
		}
		out = append(out, name)
	}
	return out, nil
}

func (c *call) get(f func() error) error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return errMethod
	}
	return f()
}

func (c *call) flag(name string, def bool) bool {
	v, ok := c.r.URL.Query()[name]
	if !ok {
		return def
	}
	return v[0] == "true" || v[0] == ""
}

// body reads and parses the request's JSON.
func (c *call) body() (any, error) {
	raw, err := io.ReadAll(c.r.Body)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, marathon.Problemf(errdefs.ErrOutOfRange, "the request is larger than %d bytes", marathon.MaxBody)
		}
		return nil, marathon.Problemf(errdefs.ErrInvalidArgument, "the request could not be read")
	}
	return marathon.Parse(raw)
}

func (c *call) object() (map[string]any, error) {
	v, err := c.body()
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, marathon.ShapeError(marathon.Bad("", "error.expected.jsobject"))
	}
	return m, nil
}

// list reads a request that is a list of objects.
func (c *call) list() ([]map[string]any, error) {
	v, err := c.body()
	if err != nil {
		return nil, err
	}
	l, ok := v.([]any)
	if !ok {
		return nil, marathon.ShapeError(marathon.Bad("", "error.expected.jsarray"))
	}
	if len(l) > marathon.MaxApps {
		return nil, marathon.ShapeError(marathon.Bad("", fmt.Sprintf("at most %d apps fit in one request: send several",
			marathon.MaxApps)))
	}
	out := make([]map[string]any, 0, len(l))
	for i, e := range l {
		m, ok := e.(map[string]any)
		if !ok {
			return nil, marathon.ShapeError(marathon.Bad(fmt.Sprintf("(%d)", i), "error.expected.jsobject"))
		}
		out = append(out, m)
	}
	return out, nil
}

// messageBody is the body of an answer that only says something.
type messageBody struct {
	Message     string                   `json:"message"`
	Details     any                      `json:"details,omitempty"`
	Deployments []marathon.DeploymentRef `json:"deployments,omitempty"`
}

// write sends the answer. Nothing is locked while it waits for the client.
func (a answer) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	var b []byte
	switch {
	case a.stream != nil:
		a.stream(w)
		return
	case a.plain != "":
		b = []byte(a.plain)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	case a.body != nil:
		var err error
		if b, err = marathon.Encode(a.body); err != nil {
			errorAnswer(err).write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	}
	w.WriteHeader(a.status)
	if len(b) > 0 {
		_, _ = w.Write(b) // a client that is gone gets nothing
	}
}

// answer answers with a value.
func (c *call) answer(v any) error { return c.answerWith(http.StatusOK, v) }

func (c *call) answerWith(status int, v any) error {
	c.out.status, c.out.body = status, v
	return nil
}

// started answers a request that began a deployment.
func (c *call) started(status int, d *core.Deployment, body any) error {
	c.out.header.Set("Marathon-Deployment-Id", d.ID)
	if body == nil {
		body = marathon.DeploymentResult{Version: d.Version, DeploymentID: d.ID}
	}
	return c.answerWith(status, body)
}

// errorAnswer is the one place that turns kinds of errors into statuses.
func errorAnswer(err error) answer {
	status, body := http.StatusInternalServerError, messageBody{Message: "internal error: see the master's log"}
	p, said := errors.AsType[*marathon.Problem](err)
	if said {
		body.Message = p.Text
	}
	if e, ok := errors.AsType[*marathon.SyntaxError](err); ok {
		status, body = http.StatusBadRequest, messageBody{Message: marathon.WrongShape, Details: e.Text}
	} else if e, ok := errors.AsType[*marathon.InvalidError](err); ok {
		status, body = http.StatusUnprocessableEntity, messageBody{Message: e.Message}
		if len(e.Details) > 0 {
			body.Details = e.Details
		}
	} else if e, ok := errors.AsType[*services.LockedError](err); ok {
		status, body = http.StatusConflict, messageBody{Message: e.Error()}
		for _, id := range e.Deployments {
			body.Deployments = append(body.Deployments, marathon.DeploymentRef{ID: id})
		}
	} else if errors.Is(err, errMethod) {
		status, body.Message = http.StatusMethodNotAllowed, err.Error()
	} else if said {
		status = statusOf(p.Kind)
	} else if errdefs.IsPermissionDenied(err) {
		status = http.StatusForbidden
		body.Message = strings.TrimSuffix(err.Error(), ": "+errdefs.ErrPermissionDenied.Error())
	} else if errors.Is(err, scheduler.ErrPanic) {
		body.Message = err.Error()
	} else if errdefs.IsInvalidArgument(err) {
		status, body.Message = http.StatusUnprocessableEntity, err.Error()
	} else if errdefs.IsResourceExhausted(err) {
		status = http.StatusInsufficientStorage
		body.Message = strings.TrimSuffix(err.Error(), ": "+errdefs.ErrResourceExhausted.Error())
	} else {
		status, body.Message = http.StatusServiceUnavailable,
			"this master could not confirm the request: it does not lead, or its state's outcome is unknown; "+
				"read before you repeat it"
	}
	a := answer{status: status, header: http.Header{}, body: body}
	if status == http.StatusServiceUnavailable {
		a.header.Set("Retry-After", "1")
	}
	return a
}

func statusOf(kind error) int {
	switch {
	case errors.Is(kind, errdefs.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(kind, errdefs.ErrAlreadyExists):
		return http.StatusConflict
	case errors.Is(kind, errdefs.ErrPermissionDenied):
		return http.StatusForbidden
	case errors.Is(kind, errdefs.ErrInvalidArgument):
		return http.StatusBadRequest
	case errors.Is(kind, errdefs.ErrOutOfRange):
		return http.StatusRequestEntityTooLarge
	case errors.Is(kind, errdefs.ErrDataLoss):
		return http.StatusInternalServerError
	case errors.Is(kind, errdefs.ErrNotImplemented):
		return http.StatusUnprocessableEntity
	}
	return http.StatusServiceUnavailable
}
