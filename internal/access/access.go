package access

import (
	"context"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
)

// Principal names the asker of a request.
type Principal struct {
	UID string // of the user or service account; empty: a stranger
}

type principalKey struct{}

// WithPrincipal returns a context in which From finds the principal.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns the principal of a request, the zero Principal if nobody vouched for one.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// Action names an operation on a resource.
type Action string

// The actions. The first four are DC/OS's.
const (
	Create Action = "create"
	Read   Action = "read"
	Update Action = "update"
	Delete Action = "delete"
	Exec   Action = "exec" // run a program in a task, read its files
)

// Of is the action that an HTTP method means, where a resource is what the path names.
func Of(method string) Action {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return Read
	case http.MethodPost:
		return Create
	case http.MethodDelete:
		return Delete
	}
	return Update
}

// Family is a kind of resource.
type Family string

// The families.
const (
	Services Family = "dcos:service:marathon:marathon:services" // apps, by id
	// what runs of an app or a cluster: logs, files, programs in it
	Tasks    Family = "dcos:mesos:agent:container:app_id"
	Quota    Family = "dcos:mesos:master:quota:role" // limits and guarantees, by role
	Clusters Family = "marina:clusters"              // hosted Kubernetes clusters, by group and name
	Machines Family = "marina:machines"              // the pool
	Networks Family = "marina:networks"              // addresses, VIPs and names
	Images   Family = "marina:images"
	Members  Family = "marina:members" // users, service accounts, tokens
	Audit    Family = "marina:audit"
	Metrics  Family = "marina:metrics"
	Health   Family = "marina:health"
)

// Resource names one of a family, by its path in the group tree. "/" is all of the family.
type Resource struct {
	Family Family
	Path   string // starts with a slash
}

// String is the resource as an access control list names it.
func (r Resource) String() string { return string(r.Family) + ":" + r.Path }

// Of returns the resource of a family at a path.
func (f Family) Of(path string) Resource {
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	return Resource{f, path}
}

// Authorizer judges. It must be quick and safe for concurrent use; rooms ask it for each element of a list.
type Authorizer interface {
	// Authorize returns nil if the principal may, an errdefs.ErrPermissionDenied that says what is lacking if not.
	Authorize(p Principal, a Action, r Resource) error
}

// Check asks an Authorizer for the principal of ctx. Without an Authorizer everything is allowed.
func Check(ctx context.Context, z Authorizer, a Action, r Resource) error {
	if z == nil {
		return nil
	}
	return z.Authorize(From(ctx), a, r)
}

// Allowed reports whether Check says yes: for lists, which leave out what their reader may not see.
func Allowed(ctx context.Context, z Authorizer, a Action, r Resource) bool {
	return Check(ctx, z, a, r) == nil
}

// Denied is the refusal of an action.
func Denied(p Principal, a Action, r Resource) error {
	who := "user " + p.UID
	if p.UID == "" {
		who = "a stranger"
	}
	return fmt.Errorf("%s may not %s %s: an administrator of the datacenter can do it, or give the right: %w", who, a, r,
		errdefs.ErrPermissionDenied)
}

// Administrators lets every known principal do everything.
type Administrators struct{}

// Authorize says yes to everybody but strangers.
func (Administrators) Authorize(p Principal, a Action, r Resource) error {
	if p.UID == "" {
		return Denied(p, a, r)
	}
	return nil
}

// Nobody lets nobody do anything. Tests find with it what does not ask.
type Nobody struct{}

// Authorize says no.
func (Nobody) Authorize(p Principal, a Action, r Resource) error { return Denied(p, a, r) }
