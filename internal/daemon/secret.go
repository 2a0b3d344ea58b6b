package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// agentHandler serves agents on their own port, beside their sessions: images, and the secrets of tasks that they run.
func (d *daemon) agentHandler() http.Handler {
	registry := d.images.Registry()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ref, ok := strings.CutPrefix(r.URL.Path, kernel.SecretsPath); ok {
			d.serveSecret(w, r, ref)
			return
		}
		registry.ServeHTTP(w, r)
	})
}

// serveSecret gives an agent what a reference of one of its tasks stands for. Who asks is known by the certificate.
func (d *daemon) serveSecret(w http.ResponseWriter, r *http.Request, ref string) {
	if r.Method != http.MethodGet || r.TLS == nil {
		http.Error(w, "secrets are read by agents", http.StatusMethodNotAllowed)
		return
	}
	agent, err := d.agentOf(*r.TLS)
	if err != nil {
		http.Error(w, "this is for agents", http.StatusForbidden)
		return
	}
	t := d.term.Load()
	if t == nil {
		http.Error(w, "the datacenter has no leader at the moment", http.StatusServiceUnavailable)
		return
	}
	secret, err := t.clusters.Secret(r.Context(), agent, ref)
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if err := json.NewEncoder(w).Encode(secret); err != nil {
			d.log.Debug("secret not sent", "agent", agent, "err", err)
		}
	case errdefs.IsPermissionDenied(err):
		d.log.Warn("secret refused", "agent", agent, "err", err)
		http.Error(w, err.Error(), http.StatusForbidden)
	default:
		d.log.Error("secret not given", "agent", agent, "err", err)
		http.Error(w, "the master could not give it; its log says why", http.StatusServiceUnavailable)
	}
}

// secrets asks the master for what a task's reference stands for; it is the agent's source.
type secrets struct {
	url    string
	client *http.Client
}

// Secret implements agent.Secrets.
func (s secrets) Secret(ctx context.Context, ref string) (kernel.Secret, error) {
	var out kernel.Secret
	if err := getJSON(ctx, s.client.Transport, s.url+kernel.SecretsPath+ref, &out); err != nil {
		return out, fmt.Errorf("secret %s: %w", ref, err)
	}
	return out, nil
}
