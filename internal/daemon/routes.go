package daemon

import (
	"net/http"

	"github.com/marinaos/marina/internal/gateway"
)

// Limits on bodies of single routes.
const (
	definitionLimit = 2 << 20  // an app's definition
	imageLimit      = 32 << 30 // an image's archive
)

// routes lists the APIs that the gateway serves.
func (d *daemon) routes() []gateway.Route {
	marathon := d.leading(func(t *term) http.Handler { return t.scheduler("services").handler })
	kernel := d.leading(func(t *term) http.Handler { return t.master.Handler(d.access) })
	clusters := d.leading(func(t *term) http.Handler { return t.scheduler("kubernetes").handler })
	events := func(prefix string) gateway.Route {
		return gateway.Route{Prefix: prefix + "/v2/events", Handler: strip(prefix, marathon), Streaming: true, Asks: true}
	}
	return []gateway.Route{
		{Prefix: "/service/marathon", Strip: true, Asks: true, Handler: marathon, BodyLimit: definitionLimit},
		events("/service/marathon"),
		{Prefix: "/marathon", Strip: true, Asks: true, Handler: marathon, BodyLimit: definitionLimit}, events("/marathon"),
		{Prefix: "/v2", Asks: true, Handler: marathon, BodyLimit: definitionLimit}, events(""),
		{Prefix: "/machines/v1", Asks: true, Handler: kernel},
		{Prefix: "/quota/v1", Asks: true, Handler: kernel},
		{Prefix: "/net/v1", Asks: true, Handler: kernel},
		{Prefix: "/tasks/v1", Asks: true, Handler: kernel, Streaming: true, BodyLimit: -1},
		{Prefix: "/kubernetes/v1", Asks: true, Handler: clusters, Streaming: true, BodyLimit: imageLimit},
		{Prefix: "/images/v1", Asks: true, Handler: d.images.Handler(d.access), Streaming: true, BodyLimit: imageLimit},
	}
}

// strip is http.StripPrefix that also accepts no prefix.
func strip(prefix string, h http.Handler) http.Handler {
	if prefix == "" {
		return h
	}
	return http.StripPrefix(prefix, h)
}

func (d *daemon) info() gateway.Info {
	return gateway.Info{Datacenter: d.authority.Datacenter(), PublicIPv4: d.config.address.String(), Version: Version,
		CA: d.authority.CertPEM()}
}

// Resolve finds the app that wants to be seen under /service by a name.
func (d *daemon) Resolve(name string) (gateway.Upstream, bool) {
	t := d.term.Load()
	if t == nil {
		return gateway.Upstream{}, false
	}
	at, scheme, keep, ok := t.services.Frontend(name)
	return gateway.Upstream{Endpoint: at, Scheme: scheme, KeepPath: keep}, ok
}
