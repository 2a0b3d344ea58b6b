package api

import (
	"net/http"
	"path"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/kubernetes"
)

// may asks about the cluster that a request names, and returns what it looked at.
func (a *API) may(r *http.Request, what access.Action) (kubernetes.View, error) {
	v, _, err := a.clusters.Get(r.PathValue("name"))
	if err != nil {
		return kubernetes.View{}, err
	}
	return v, a.mayIn(r, what, v.Group, v.Name)
}

// mayIn asks about a cluster of a group: its resource is its name below its group.
func (a *API) mayIn(r *http.Request, what access.Action, group, name string) error {
	return access.Check(r.Context(), a.access, what, access.Clusters.Of(path.Join("/", group, name)))
}
