package api

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/kubernetes"
)

// How long a kubeconfig is good.
const (
	defaultTTL = 30 * 24 * time.Hour
	maxTTL     = 365 * 24 * time.Hour
)

// kubeconfigForm is a file for kubectl, with one context.
const kubeconfigForm = `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[1]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[1]s
current-context: %[1]s
`

// kubeconfig answers with a file for kubectl. Its certificate is an administrator's, made for this request and kept
// nowhere.
func (a *API) kubeconfig(w http.ResponseWriter, r *http.Request) error {
	ttl := defaultTTL
	if text := r.URL.Query().Get("ttl"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Minute || d > maxTTL {
			return invalid("ttl %.20q: expected a duration of 1m to %v, such as 720h", text, maxTTL)
		}
		ttl = d
	}
	v, err := a.may(r, access.Exec)
	if err != nil {
		return err
	}
	if v.State == kubernetes.Deleting || v.Server == "" {
		return fmt.Errorf("cluster %s has no API address now, it is %s: %w", v.Name, v.State, errdefs.ErrFailedPrecondition)
	}
	ca, l, err := a.clusters.Administrator(r.Context(), v.ID, ttl)
	if err != nil {
		return err
	}
	text := base64.StdEncoding.EncodeToString
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = fmt.Fprintf(w, kubeconfigForm, "marina-"+v.Name, v.Server, text(ca), text(l.Cert), text(l.Key))
	return nil
}
