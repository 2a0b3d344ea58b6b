package api

import (
	"bufio"
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

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes"
)

func TestAKubeconfigIsAnAdministratorsForAWhile(t *testing.T) {
	w := newWorld(t)
	w.create(kubernetes.Definition{Name: "a"})
	w.until("a", "an address", func(v kubernetes.View) bool { return v.Server != "" })
	for ttl, days := range map[string]int{"": 30, "?ttl=72h": 3} {
		rec := w.call("GET", "/clusters/a/kubeconfig"+ttl, "")
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
		if rec := w.call("GET", "/clusters"+path, ""); rec.Code != want {
			t.Errorf("%s: got %d %s, want %d", path, rec.Code, rec.Body, want)
		}
	}
	if err := w.clusters.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	rec := w.call("GET", "/clusters/a/kubeconfig", "")
	if rec.Code != http.StatusConflict && rec.Code != http.StatusNotFound {
		t.Errorf("of one that is being deleted: got %d %s", rec.Code, rec.Body)
	}
}

// Whoever follows sees each change of a cluster until it is gone.
func TestAClusterIsFollowedToItsEnd(t *testing.T) {
	w := newWorld(t)
	srv := httptest.NewServer(w.api(nil))
	defer srv.Close()
	w.create(kubernetes.Definition{Name: "a"})
	resp, err := http.Get(srv.URL + "/kubernetes/v1/clusters/a/follow")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	next := func(what string, ok func(kubernetes.View) bool) {
		t.Helper()
		for lines.Scan() {
			raw, isData := strings.CutPrefix(lines.Text(), "data: ")
			var v kubernetes.View
			if isData && json.Unmarshal([]byte(raw), &v) == nil && ok(v) {
				return
			}
		}
		t.Fatalf("the stream ended before it was %s: %v", what, lines.Err())
	}
	var task string
	next("with a node", func(v kubernetes.View) bool {
		if len(v.Members) == 2 {
			task = v.Members[1].Task
		}
		return task != ""
	})
	w.kernel.End(kernel.InstanceID(strings.TrimSuffix(task, ".node-1")), kernel.Failed, "killed")
	next("with another node", func(v kubernetes.View) bool {
		return v.Members[1].Restarts == 1 && v.Members[1].Task != ""
	})
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
	w.create(kubernetes.Definition{Name: "a", Nodes: kubernetes.Nodes{Count: new(1)}})
	w.until("a", "placed", func(v kubernetes.View) bool { return len(v.Members) == 2 && v.Members[1].Task != "" })
	w.usage = func(agent kernel.AgentID, task kernel.TaskID) (kubernetes.Cost, error) {
		if agent != "a1" || strings.HasSuffix(string(task), "node-1") {
			return kubernetes.Cost{}, fmt.Errorf("%s: %w", agent, errdefs.ErrUnavailable) // what cannot be told is left out
		}
		return kubernetes.Cost{Private: 180, Shared: 20, CPU: 0.5}, nil
	}
	for path, want := range map[string]string{
		"":             `"name":"a"`,
		"/a":           `"state":"creating"`,
		"/a/events":    `"message":"is created: Kubernetes 1.37, 1 nodes"`,
		"/a?cost=true": `"privateMiB":180`,
	} {
		rec := w.call("GET", "/clusters"+path, "")
		if rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%q: got %d %s, want %s", path, rec.Code, rec.Body, want)
		}
	}
	rec := w.call("GET", "/versions", "")
	if !strings.Contains(rec.Body.String(), `{"minor":"1.37","release":"v1.37.2","machines":1,"default":true}`) {
		t.Errorf("versions: got %s", rec.Body)
	}
	for _, path := range []string{"/none", "/none/events", "/none/follow"} {
		if rec := w.call("GET", "/clusters"+path, ""); rec.Code != http.StatusNotFound ||
			!strings.Contains(rec.Body.String(), "marina cluster list") {
			t.Errorf("%s: got %d %s", path, rec.Code, rec.Body)
		}
	}
	w.stop()
	rec = w.call("GET", "/clusters/a", "")
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("by a master that does not lead: got %d %s", rec.Code, rec.Body)
	}
}

func TestDefinitionsThatCannotBeAreRefused(t *testing.T) {
	w := newWorld(t)
	w.quotas = []kernel.QuotaView{{Role: "/team", Limit: &kernel.Resources{MilliCPU: 500, Mem: -1, Disk: -1, GPUs: -1},
		Used: kernel.Resources{MilliCPU: 100}}}
	w.create(kubernetes.Definition{Name: "taken"})
	for _, c := range []struct {
		what   string
		body   string
		status int
		says   string
	}{
		{"a name taken", `{"name":"taken"}`, 409, "is there already"},
		{"no name", `{}`, 422, "name"},
		{"a path for a name", `{"name":"../x"}`, 422, "name"},
		{"a name of capitals", `{"name":"Team"}`, 422, "name"},
		{"a name with a newline", `{"name":"a\nb"}`, 422, "name"},
		{"a long name", `{"name":"` + strings.Repeat("a", 31) + `"}`, 422, "at most 30"},
		{"an unknown version", `{"name":"x","version":"1.99"}`, 422, "1.37 and 1.36"},
		{"a version that is not built", `{"name":"x","version":"1.36"}`, 409, "make kubernetes-v1.36"},
		{"a thousand nodes", `{"name":"x","nodes":{"count":1000}}`, 422, "0 (a control plane alone) to 100"},
		{"fewer than no nodes", `{"name":"x","nodes":{"count":-1}}`, 422, "nodes.count"},
		{"too little memory", `{"name":"x","nodes":{"mem":1}}`, 422, "nodes.mem"},
		{"endless memory", `{"name":"x","nodes":{"mem":1e300}}`, 422, "nodes.mem"},
		{"more than the quota", `{"name":"x","group":"/team/sub","nodes":{"cpus":0.5}}`, 422,
			"the quota of /team allows 0.5 cpus"},
		{"a misspelt field", `{"name":"x","node":{}}`, 422, `unknown field "node"`},
		{"two definitions", `{"name":"x"}{"name":"y"}`, 422, "followed"},
		{"ranges that overlap", `{"name":"x","podCIDR":"10.96.0.0/16"}`, 422, "overlap"},
		{"the datacenter's range", `{"name":"x","podCIDR":"10.128.0.0/16"}`, 422, "addresses of tasks"},
		{"too few addresses", `{"name":"x","podCIDR":"10.1.1.0/24","nodes":{"count":2}}`, 422, "enough for 1 nodes"},
		{"a group that is none", `{"name":"x","group":"team"}`, 422, "path of the quota tree"},
		{"no JSON", `]`, 422, "cannot be read"},
		{"too much", `{"name":"x"` + strings.Repeat(" ", maxBody) + `}`, 422, "longer than 65536 bytes"},
	} {
		rec := w.call("POST", "/clusters", c.body)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), strings.ReplaceAll(c.says, `"`, `\"`)) {
			t.Errorf("%s: got %d %s, want %d and %q", c.what, rec.Code, rec.Body, c.status, c.says)
		}
		if strings.Contains(rec.Body.String(), "invalid argument") {
			t.Errorf("%s: the answer tells internals: %s", c.what, rec.Body)
		}
	}
	if got := len(w.clusters.List()); got != 1 {
		t.Errorf("after all refusals there are %d clusters, want 1", got)
	}
}

func TestRepeatedRequestsAreHarmless(t *testing.T) {
	w := newWorld(t)
	const definition = `{"name":"a","nodes":{"count":1}}`
	if rec := w.call("PUT", "/clusters/a", definition); rec.Code != http.StatusCreated {
		t.Fatalf("first: %d %s", rec.Code, rec.Body)
	}
	if rec := w.call("PUT", "/clusters/a", definition); rec.Code != http.StatusOK {
		t.Errorf("again: %d %s", rec.Code, rec.Body)
	}
	for range 2 {
		if rec := w.call("DELETE", "/clusters/a", ""); rec.Code != http.StatusAccepted &&
			rec.Code != http.StatusNotFound {
			t.Errorf("delete: %d %s", rec.Code, rec.Body)
		}
	}
	w.until("a", "gone", nil)
	if rec := w.call("GET", "/clusters/a", ""); rec.Code != http.StatusNotFound {
		t.Errorf("after it is gone: %d %s", rec.Code, rec.Body)
	}
}

// Who may nothing sees no cluster and changes none.
func TestNothingIsToldOrDoneWithoutTheRight(t *testing.T) {
	w := newWorld(t)
	w.create(kubernetes.Definition{Name: "a", Group: "/team"})
	const of = "marina:clusters:/team/a"
	for _, q := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "", "", 200, `{"clusters":[]}`},
		{"POST", "", `{"name":"b","group":"/team"}`, 403, "create marina:clusters:/team/b"},
		{"GET", "/a", "", 403, "read " + of},
		{"PUT", "/a", `{"nodes":{"count":3}}`, 403, "update " + of},
		{"PUT", "/b", `{"group":"/other"}`, 403, "create marina:clusters:/other/b"},
		{"DELETE", "/a", "", 403, "delete " + of},
		{"GET", "/a/kubeconfig", "", 403, "exec " + of},
		{"GET", "/a/events", "", 403, "read " + of},
		{"GET", "/a/follow", "", 403, "read " + of},
		{"POST", "/a/images", "x", 403, "update " + of},
	} {
		rec := w.callAs(access.Nobody{}, q.method, "/clusters"+q.path, q.body)
		if rec.Code != q.status || !strings.Contains(rec.Body.String(), q.says) {
			t.Errorf("%s %s: %d %s, want %d with %q", q.method, q.path, rec.Code, rec.Body, q.status, q.says)
		}
	}
	if list := w.clusters.List(); len(list) != 1 || *list[0].Nodes.Count == 3 || list[0].State == kubernetes.Deleting {
		t.Errorf("clusters are %+v, want the one as it was", list)
	}
}

// Whether a write was done is not known: the answer says so, and nothing of the store.
func TestAnUnknownOutcomeIsAnsweredAsOne(t *testing.T) {
	w := newWorld(t)
	w.memory.LoseReply(true)
	rec := w.call("POST", "/clusters", `{"name":"a"}`)
	if rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), "not known") ||
		strings.Contains(rec.Body.String(), "row") || rec.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %s, want %d without internals", rec.Code, rec.Body, http.StatusServiceUnavailable)
	}
}

func TestABodyThatCannotBeReadIsRefused(t *testing.T) {
	w := newWorld(t)
	for _, method := range []string{"POST /clusters", "PUT /clusters/a"} {
		method, path, _ := strings.Cut(method, " ")
		rec := httptest.NewRecorder()
		w.api(nil).ServeHTTP(rec, httptest.NewRequest(method, "/kubernetes/v1"+path, refuse{}))
		if rec.Code != http.StatusUnprocessableEntity || !strings.Contains(rec.Body.String(), "or broken") {
			t.Errorf("%s: got %d %s", method, rec.Code, rec.Body)
		}
	}
	if rec := w.call("PUT", "/clusters/a", `{"name":"b"}`); rec.Code != http.StatusUnprocessableEntity ||
		!strings.Contains(rec.Body.String(), `the path says \"a\"`) {
		t.Errorf("another name: got %d %s", rec.Code, rec.Body)
	}
	if list := w.clusters.List(); len(list) != 0 {
		t.Errorf("clusters: got %+v, want none", list)
	}
}
