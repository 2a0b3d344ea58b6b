package kubernetes

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

func (w *world) call(method, path, body string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w.clusters.Handler(nil).ServeHTTP(rec, httptest.NewRequest(method, "/kubernetes/v1/clusters"+path,
		strings.NewReader(body)))
	return rec
}

func TestAKubeconfigIsAnAdministratorsForAWhile(t *testing.T) {
	w := newWorld(t)
	if err := w.clusters.Create(t.Context(), Definition{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	w.until("a", "an address", func(v View) bool { return v.Server != "" })
	for ttl, days := range map[string]int{"": 30, "?ttl=72h": 3} {
		rec := w.call("GET", "/a/kubeconfig"+ttl, "")
		if rec.Code != http.StatusOK || rec.Header().Get("Content-Type") != "application/yaml" {
			t.Fatalf("%q: got %d %s", ttl, rec.Code, rec.Body)
		}
		field := func(name string) []byte {
			m := regexp.MustCompile(name + `: (\S+)`).FindStringSubmatch(rec.Body.String())
			if m == nil {
				t.Fatalf("no %s in %s", name, rec.Body)
			}
			raw, err := base64.StdEncoding.DecodeString(m[1])
			if err != nil {
				return []byte(m[1])
			}
			return raw
		}
		cert, key := field("client-certificate-data"), field("client-key-data")
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			t.Errorf("%q: %v", ttl, err)
		}
		block, _ := pem.Decode(cert)
		c := must(x509.ParseCertificate(block.Bytes))
		left := time.Until(c.NotAfter)
		if c.Subject.Organization[0] != "system:masters" || left > time.Duration(days)*24*time.Hour ||
			left < time.Duration(days)*24*time.Hour-time.Hour {
			t.Errorf("%q: of %v, for %v", ttl, c.Subject, left)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(field("certificate-authority-data"))
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%q: %v", ttl, err)
		}
		if got := string(field("server")); !strings.HasPrefix(got, "https://192.0.2.1:") {
			t.Errorf("%q: server %s", ttl, got)
		}
	}
	for path, want := range map[string]int{"/a/kubeconfig?ttl=1s": 422, "/a/kubeconfig?ttl=9000h": 422,
		"/a/kubeconfig?ttl=x": 422, "/none/kubeconfig": 404} {
		if rec := w.call("GET", path, ""); rec.Code != want {
			t.Errorf("%s: got %d %s, want %d", path, rec.Code, rec.Body, want)
		}
	}
	if err := w.clusters.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if rec := w.call("GET", "/a/kubeconfig", ""); rec.Code != http.StatusConflict && rec.Code != http.StatusNotFound {
		t.Errorf("of one that is being deleted: got %d %s", rec.Code, rec.Body)
	}
}

// Whoever follows sees each change of a cluster until it is gone.
func TestAClusterIsFollowedToItsEnd(t *testing.T) {
	w := newWorld(t)
	srv := httptest.NewServer(w.clusters.Handler(nil))
	defer srv.Close()
	s := w.ready(Definition{Name: "a"})
	resp, err := http.Get(srv.URL + "/kubernetes/v1/clusters/a/follow")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	next := func(what string, ok func(View) bool) {
		t.Helper()
		for lines.Scan() {
			raw, isData := strings.CutPrefix(lines.Text(), "data: ")
			var v View
			if isData && json.Unmarshal([]byte(raw), &v) == nil && ok(v) {
				return
			}
		}
		t.Fatalf("the stream ended before it was %s: %v", what, lines.Err())
	}
	next("ready", isReady)
	node := w.member("a", "node-1")
	w.kernel.End(kernel.InstanceID(strings.TrimSuffix(node.Task, ".node-1")), kernel.Failed, "killed")
	next("with another node", func(v View) bool { return v.Members[1].Restarts == 1 && v.Members[1].Task != "" })
	s.join("node-1")
	if err := w.clusters.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // to the end, which comes by itself
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream broke: %v", err)
	}
}

func TestWhatWasSeenIsAnswered(t *testing.T) {
	w := newWorld(t)
	w.ready(Definition{Name: "a"})
	for path, want := range map[string]string{
		"":             `"name":"a"`,
		"/a":           `"state":"ready"`,
		"/a/events":    `"message":"is created: Kubernetes 1.37, 1 nodes"`,
		"/a?cost=true": `"privateMiB":180`,
	} {
		w.clusters.cfg.Usage = func(_ context.Context, agent kernel.AgentID, task kernel.TaskID) (Cost, error) {
			if agent != "a1" || strings.HasSuffix(string(task), "node-1") {
				return Cost{}, fmt.Errorf("%s: %w", agent, errdefs.ErrUnavailable) // what cannot be told is left out
			}
			return Cost{Private: 180, Shared: 20, CPU: 0.5}, nil
		}
		if rec := w.call("GET", path, ""); rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%q: got %d %s, want %s", path, rec.Code, rec.Body, want)
		}
	}
	rec := httptest.NewRecorder()
	w.clusters.Handler(nil).ServeHTTP(rec, httptest.NewRequest("GET", "/kubernetes/v1/versions", nil))
	if !strings.Contains(rec.Body.String(), `{"minor":"1.37","release":"v1.37.2","machines":1,"default":true}`) {
		t.Errorf("versions: got %s", rec.Body)
	}
	for _, path := range []string{"/none", "/none/events", "/none/follow"} {
		if rec := w.call("GET", path, ""); rec.Code != http.StatusNotFound ||
			!strings.Contains(rec.Body.String(), "marina cluster list") {
			t.Errorf("%s: got %d %s", path, rec.Code, rec.Body)
		}
	}
	w.stop()
	if rec := w.call("GET", "/a", ""); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("by a master that does not lead: got %d %s", rec.Code, rec.Body)
	}
}
