package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/kubernetes"
)

// maxBody bounds a definition.
const maxBody = 64 << 10

func (a *API) list(w http.ResponseWriter, r *http.Request) error {
	list := slices.DeleteFunc(a.clusters.List(),
		func(v kubernetes.View) bool { return a.mayIn(r, access.Read, v.Group, v.Name) != nil })
	return answer(w, http.StatusOK, map[string]any{"clusters": list})
}

// body reads a definition. Fields that do not exist are refused: a misspelt one would be lost in silence.
func body(w http.ResponseWriter, r *http.Request) (kubernetes.Definition, error) {
	var d kubernetes.Definition
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

func (a *API) post(w http.ResponseWriter, r *http.Request) error {
	d, err := body(w, r)
	if err != nil {
		return err
	}
	if err := a.mayIn(r, access.Create, d.Group, d.Name); err != nil {
		return err
	}
	if err := a.clusters.Create(context.WithoutCancel(r.Context()), d); err != nil {
		return err
	}
	return a.show(w, http.StatusCreated, d.Name)
}

// put creates or changes.
func (a *API) put(w http.ResponseWriter, r *http.Request) error {
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
	if v, _, err := a.clusters.Get(name); err == nil {
		if err := a.mayIn(r, access.Update, v.Group, name); err != nil {
			return err
		}
		if err := a.clusters.Change(ctx, d); err != nil {
			return err
		}
		return a.show(w, http.StatusOK, name)
	}
	if err := a.mayIn(r, access.Create, d.Group, name); err != nil {
		return err
	}
	if err := a.clusters.Create(ctx, d); err != nil {
		return err
	}
	return a.show(w, http.StatusCreated, name)
}

func (a *API) get(w http.ResponseWriter, r *http.Request) error {
	v, err := a.may(r, access.Read)
	if err != nil {
		return err
	}
	if r.URL.Query().Get("cost") == "true" {
		a.clusters.Costs(r.Context(), &v)
	}
	return answer(w, http.StatusOK, v)
}

func (a *API) delete(w http.ResponseWriter, r *http.Request) error {
	v, err := a.may(r, access.Delete)
	if err != nil {
		return err
	}
	if err := a.clusters.Delete(context.WithoutCancel(r.Context()), v.Name); err != nil {
		return err
	}
	return a.show(w, http.StatusAccepted, v.Name)
}

// show answers with a cluster as it is after a change.
func (a *API) show(w http.ResponseWriter, status int, name string) error {
	v, _, err := a.clusters.Get(name)
	if errdefs.IsNotFound(err) && status == http.StatusAccepted { // gone already
		return answer(w, status, map[string]string{"name": name})
	}
	if err != nil {
		return err
	}
	return answer(w, status, v)
}

func (a *API) events(w http.ResponseWriter, r *http.Request) error {
	v, err := a.may(r, access.Read)
	if err != nil {
		return err
	}
	events, err := a.clusters.Events(v.Name)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"events": events})
}

// images loads the images of an archive, the request's body.
func (a *API) images(w http.ResponseWriter, r *http.Request) error {
	v, err := a.may(r, access.Update)
	if err != nil {
		return err
	}
	images, nodes, err := a.clusters.Load(r.Context(), v.Name, r.Body)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"images": images, "nodes": nodes})
}

func (a *API) versions(w http.ResponseWriter, r *http.Request) error {
	if err := access.Check(r.Context(), a.access, access.Read, access.Clusters.Of("/")); err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"versions": a.clusters.Versions()})
}
