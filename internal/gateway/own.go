package gateway

import (
	"net/http"
	"strings"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/audit"
	"github.com/marinaos/marina/internal/identity"
)

// dcosVersion is the DC/OS version whose APIs are served here. Its CLI refuses to work with less than 1.10.
const dcosVersion = "2.2.0"

// Info are the facts about the datacenter that the gateway publishes.
type Info struct {
	Datacenter string // id
	PublicIPv4 string // of this master, empty if unknown
	Version    string // of Marina
	CA         []byte // certificate of the datacenter's CA, PEM
}

// ownRoutes returns the routes that the gateway answers itself.
func (g *Gateway) ownRoutes(deps Deps) []Route {
	own := []Route{
		{Prefix: "/", Exact: true, Open: true, Handler: readOnly(g.welcome)},
		{Prefix: healthBase + "/live", Exact: true, Open: true, uncounted: true,
			Handler: readOnly(func(w http.ResponseWriter, _ *http.Request) {
				writeJSON(w, http.StatusOK, map[string]bool{"live": true})
			})},
		{Prefix: "/ca/marina-ca.crt", Exact: true, Open: true, Handler: caHandler(deps.Info.CA)},
		{Prefix: "/ca/dcos-ca.crt", Exact: true, Open: true, Handler: caHandler(deps.Info.CA)}, // the path of DC/OS's CLI
		{Prefix: "/dcos-metadata/dcos-version.json", Exact: true, Open: true, Handler: versionHandler(deps.Info)},
		{Prefix: "/metadata", Exact: true, Needs: access.Health, Handler: metadataHandler(deps.Info)},
		{Prefix: identity.Base, Asks: true, Handler: deps.Identity.Handler()},
		{Prefix: identity.Base + "/auth", Open: true, Handler: deps.Identity.Handler()},
	}
	if deps.Health != nil {
		own = append(own, Route{Prefix: healthBase, Strip: true, Needs: access.Health, Handler: healthHandler(deps.Health)})
	}
	if deps.Audit != nil {
		own = append(own, Route{Prefix: audit.Base, Needs: access.Audit, Handler: deps.Audit.Handler()})
	}
	if deps.Metrics != nil {
		own = append(own, Route{Prefix: "/metrics", Exact: true, Needs: access.Metrics, Handler: deps.Metrics.Handler()})
	}
	if deps.Services != nil {
		own = append(own, Route{
			Prefix: "/service", Needs: access.Services, Streaming: true, Unrecorded: true, BodyLimit: serviceBodyLimit,
			Handler: newProxy("/service", deps.Services, g.cfg.LoopbackServices, g.log),
		})
	}
	return own
}

// readOnly refuses methods other than GET and HEAD.
func readOnly(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeError(w, http.StatusMethodNotAllowed, "This is read by GET.")
			return
		}
		h(w, r)
	})
}

// welcome identifies the datacenter. DC/OS's CLI wants a 200 here before anything else.
func (g *Gateway) welcome(w http.ResponseWriter, r *http.Request) {
	const text = "This is a Marina datacenter. " + howToGetAToken
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		writeHTML(w, http.StatusOK, text)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"message": text})
}

func caHandler(pem []byte) http.Handler {
	return readOnly(func(w http.ResponseWriter, _ *http.Request) {
		if len(pem) == 0 {
			writeError(w, http.StatusNotFound, "This datacenter's certificates are not of its own CA.")
			return
		}
		w.Header().Set("Content-Type", "application/x-pem-file")
		_, _ = w.Write(pem)
	})
}

func versionHandler(info Info) http.Handler {
	return readOnly(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		writeJSON(w, http.StatusOK, map[string]string{
			"version": dcosVersion, "dcos-image-commit": "", "bootstrap-id": "", "dcos-variant": "open",
			"marina-version": info.Version,
		})
	})
}

func metadataHandler(info Info) http.Handler {
	return readOnly(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"PUBLIC_IPV4": info.PublicIPv4, "CLUSTER_ID": info.Datacenter})
	})
}
