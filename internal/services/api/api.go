package api

import (
	"net/http"
	"sync/atomic"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/services"
)

// API is Marathon's API. Make one with New.
type API struct {
	services *services.Services
	access   access.Authorizer
	requests atomic.Int64
}

// New returns the API of services. It asks z about each app that a request is about, and leaves out of lists what their
// reader may not see.
func New(s *services.Services, z access.Authorizer) *API { return &API{services: s, access: z} }

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.requests.Add(1)
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "0")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-XSS-Protection", "1; mode=block")
	h.Set("X-Content-Type-Options", "nosniff")
	if leader := a.services.Settings().Leader; leader != "" {
		h.Set("X-Marathon-Leader", "http://"+leader)
	}
	r.Body = http.MaxBytesReader(w, r.Body, marathon.MaxBody)
	c := &call{services: a.services, api: a, r: r, rights: rights{r.Context(), a.access, a.services},
		out: answer{header: http.Header{}}}
	if err := c.route(); err != nil {
		c.out = errorAnswer(err)
	}
	c.out.write(w)
}

func (c *call) route() error {
	parts, err := segments(c.r.URL)
	if err != nil {
		return err
	}
	if len(parts) == 1 && parts[0] == "ping" {
		return c.ping()
	}
	if !c.services.Leading() {
		return scheduler.ErrNotLeading
	}
	if len(parts) == 1 && parts[0] == "metrics" {
		return c.get(c.rights.all(c.metrics))
	}
	if len(parts) < 2 || parts[0] != "v2" {
		return errNoRoute
	}
	rest := parts[2:]
	switch parts[1] {
	case "apps":
		return apps{c}.route(rest)
	case "groups":
		return groups{c}.route(rest)
	case "deployments":
		return deployments{c}.route(rest)
	case "tasks":
		return tasks{c}.route(rest)
	case "queue":
		return queue{c}.route(rest)
	case "pods":
		return c.pods(rest)
	case "info", "leader", "events", "plugins":
		if len(rest) == 0 {
			return c.get(map[string]func() error{"info": c.info, "leader": c.leader, "events": c.rights.all(c.events),
				"plugins": c.plugins}[parts[1]])
		}
	}
	return errNoRoute
}
