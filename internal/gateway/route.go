package gateway

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
)

// Route is a handler for the paths under a prefix. The route with the longest prefix that ends at a segment's end
// wins. Paths are canonical before they are routed, and compared as they were sent, with their escapes: a prefix
// spelled with escapes matches no route, and so needs a token at least.
type Route struct {
	Prefix  string // starts with a slash, has no escapes; one slash at its end does not matter
	Handler http.Handler

	Exact bool // only the prefix itself, nothing under it
	Open  bool // answers without a token

	// Needs is the resource family that the gateway itself checks access to, with the action of the method. A route
	// whose handler checks, since only it knows the resource, has Asks instead. A route that is not Open has one of
	// them.
	Needs access.Family
	Asks  bool

	Strip     bool  // the handler gets the path without the prefix
	Streaming bool  // answers may take long: counted apart, no minimum pace of the body, ended when the gateway stops
	BodyLimit int64 // bytes; zero is Config.BodyLimit, negative none

	Unrecorded bool // requests here do not concern the datacenter, and are left out of the audit log

	uncounted bool // served at once, also when the gateway is full
}

func (rt *Route) match(path string) (rest string, ok bool) {
	rest, ok = cutPrefix(path, rt.Prefix)
	return rest, ok && (!rt.Exact || strings.Trim(rest, "/") == "")
}

// table has the routes, the longest prefix first.
type table []Route

func newTable(routes []Route) (table, error) {
	t := slices.Clone(routes)
	for i := range t {
		rt := &t[i]
		canonical, err := canonicalPath(rt.Prefix)
		if err != nil || canonical != rt.Prefix || strings.ContainsAny(rt.Prefix, "%?#") || rt.Handler == nil {
			return nil, fmt.Errorf("route %q: a route needs a plain path and a handler: %w",
				rt.Prefix, errdefs.ErrInvalidArgument)
		}
		if !rt.Open && !rt.Asks && rt.Needs == "" {
			return nil, fmt.Errorf("route %q: nobody asks whether its requests are allowed: %w",
				rt.Prefix, errdefs.ErrInvalidArgument)
		}
		rt.Prefix = strings.TrimSuffix(rt.Prefix, "/")
	}
	slices.SortStableFunc(t, func(a, b Route) int {
		return cmp.Or(len(b.Prefix)-len(a.Prefix), strings.Compare(a.Prefix, b.Prefix))
	})
	for i := 1; i < len(t); i++ {
		if t[i].Prefix == t[i-1].Prefix {
			return nil, fmt.Errorf("route %q: given twice: %w", t[i].Prefix, errdefs.ErrAlreadyExists)
		}
	}
	return t, nil
}

// findRoute returns the route of a canonical path and the path without its prefix; nil if there is none.
func (t table) findRoute(path string) (*Route, string) {
	for i := range t {
		if rest, ok := t[i].match(path); ok {
			return &t[i], rest
		}
	}
	return nil, ""
}
