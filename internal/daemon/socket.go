package daemon

import (
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"

	"github.com/marinaos/marina/internal/identity/ca"
	"github.com/marinaos/marina/internal/settings"
)

// maxRequest bounds what the admin socket reads.
const maxRequest = 64 << 10

// adminHandler answers on the admin socket, beside the identity room's tokens. Its peers are uid 0.
func (d *daemon) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, r *http.Request) {
		parts := d.parts(r.Context())
		healthy := !slices.ContainsFunc(parts, func(u unit) bool { return !u.Healthy }) // whatever alarms there are
		plain := "http://" + d.config.HTTP
		if d.config.HTTP == settings.Off {
			plain = ""
		}
		resolver := ""
		if a := d.resolver(); a.IsValid() {
			resolver = a.String()
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"url": d.url(), "http": plain, "ca": string(d.authority.CertPEM()), "version": Version, "build": d.build,
			"pid": os.Getpid(), "state": d.config.State, "healthy": healthy, "resolver": resolver,
			"units": append(parts, d.alarmUnits()...),
		})
	})
	mux.HandleFunc("POST /agent/certificate", func(w http.ResponseWriter, r *http.Request) {
		csr, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
		if err != nil {
			return
		}
		der, err := d.authority.Sign(csr, ca.Agent, r.URL.Query().Get("id"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Write(der)
	})
	return mux
}

// url returns the gateway's address for people.
func (d *daemon) url() string { return "https://" + reachable(d.config.HTTPS, d.config.address) }

// reachable fills this machine's address into a listen address that names none.
func reachable(listen string, address netip.Addr) string {
	ap, err := netip.ParseAddrPort(listen)
	if err == nil && !ap.Addr().IsUnspecified() {
		return ap.String()
	}
	_, port := split(listen)
	return netip.AddrPortFrom(address, port).String()
}
