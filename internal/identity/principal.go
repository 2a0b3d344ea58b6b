package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Cookies that a login sets. The names are DC/OS's.
const (
	AuthCookie = "dcos-acs-auth-cookie" // the token; only used if there is no Authorization header
	InfoCookie = "dcos-acs-info-cookie" // base64 of JSON about the user, for a page's script
)

var (
	errRevoked = fmt.Errorf("token was revoked: get a new one: %w", errdefs.ErrUnauthenticated)
	errExpired = fmt.Errorf("token has expired: get a new one: %w", errdefs.ErrUnauthenticated)
)

// Principal is the authenticated user of a request, for as long as the token is good.
type Principal struct {
	UID     string
	TokenID string
	Expires time.Time
	Cookie  bool // the token came in a cookie: another site may have caused the request

	session *session
}

// Done is closed when the token has expired, was revoked, or its user was deleted. Work that outlasts one answer,
// such as a stream, must end then.
func (p *Principal) Done() <-chan struct{} { return p.session.ctx.Done() }

// Err returns the reason that Done is closed, nil before.
func (p *Principal) Err() error { return context.Cause(p.session.ctx) }

// AfterFunc runs f in a goroutine of its own once Done is closed. stop prevents that and reports whether it did.
func (p *Principal) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(p.session.ctx, f)
}

// session is the life of a token on this master, shared by all requests that use it. As in a store.Leadership, the
// context is that life itself, not a call's.
type session struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func newSession(until time.Time) *session {
	s := new(session)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.timer = time.AfterFunc(time.Until(until), func() { s.cancel(errExpired) })
	return s
}

// end ends the session, if there is one.
func (s *session) end(cause error) {
	if s != nil {
		s.timer.Stop()
		s.cancel(cause)
	}
}

type principalKey struct{}

// WithPrincipal returns a context with the principal of a request.
func WithPrincipal(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext returns the principal of a request, nil if it is anonymous.
func FromContext(ctx context.Context) *Principal {
	p, _ := ctx.Value(principalKey{}).(*Principal)
	return p
}

// Credential returns the token of a request: from its one Authorization header as "token=<jwt>" or "Bearer <jwt>",
// and from AuthCookie only if there is no such header. Without a credential the token is empty; several are
// ErrUnauthenticated.
func Credential(r *http.Request) (token string, cookie bool, err error) {
	headers := r.Header.Values("Authorization")
	cookies := r.CookiesNamed(AuthCookie)
	switch {
	case len(headers) > 1 || len(headers) == 0 && len(cookies) > 1:
		return "", false, fmt.Errorf("request has several credentials, send one: %w", errdefs.ErrUnauthenticated)
	case len(headers) == 0 && len(cookies) == 1:
		return cookies[0].Value, true, nil
	case len(headers) == 0:
		return "", false, nil
	}
	if _, token, ok := strings.Cut(headers[0], "token="); ok {
		return strings.TrimSpace(token), false, nil
	}
	if scheme, token, _ := strings.Cut(headers[0], " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token), false, nil
	}
	return "", false, fmt.Errorf("authorization header: use \"token=<token>\" or \"Bearer <token>\": %w",
		errdefs.ErrUnauthenticated)
}

// Authenticate returns the principal of a request. The error is ErrUnauthenticated without a good token, and
// ErrUnavailable if only the store could decide and did not answer.
func (d *Directory) Authenticate(r *http.Request) (*Principal, error) {
	token, cookie, err := Credential(r)
	if err != nil {
		return nil, err
	}
	if token == "" {
		return nil, fmt.Errorf("request has no token: %w", errdefs.ErrUnauthenticated)
	}
	p, err := d.Verify(r.Context(), token)
	if err != nil {
		return nil, err
	}
	p.Cookie = cookie
	return p, nil
}

// Verify returns the principal of a token. Errors are those of Authenticate.
func (d *Directory) Verify(ctx context.Context, token string) (*Principal, error) {
	c, err := d.signer.parse(token)
	if err != nil {
		return nil, err
	}
	s, row, known := d.view.session(c.ID)
	if !known {
		if err := d.fetchToken(ctx, c.ID); err != nil {
			return nil, err
		}
		s, row, _ = d.view.session(c.ID)
	}
	if s == nil || row.UID != c.UID || s.ctx.Err() != nil {
		return nil, errRevoked
	}
	return &Principal{UID: row.UID, TokenID: c.ID, Expires: row.Expires, session: s}, nil
}

// fetchToken asks the store about a token that is not in the view: another master has just issued it, or it was
// revoked. The row itself comes by the watch, so that the view has one writer.
func (d *Directory) fetchToken(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	row, err := tokens.Get(ctx, d.store, id)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		d.view.markDeleted(id)
		return errRevoked
	case err != nil:
		return fmt.Errorf("token: %w: %w", err, errdefs.ErrUnavailable)
	case !d.view.waitRevision(ctx, row.Revision, followLimit):
		return fmt.Errorf("token: this master is behind the store, try again: %w", errdefs.ErrUnavailable)
	}
	return nil
}
