package gateway

import (
	"errors"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/identity"
)

// admit returns the request as its route gets it, with the principal in its context; nil if it does not go on and was answered. Everything that is not on an open route needs
// a good token, also what has no route at all: who may not come in learns nothing of what there is.
func (g *Gateway) admit(w http.ResponseWriter, r *http.Request, rec *request) *http.Request {
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
		writeUnauthorized(w, r, reason(r, err))
		return nil
	case err != nil:
		g.log.Warn("request not authenticated", "err", err)
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable, "This master cannot check the token now: try again.")
		return nil
	}
	rec.admitted(p)
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

// sameOrigin refuses what another site's page makes a browser send: unsafe methods, and connections that become something
// else, which are as good as any method. A request with an Authorization header was made by a program or our own script.
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

// reason tells the owner of a token what is wrong with it, and others nothing: whether a token was well signed is for the
// log.
func reason(r *http.Request, err error) error {
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

// isForwarded says whether a header tells who or where a request is from, in any of the spellings that servers take for the
// same. Only the gateway may say so.
func isForwarded(name string) bool {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	switch name {
	case "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "client-ip",
		"x-user", "x-username", "x-user-id", "x-remote-user", "remote-user", "x-original-url", "x-rewrite-url", "x-original-host":
		return true
	}
	for _, prefix := range []string{"x-forwarded-", "x-auth-request-", "x-authenticated-", "x-marina-", "x-remote-", "x-webauth-", "x-ssl-", "x-client-cert"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "x-forwarded" || name == "x-ssl"
}

// withoutForwarded copies the headers but for those that isForwarded.
func withoutForwarded(h http.Header) http.Header {
	c := make(http.Header, len(h))
	for name, values := range h {
		if !isForwarded(name) {
			c[name] = values
		}
	}
	return c
}

// withoutCredentials takes out of the headers what an app behind the gateway must not get: with it, the app could act as the user.
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
