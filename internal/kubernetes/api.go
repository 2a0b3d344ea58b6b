package kubernetes

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/kubernetes/pki"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/store"
)

// Limits of requests.
const (
	maxBody    = 64 << 10
	followBeat = 15 * time.Second // a comment keeps the stream alive
	defaultTTL = 30 * 24 * time.Hour
	maxTTL     = 365 * 24 * time.Hour
)

// api answers requests for clusters, and asks access before.
type api struct {
	*Clusters
	access access.Authorizer
}

// may asks about a cluster that is there: its resource is its name below its group.
func (k *api) may(r *http.Request, a access.Action, name string) error {
	_, err := k.allowed(r, a, name)
	return err
}

// allowed is may, and returns the cluster that it looked at.
func (k *api) allowed(r *http.Request, a access.Action, name string) (View, error) {
	v, _, err := k.Get(name)
	if err != nil {
		return View{}, err
	}
	return v, k.mayIn(r, a, v.Group, name)
}

// mayIn asks about a cluster of a group.
func (k *api) mayIn(r *http.Request, a access.Action, group, name string) error {
	return access.Check(r.Context(), k.access, a, access.Clusters.Of(path.Join("/", group, name)))
}

// Handler serves /kubernetes/v1. It is the only place that knows status codes. It asks z for each cluster that a
// request is about.
func (k *Clusters) Handler(z access.Authorizer) http.Handler { return (&api{k, z}).handler() }

func (k *api) handler() http.Handler {
	mux := http.NewServeMux()
	route := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			err := scheduler.ErrNotLeading
			if k.loop.Leading() {
				err = h(w, r)
			}
			if err != nil {
				k.fail(w, r, err)
			}
		})
	}
	const one = "/kubernetes/v1/clusters/{name}"
	route("GET /kubernetes/v1/clusters", func(w http.ResponseWriter, r *http.Request) error {
		list := slices.DeleteFunc(k.List(), func(v View) bool { return k.mayIn(r, access.Read, v.Group, v.Name) != nil })
		return answer(w, http.StatusOK, map[string]any{"clusters": list})
	})
	route("POST /kubernetes/v1/clusters", k.post)
	route("GET /kubernetes/v1/versions", func(w http.ResponseWriter, r *http.Request) error {
		if err := access.Check(r.Context(), k.access, access.Read, access.Clusters.Of("/")); err != nil {
			return err
		}
		return answer(w, http.StatusOK, map[string]any{"versions": versions(k.cfg.Kernel.Agents())})
	})
	route("GET "+one, k.get)
	route("PUT "+one, k.put)
	route("DELETE "+one, func(w http.ResponseWriter, r *http.Request) error {
		if err := k.may(r, access.Delete, r.PathValue("name")); err != nil {
			return err
		}
		if err := k.Delete(context.WithoutCancel(r.Context()), r.PathValue("name")); err != nil {
			return err
		}
		return k.show(w, http.StatusAccepted, r.PathValue("name"))
	})
	route("GET "+one+"/kubeconfig", k.kubeconfig)
	route("GET "+one+"/events", func(w http.ResponseWriter, r *http.Request) error {
		if err := k.may(r, access.Read, r.PathValue("name")); err != nil {
			return err
		}
		events, err := k.Events(r.PathValue("name"))
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, map[string]any{"events": events})
	})
	route("GET "+one+"/follow", k.stream)
	route("POST "+one+"/images", func(w http.ResponseWriter, r *http.Request) error {
		if err := k.may(r, access.Update, r.PathValue("name")); err != nil {
			return err
		}
		images, nodes, err := k.Load(r.Context(), r.PathValue("name"), r.Body)
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, map[string]any{"images": images, "nodes": nodes})
	})
	return mux
}

// body reads a definition. Fields that do not exist are refused: a misspelt one would be lost in silence.
func body(w http.ResponseWriter, r *http.Request) (Definition, error) {
	var d Definition
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return d, invalid("the request is longer than %d bytes, or broken", maxBody)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, invalid("the definition cannot be read: %v", err)
	}
	if dec.More() {
		return d, invalid("the definition is followed by something else")
	}
	return d, nil
}

func (k *api) post(w http.ResponseWriter, r *http.Request) error {
	d, err := body(w, r)
	if err != nil {
		return err
	}
	if err := k.mayIn(r, access.Create, d.Group, d.Name); err != nil {
		return err
	}
	if err := k.Create(context.WithoutCancel(r.Context()), d); err != nil {
		return err
	}
	return k.show(w, http.StatusCreated, d.Name)
}

// put creates or changes.
func (k *api) put(w http.ResponseWriter, r *http.Request) error {
	d, err := body(w, r)
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	if d.Name == "" {
		d.Name = name
	}
	if d.Name != name {
		return invalid("name %.60q: the path says %.60q", d.Name, name)
	}
	ctx := context.WithoutCancel(r.Context())
	if v, _, err := k.Get(name); err == nil {
		if err := k.mayIn(r, access.Update, v.Group, name); err != nil {
			return err
		}
		if err := k.Change(ctx, d); err != nil {
			return err
		}
		return k.show(w, http.StatusOK, name)
	}
	if err := k.mayIn(r, access.Create, d.Group, name); err != nil {
		return err
	}
	if err := k.Create(ctx, d); err != nil {
		return err
	}
	return k.show(w, http.StatusCreated, name)
}

func (k *api) get(w http.ResponseWriter, r *http.Request) error {
	v, err := k.allowed(r, access.Read, r.PathValue("name"))
	if err != nil {
		return err
	}
	if r.URL.Query().Get("cost") == "true" {
		k.Costs(r.Context(), &v)
	}
	return answer(w, http.StatusOK, v)
}

func (k *api) show(w http.ResponseWriter, status int, name string) error {
	v, _, err := k.Get(name)
	if errdefs.IsNotFound(err) && status == http.StatusAccepted { // gone already
		return answer(w, status, map[string]string{"name": name})
	}
	if err != nil {
		return err
	}
	return answer(w, status, v)
}

// stream tells a cluster at every change, until it is gone or the client is.
func (k *api) stream(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if err := k.may(r, access.Read, name); err != nil {
		return err
	}
	v, changed, err := k.Get(name)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	last := []byte(nil)
	for {
		raw, err := json.Marshal(v)
		if err != nil {
			return nil // the stream has begun
		}
		if !bytes.Equal(raw, last) {
			last = raw
			if _, err := fmt.Fprintf(w, "data: %s\n\n", raw); err != nil {
				return nil
			}
			_ = control.Flush()
		}
		select {
		case <-changed:
		case <-time.After(followBeat):
			if _, err := io.WriteString(w, ": \n\n"); err != nil {
				return nil
			}
			_ = control.Flush()
		case <-r.Context().Done():
			return nil
		case <-k.loop.Ended():
			return nil
		}
		if v, changed, err = k.Get(name); err != nil {
			return nil
		}
	}
}

// kubeconfigForm is a file for kubectl, with one context.
const kubeconfigForm = `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[1]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[1]s
current-context: %[1]s
`

// kubeconfig answers with a file for kubectl. Its certificate is an administrator's, made for this request and kept
// nowhere.
func (k *api) kubeconfig(w http.ResponseWriter, r *http.Request) error {
	ttl := defaultTTL
	if text := r.URL.Query().Get("ttl"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Minute || d > maxTTL {
			return invalid("ttl %.20q: expected a duration of 1m to %v, such as 720h", text, maxTTL)
		}
		ttl = d
	}
	v, err := k.allowed(r, access.Exec, r.PathValue("name"))
	if err != nil {
		return err
	}
	if v.State == Deleting || v.Server == "" {
		return fmt.Errorf("cluster %s has no API address now, it is %s: %w", v.Name, v.State, errdefs.ErrFailedPrecondition)
	}
	a, err := k.authorities(r.Context(), v.ID)
	if err != nil {
		return err
	}
	l, err := a.Issue(pki.Identity{Name: "marina:admin", Group: "system:masters"}, k.cfg.Now(), ttl)
	if err != nil {
		return err
	}
	text := base64.StdEncoding.EncodeToString
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = fmt.Fprintf(w, kubeconfigForm, "marina-"+v.Name, v.Server, text(a.CA), text(l.Cert), text(l.Key))
	return nil
}

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

// fail turns the kind of an error into a status. What is not the client's to know is in the log.
func (k *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, message := http.StatusInternalServerError, err.Error()
	switch {
	case errors.Is(err, store.ErrUnknownOutcome), errors.Is(err, store.ErrFenced), errors.Is(err, store.ErrConflict):
		k.cfg.Log.Error("request lost", "path", r.URL.Path, "err", err)
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
		k.cfg.Log.Error("request failed", "path", r.URL.Path, "err", err)
		message = "it could not be done; the daemon's log says why"
	}
	for _, kind := range []error{errdefs.ErrInvalidArgument, errdefs.ErrResourceExhausted, errdefs.ErrNotFound,
		errdefs.ErrAlreadyExists,
		errdefs.ErrFailedPrecondition, errdefs.ErrPermissionDenied, errdefs.ErrUnavailable} {
		message = strings.TrimSuffix(message, ": "+kind.Error()) // it is the status
	}
	_ = answer(w, status, map[string]string{"message": message})
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
