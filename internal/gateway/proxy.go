package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/identity"
)

const (
	maxNameSegments     = 10              // leading segments of a path that may name a service
	serviceDialTimeout  = 5 * time.Second // to connect to a task
	serviceReplyTimeout = 5 * time.Minute // until a task's headers
	serviceBodyLimit    = 32 << 30        // bytes, as DC/OS
)

// Upstream is the backend of a service.
type Upstream struct {
	// Endpoint is an endpoint of a running task of the service, taken from the task and never from the service's own data.
	Endpoint netip.AddrPort
	Scheme   string // http or https; the certificate is not verified, as there is no name to verify it by
	KeepPath bool   // the service gets /service/<name>/ too (DCOS_SERVICE_REWRITE_REQUEST_URLS=false)
}

// ServiceResolver finds the apps that are published under /service, by the name in their label DCOS_SERVICE_NAME:
// outer slashes dropped, segments reversed and joined by dots ("/a/b/c" is "c.b.a"). It is called a few times a
// request, so it must answer from memory.
type ServiceResolver interface {
	Resolve(name string) (Upstream, bool)
}

var oneName = regexp.MustCompile(`^/[0-9a-zA-Z\-.]+$`)

// resolveService finds the service that a path below /service names by its first segments; the shortest name wins.
func resolveService(services ServiceResolver, path string) (up Upstream, name, rest string, ok bool) {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	for n := 1; n <= min(len(segments), maxNameSegments); n++ {
		names := slices.Clone(segments[:n])
		slices.Reverse(names)
		if up, ok := services.Resolve(strings.Join(names, ".")); ok {
			name = "/" + strings.Join(segments[:n], "/")
			return up, name, strings.TrimPrefix(path, name), true
		}
	}
	return Upstream{}, "", "", false
}

// proxy forwards requests to services.
type proxy struct {
	prefix    string // of its route
	services  ServiceResolver
	transport http.RoundTripper
	log       *slog.Logger
}

func newProxy(prefix string, services ServiceResolver, loopback bool, log *slog.Logger) *proxy {
	return &proxy{prefix: prefix, services: services, log: log, transport: &http.Transport{
		Proxy:                  nil, // never by the environment
		DialContext:            taskDialer(loopback),
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see Upstream.Scheme
		DisableCompression:     true,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        time.Minute,
		ResponseHeaderTimeout:  serviceReplyTimeout,
		MaxResponseHeaderBytes: 256 << 10,
		ExpectContinueTimeout:  time.Second,
	}}
}

// taskDialer connects to addresses that a task can have. It resolves no names, so that the address that was checked
// is the one that is dialled.
func taskDialer(loopback bool) func(context.Context, string, string) (net.Conn, error) {
	d := &net.Dialer{Timeout: serviceDialTimeout}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ap, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, fmt.Errorf("service at %q: not an address: %w", addr, errdefs.ErrPermissionDenied)
		}
		if err := checkTarget(ap, loopback); err != nil {
			return nil, err
		}
		return d.DialContext(ctx, network, ap.String())
	}
}

// checkTarget refuses addresses that no task can have: those of a machine's own programs and of a cloud's metadata
// service.
func checkTarget(ap netip.AddrPort, loopback bool) error {
	a := ap.Addr().Unmap()
	if ap.Port() == 0 || !a.IsGlobalUnicast() && !(a.IsLoopback() && loopback) {
		return fmt.Errorf("service at %s: no task has such an address: %w", ap, errdefs.ErrPermissionDenied)
	}
	return nil
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, _ := cutPrefix(r.URL.EscapedPath(), p.prefix)
	up, name, rest, ok := resolveService(p.services, path)
	if !ok {
		writeError(w, http.StatusNotFound,
			"Service not found: no running app has the label DCOS_SERVICE_NAME that this path names.")
		return
	}
	if rest == "" && oneName.MatchString(name) && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		to := url.URL{Path: p.prefix + name + "/", RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
		return
	}
	if up.KeepPath {
		rest = r.URL.EscapedPath()
	} else if rest == "" {
		rest = "/"
	}
	mount := p.prefix + name
	rp := &httputil.ReverseProxy{
		Transport:      p.transport,
		Rewrite:        func(pr *httputil.ProxyRequest) { rewriteRequest(pr, up, rest) },
		ModifyResponse: func(resp *http.Response) error { cleanResponse(resp, r, up, mount); return nil },
		ErrorLog:       slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			p.log.Info("service did not answer", "service", name, "endpoint", up.Endpoint, "err", err)
			status, text := http.StatusBadGateway, "The service "+name+" does not answer: look at its tasks and their logs."
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				status, text = http.StatusRequestEntityTooLarge, "The body is larger than a service may get."
			}
			writeError(w, status, text)
		},
	}
	for _, name := range []string{"X-Content-Type-Options", "Referrer-Policy", "X-Frame-Options"} {
		w.Header().Del(name) // the service sets its own
	}
	rp.ServeHTTP(w, r)
}

// rewriteRequest makes the request to the service: without credentials, and with the user's name as the gateway knows
// it.
func rewriteRequest(pr *httputil.ProxyRequest, up Upstream, path string) {
	out := pr.Out
	out.URL = withPath(out.URL, path)
	out.URL.Scheme, out.URL.Host = up.Scheme, up.Endpoint.String()
	out.Host = pr.In.Host
	out.Trailer = nil // trailers could carry what headers may not
	withoutCredentials(out.Header)
	pr.SetXForwarded()
	if host, _, err := net.SplitHostPort(pr.In.RemoteAddr); err == nil {
		out.Header.Set("X-Real-Ip", host)
	}
	if user := identity.FromContext(pr.In.Context()); user != nil {
		out.Header.Set("X-Marina-User", user.UID)
	}
}

// cleanResponse removes headers by which a service's answer would speak for the gateway, whose origin it shares, and
// maps redirects back under the service's path.
func cleanResponse(resp *http.Response, in *http.Request, up Upstream, mount string) {
	h := resp.Header
	for _, name := range []string{"Strict-Transport-Security", "Clear-Site-Data", "Alt-Svc", "Public-Key-Pins"} {
		h.Del(name)
	}
	h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(c string) bool {
		return strings.Contains(strings.ToLower(c), "dcos-acs-")
	})
	if len(h["Set-Cookie"]) == 0 {
		h.Del("Set-Cookie")
	}
	if to := h.Get("Location"); to != "" && !up.KeepPath {
		h.Set("Location", mapLocation(to, up, in.Host, mount))
	}
}

// mapLocation maps a redirect to the service itself under its mount; others stay.
func mapLocation(to string, up Upstream, host, mount string) string {
	u, err := url.Parse(to)
	if err != nil || u.Opaque != "" || !strings.HasPrefix(u.Path, "/") {
		return to
	}
	own := u.Scheme == "" && u.Host == "" || u.Scheme == up.Scheme && (u.Host == host || u.Host == up.Endpoint.String())
	if !own || u.User != nil {
		return to
	}
	path := u.EscapedPath()
	if _, mounted := cutPrefix(path, mount); !mounted {
		path = mount + path
	}
	u = withPath(u, path)
	u.Scheme, u.Host = "", ""
	return u.String()
}
