package identity

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/audit"
)

// Base is the path prefix of Handler.
const Base = "/acs/api/v1"

// maxBody limits a request's body, in bytes.
const maxBody = 64 << 10

// apiError is an error in the form of DC/OS's clients. The CLI prints the description.
type apiError struct {
	status      int
	Title       string `json:"title"`
	Description string `json:"description"`
	Code        string `json:"code"`
}

// Error returns the description.
func (e *apiError) Error() string { return e.Description }

func badRequest(code, format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "Bad Request", fmt.Sprintf(format, args...), code}
}

// api answers requests about a directory.
type api struct{ *Directory }

// Handler answers Base and all below it. Base/auth is open to everybody; for the rest the request's context must
// carry a principal, see WithPrincipal.
func (d *Directory) Handler() http.Handler {
	a := api{d}
	mux := http.NewServeMux()
	open := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.Handle(method+" "+Base+path, a.handler(h))
	}
	closed := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		open(pattern, func(w http.ResponseWriter, r *http.Request) error {
			p := FromContext(r.Context())
			if p == nil {
				return &apiError{http.StatusUnauthorized, "Unauthorized",
					"A token is needed: get one by POST " + Base + "/auth/login.", "ERR_MISSING_TOKEN"}
			} else if p.Err() != nil {
				return &apiError{http.StatusForbidden, "Forbidden",
					"User " + p.UID + " may not do this: " + message(p.Err()) + ".", "ERR_FORBIDDEN"}
			}
			of := access.Members.Of(strings.TrimPrefix(r.URL.Path, Base))
			if err := access.Check(access.WithPrincipal(r.Context(), access.Principal{UID: p.UID}), d.access,
				access.Of(r.Method), of); err != nil {
				return &apiError{http.StatusForbidden, "Forbidden", message(err), "ERR_FORBIDDEN"}
			}
			return h(w, r)
		})
	}
	open("POST /auth/login", a.login)
	open("GET /auth/login", func(http.ResponseWriter, *http.Request) error {
		return badRequest("ERR_MISSING_QUERY_PARAMETERS", "There is no login by redirect: POST uid and password.")
	})
	open("GET /auth/logout", a.logout)
	open("GET /auth/providers", listProviders)
	open("GET /auth/oidc/providers", listNoProviders)
	open("GET /auth/saml/providers", listNoProviders)
	open("GET /auth/jwks", a.jwks)
	closed("GET /users", a.listUsers)
	closed("GET /users/{uid}", a.showUser)
	closed("PUT /users/{uid}", a.putUser)
	closed("PATCH /users/{uid}", a.patchUser)
	closed("DELETE /users/{uid}", a.deleteUser)
	closed("GET /tokens", a.listTokens)
	closed("POST /tokens", a.postToken)
	closed("DELETE /tokens", a.deleteTokens)
	closed("DELETE /tokens/{id}", a.deleteToken)
	return withoutSlash(mux)
}

// withoutSlash serves /users/ as /users and answers unknown paths and methods in JSON.
func withoutSlash(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := strings.CutSuffix(r.URL.Path, "/"); ok {
			u := *r.URL
			u.Path, u.RawPath = p, strings.TrimSuffix(u.RawPath, "/")
			r = r.WithContext(r.Context()) // a copy
			r.URL = &u
		}
		w.Header().Set("Cache-Control", "no-store")
		if _, pattern := mux.Handler(r); pattern == "" {
			writeError(w, &apiError{http.StatusNotFound, "Not Found", "There is no " + r.Method + " here.", "ERR_UNKNOWN_PATH"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// handler answers a request with what h makes of it, or its error.
func (a api) handler(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !acceptsJSON(r) {
			writeError(w, &apiError{http.StatusNotAcceptable, "Not Acceptable", "Answers are application/json: accept that.",
				"ERR_NOT_ACCEPTABLE"})
			return
		}
		if err := h(w, r); err != nil && writeError(w, err) >= http.StatusInternalServerError {
			a.log.Error("identity request not done", "method", r.Method, "path", r.URL.Path, "err", err)
		}
	})
}

func (a api) login(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		UID      *string `json:"uid"`
		Password *string `json:"password"`
		Token    *string `json:"token"`
		Exp      *int64  `json:"exp"`
	}
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	uid, password, token := deref(body.UID), deref(body.Password), deref(body.Token)
	if uid == "" || (password == "") == (token == "") {
		return badRequest("ERR_INVALID_DATA", "Give uid and exactly one of password and token.")
	}
	ttl := DefaultTTL
	if body.Exp != nil { // a time; zero means never to DC/OS
		ttl = MaxTTL
		if *body.Exp != 0 {
			ttl = min(time.Until(time.Unix(*body.Exp, 0)), MaxTTL)
		}
	}
	audit.Note(r.Context(), "uid", uid)
	issued, err := a.Login(r.Context(), r.RemoteAddr, uid, password, token, ttl)
	if err != nil {
		return err
	}
	user, _ := a.User(uid)
	info, err := json.Marshal(map[string]any{"uid": uid, "description": user.Description, "is_remote": false})
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	setCookie(w, r, AuthCookie, issued.Secret, issued.Expires, true)
	setCookie(w, r, InfoCookie, base64.StdEncoding.EncodeToString(info), issued.Expires, false)
	return writeJSON(w, http.StatusOK, map[string]string{"token": issued.Secret})
}

// logout revokes the request's token, not only the cookie. Since it is a GET, a page of another origin could send
// a browser here: then nothing happens.
func (a api) logout(w http.ResponseWriter, r *http.Request) error {
	if site := r.Header.Get("Sec-Fetch-Site"); site == "" || site == "same-origin" || site == "none" {
		if p, err := a.Authenticate(r); err == nil {
			if err := a.Revoke(r.Context(), p.TokenID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return err
			}
		}
		setCookie(w, r, AuthCookie, "", time.Unix(1, 0), true)
		setCookie(w, r, InfoCookie, "", time.Unix(1, 0), false)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// setCookie sets a cookie for the whole site. SameSite keeps it out of most requests that other sites cause.
func setCookie(w http.ResponseWriter, r *http.Request, name, value string, expires time.Time, secret bool) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", Expires: expires,
		HttpOnly: secret, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode,
	})
}

type provider struct {
	AuthenticationType string            `json:"authentication-type"`
	Description        string            `json:"description"`
	ClientMethod       string            `json:"client-method"`
	Config             map[string]string `json:"config"`
}

func listProviders(w http.ResponseWriter, _ *http.Request) error {
	login := map[string]string{"start_flow_url": Base + "/auth/login"}
	return writeJSON(w, http.StatusOK, map[string]provider{
		"dcos-users": {"dcos-uid-password", "User id and password", "dcos-usercredential-post-receive-authtoken", login},
		"dcos-services": {"dcos-uid-servicekey", "Service account and its key",
			"dcos-servicecredential-post-receive-authtoken", login},
	})
}

func listNoProviders(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, struct{}{})
}

func (a api) jwks(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string][]jwk{"keys": {newJWK(a.signer.public)}})
}

func (a api) listUsers(w http.ResponseWriter, r *http.Request) error {
	return writeList(w, a.Users(r.URL.Query().Get("type") == "service"))
}

func (a api) showUser(w http.ResponseWriter, r *http.Request) error {
	u, err := a.User(r.PathValue("uid"))
	if err != nil {
		return userError(err)
	}
	return writeJSON(w, http.StatusOK, u)
}

func (a api) putUser(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Description  string  `json:"description"`
		Password     *string `json:"password"`
		PublicKey    *string `json:"public_key"`
		ProviderType *string `json:"provider_type"`
		ProviderID   *string `json:"provider_id"`
		ClusterURL   *string `json:"cluster_url"`
		CreatorUID   *string `json:"creator_uid"`
	}
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	if t := deref(body.ProviderType); t != "" && t != "internal" || deref(body.ProviderID) != "" {
		return badRequest("ERR_INVALID_DATA",
			"provider_type: only internal users can be made, with a password or a public_key.")
	}
	err := a.CreateUser(r.Context(), r.PathValue("uid"), NewUser{
		Description: body.Description, Password: deref(body.Password), PublicKey: deref(body.PublicKey),
	})
	if err != nil {
		return userError(err)
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (a api) patchUser(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Description *string `json:"description"`
		Password    *string `json:"password"`
	}
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	if body.Description == nil && body.Password == nil {
		return badRequest("ERR_INVALID_DATA", "Give description or password.")
	}
	if err := a.ChangeUser(r.Context(), r.PathValue("uid"), UserChange(body)); err != nil {
		return userError(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a api) deleteUser(w http.ResponseWriter, r *http.Request) error {
	if err := a.DeleteUser(r.Context(), r.PathValue("uid")); err != nil {
		return userError(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a api) listTokens(w http.ResponseWriter, r *http.Request) error {
	return writeList(w, a.List(r.URL.Query().Get("uid")))
}

func (a api) postToken(w http.ResponseWriter, r *http.Request) error {
	var body TokenRequest
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	ttl, err := body.ttl()
	if err != nil {
		return err
	}
	uid := cmp.Or(body.UID, FromContext(r.Context()).UID)
	audit.Note(r.Context(), "uid", uid)
	issued, err := a.Issue(r.Context(), uid, ttl, body.Description)
	if err != nil {
		return userError(err)
	}
	return writeJSON(w, http.StatusCreated, issued)
}

func (a api) deleteToken(w http.ResponseWriter, r *http.Request) error {
	if err := a.Revoke(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a api) deleteTokens(w http.ResponseWriter, r *http.Request) error {
	uid := r.URL.Query().Get("uid")
	audit.Note(r.Context(), "uid", uid)
	if uid == "" {
		return badRequest("ERR_MISSING_QUERY_PARAMETERS", "Name the user whose tokens to revoke: ?uid=<uid>.")
	}
	if err := a.RevokeUser(r.Context(), uid); err != nil {
		return userError(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// TokenRequest is the body of a request for a token. Without a uid it is for the requester, without ttlSeconds for
// DefaultTTL.
type TokenRequest struct {
	UID         string `json:"uid,omitempty"`
	Description string `json:"description,omitempty"`
	TTLSeconds  *int64 `json:"ttlSeconds,omitempty"`
}

func (t TokenRequest) ttl() (time.Duration, error) {
	if t.TTLSeconds == nil {
		return DefaultTTL, nil
	}
	if s := *t.TTLSeconds; s < 1 || s > int64(MaxTTL/time.Second) {
		return 0, badRequest("ERR_INVALID_DATA", "ttlSeconds: is %d, use 1 to %d.", s, int64(MaxTTL/time.Second))
	}
	return time.Duration(*t.TTLSeconds) * time.Second, nil
}

// userError maps errors about users to the codes and statuses of DC/OS: an unknown user is a 400.
func userError(err error) error {
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return badRequest("ERR_UNKNOWN_USER_ID", "There is no user of that id.")
	case errors.Is(err, errdefs.ErrAlreadyExists):
		return &apiError{http.StatusConflict, "Conflict", "There is a user of that id already.", "ERR_USER_EXISTS"}
	case errors.Is(err, errUID):
		return badRequest("ERR_INVALID_USER_ID", "%s.", message(err))
	case errors.Is(err, errPublicKey):
		return badRequest("ERR_INVALID_PUBLIC_KEY", "%s.", message(err))
	}
	return err
}

// writeError writes the error with the status of its kind, and returns the status. No other place maps kinds to
// statuses.
func writeError(w http.ResponseWriter, err error) int {
	a, known := errors.AsType[*apiError](err)
	if tooMany, ok := errors.AsType[*TooManyLogins](err); ok {
		w.Header().Set("Retry-After", strconv.Itoa(tooMany.Seconds()))
		a, known = &apiError{http.StatusTooManyRequests, "Too Many Requests", message(err) + ".", "ERR_TOO_MANY_LOGINS"}, true
	}
	if !known {
		switch {
		case errors.Is(err, errCredentials):
			a = &apiError{http.StatusUnauthorized, "Unauthorized", "Invalid credentials.", "ERR_INVALID_CREDENTIALS"}
		case errors.Is(err, errdefs.ErrInvalidArgument):
			a = &apiError{http.StatusBadRequest, "Bad Request", message(err) + ".", "ERR_INVALID_DATA"}
		case errors.Is(err, errdefs.ErrNotFound):
			a = &apiError{http.StatusNotFound, "Not Found", message(err) + ".", "ERR_NOT_FOUND"}
		case errors.Is(err, errdefs.ErrResourceExhausted):
			a = &apiError{http.StatusTooManyRequests, "Too Many Requests", message(err) + ".", "ERR_LIMIT"}
		default: // the store: its error is for the log, not for the client
			a = &apiError{http.StatusServiceUnavailable, "Service Unavailable",
				"The datacenter's state cannot be written now, or it is not known whether it was: look before you try again.",
				"ERR_UNAVAILABLE"}
		}
	}
	_ = writeJSON(w, a.status, a)
	return a.status
}

// message returns an error's text without that of its kind, which the code tells.
func message(err error) string {
	text := err.Error()
	for _, kind := range []error{errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrResourceExhausted} {
		text = strings.TrimSuffix(text, ": "+kind.Error())
	}
	return text
}

func acceptsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	if accept == "" {
		return true
	}
	for part := range strings.SplitSeq(accept, ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "*/*", "application/*", "application/json":
			return true
		}
	}
	return false
}

// readJSON decodes the body, one JSON object of known keys, into v.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &apiError{http.StatusUnsupportedMediaType, "Unsupported Media Type", "Send Content-Type: application/json.",
			"ERR_CONTENT_TYPE"}
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, err = dec.Token(); err == io.EOF {
			return nil
		}
		err = errors.New("something follows the JSON object")
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &apiError{http.StatusRequestEntityTooLarge, "Request Entity Too Large",
			fmt.Sprintf("The body may have %d bytes.", maxBody), "ERR_TOO_LARGE"}
	}
	return badRequest("ERR_INVALID_DATA", "Body: %.200v.", err)
}

func writeList[T any](w http.ResponseWriter, list []T) error {
	return writeJSON(w, http.StatusOK, map[string][]T{"array": list})
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n')) // the client may be gone
	return nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
