package api

import (
	"log/slog"
	"net/http"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/kubernetes"
	"github.com/marinaos/marina/internal/scheduler"
)

// API is /kubernetes/v1. Make one with New.
type API struct {
	clusters *kubernetes.Clusters
	access   access.Authorizer
	log      *slog.Logger
	mux      http.ServeMux
}

// New returns the API of clusters. It asks z about each cluster that a request is about, and leaves out of lists what
// their reader may not see. What is not the client's to know of an error goes to log.
func New(clusters *kubernetes.Clusters, z access.Authorizer, log *slog.Logger) *API {
	a := &API{clusters: clusters, access: z, log: log}
	const all, one = "/kubernetes/v1/clusters", "/kubernetes/v1/clusters/{name}"
	a.route("GET "+all, a.list)
	a.route("POST "+all, a.post)
	a.route("GET "+one, a.get)
	a.route("PUT "+one, a.put)
	a.route("DELETE "+one, a.delete)
	a.route("GET "+one+"/kubeconfig", a.kubeconfig)
	a.route("GET "+one+"/events", a.events)
	a.route("GET "+one+"/follow", a.follow)
	a.route("POST "+one+"/images", a.images)
	a.route("GET /kubernetes/v1/versions", a.versions)
	return a
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

func (a *API) route(pattern string, h func(http.ResponseWriter, *http.Request) error) {
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		err := scheduler.ErrNotLeading
		if a.clusters.Leading() {
			err = h(w, r)
		}
		if err != nil {
			fail(w, r, err, a.log)
		}
	})
}
