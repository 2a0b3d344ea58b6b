package gateway

import (
	"errors"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/identity"
)

// admit returns the request with its principal in the context; nil if it was refused and answered. Requests on routes
// that are not Open need a good token, also those without a route: strangers learn nothing about the routes.
func (g *Gateway) admit(w http.ResponseWriter, r *http.Request, rec *requestRecord) *http.Request {
	route := rec.route
	if err := g.sameOrigin(r); err != nil {
		writeError(w, http.StatusForbidden, "This request comes from a page of another origin: "+err.Error()+".")
		return nil
	}
	if route != nil && route.Open {
		return r
	}
	p, err := g.identity.Authenticate(r)
	switch {
	case errors.Is(err, errdefs.ErrUnauthenticated):
		writeUnauthorized(w, r, tokenProblem(r, err))
		return nil
	case err != nil:
		g.log.Warn("request not authenticated", "err", err)
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable, "This master cannot check the token now: try again.")
		return nil
	}
	rec.setPrincipal(p)
	if route == nil {
		writeError(w, http.StatusNotFound, "There is nothing at "+r.URL.Path+".")
		return nil
	}
	ctx := access.WithPrincipal(identity.WithPrincipal(r.Context(), p), access.Principal{UID: p.UID})
	if route.Needs != "" {
		if err := access.Check(ctx, g.access, access.Of(r.Method), route.Needs.Of("/")); err != nil {
			writeError(w, http.StatusForbidden, message(err, errdefs.ErrPermissionDenied))
			return nil
		}
	}
	return r.WithContext(ctx)
}

// sameOrigin refuses requests that another site's page causes: unsafe methods, and connection upgrades, which can do
// as much. A request with an Authorization header was made by a program or our own script.
func (g *Gateway) sameOrigin(r *http.Request) error {
	if len(r.Header.Values("Authorization")) > 0 {
		return nil
	}
	if r.Header.Get("Upgrade") == "" {
		return g.origin.Check(r)
	}
	unsafe := *r
	unsafe.Method = http.MethodPost
	return g.origin.Check(&unsafe)
}

// tokenProblem returns the part of err that the client may see: whether a token was signed correctly is for the log.
func tokenProblem(r *http.Request, err error) error {
	token, _, credErr := identity.Credential(r)
	if credErr != nil {
		return errors.New(message(credErr, errdefs.ErrUnauthenticated))
	}
	if token == "" {
		return nil
	}
	if strings.Contains(err.Error(), "expired") {
		return errors.New("the token has expired")
	}
	return errors.New("the token is not good: it was revoked, or is of another datacenter")
}

// isForwarded reports whether a header names a request's user or origin, in any of the spellings that servers treat
// alike. Only the gateway may set those.
func isForwarded(name string) bool {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	switch name {
	case "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "client-ip",
		"x-user", "x-username", "x-user-id", "x-remote-user", "remote-user", "x-original-url", "x-rewrite-url",
		"x-original-host":
		return true
	}
	for _, prefix := range []string{"x-forwarded-", "x-auth-request-", "x-authenticated-", "x-marina-", "x-remote-",
		"x-webauth-", "x-ssl-", "x-client-cert"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "x-forwarded" || name == "x-ssl"
}

// withoutForwarded returns a copy of the headers without those that isForwarded matches.
func withoutForwarded(h http.Header) http.Header {
	c := make(http.Header, len(h))
	for name, values := range h {
		if !isForwarded(name) {
			c[name] = values
		}
	}
	return c
}

// withoutCredentials removes the user's credentials from the headers: an app behind the gateway could act as the user
// with them.
func withoutCredentials(h http.Header) {
	for name := range h {
		if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), "Authorization") {
			delete(h, name)
		}
	}
	var kept []string
	for _, header := range h["Cookie"] {
		for part := range strings.SplitSeq(header, ";") {
			if part = strings.TrimSpace(part); part != "" && !strings.Contains(strings.ToLower(part), "dcos-acs-") {
				kept = append(kept, part)
			}
		}
	}
	h.Del("Cookie")
	if len(kept) > 0 {
		h.Set("Cookie", strings.Join(kept, "; "))
	}
}
