package steward

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheConfigIsCheckedFieldByField(t *testing.T) {
	read := func(text string) (*Config, error) {
		t.Helper()
		at := filepath.Join(t.TempDir(), "steward.json")
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return ReadConfig(at)
	}
	const least = `"listen":":6444","serviceCIDR":"10.96.0.0/16","clusterCIDR":"10.244.0.0/16","clusterDNS":"10.96.0.10"`
	c, err := read("{" + least + "}")
	if err != nil {
		t.Fatal(err)
	}
	if c.ClusterDomain != "cluster.local" || c.EgressSocket != "/run/kubernetes/egress.sock" || c.TunnelPort != 10260 ||
		c.Replicas != 1 {
		t.Errorf("defaults: got %+v", c)
	}
	if c, err := read("{" + least + `,"later":1,"replicas":2}`); err != nil || c.Replicas != 2 {
		t.Errorf("with a field of a later release: %+v, %v", c, err)
	}
	for text, says := range map[string]string{
		`{`:                            "steward.json",
		`{` + least + `,"listen":"x"}`: "listen",
		`{"listen":":1"}`:              "serviceCIDR is needed",
		`{"listen":":1","serviceCIDR":"10.96.0.0/16"}`:   "clusterCIDR is needed",
		`{` + least + `,"clusterDNS":"10.97.0.10"}`:      "clusterDNS: 10.97.0.10 is not in",
		`{` + least + `,"clusterDomain":""}`:             "clusterDomain",
		`{` + least + `,"egressSocket":"egress.sock"}`:   "egressSocket",
		`{` + least + `,"tunnelPort":65536}`:             "tunnelPort: 65536",
		`{` + least + `,"replicas":11}`:                  "replicas: 11",
		`{` + least + `,"serviceCIDR":"10.96.0.0/mask"}`: "steward.json",
	} {
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", text, err, says)
		}
	}
	if _, err := ReadConfig(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("no file: got %v", err)
	}
}

// What cannot be kept is not acknowledged, and what was desired before stays.
func TestWhatCannotBeKeptIsRefused(t *testing.T) {
	s := testSteward(t)
	s.addonsBell = newBell()
	put := func(body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/v1/desired", strings.NewReader(body)))
		return w
	}
	if w := put(`{"rev":"1","nodes":["node-1"]}`); w.Code != http.StatusNoContent {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if len(s.addonsBell) != 0 {
		t.Error("the add-ons are applied anew, though there are nodes as before")
	}
	was := s.state.path
	s.state.path = filepath.Join(was, "not-a-directory")
	if w := put(`{"rev":"2","nodes":[]}`); w.Code != http.StatusInsufficientStorage ||
		strings.Contains(w.Body.String(), was) {
		t.Errorf("got %d %s, want a refusal without internals", w.Code, w.Body)
	}
	if err := s.state.setProbed(); err == nil {
		t.Error("the probe is noted where nothing can be written")
	}
	if got := s.state.desired().Rev; got != "1" {
		t.Errorf("after a refusal: desired %q, want what was acknowledged last", got)
	}
	s.state.path = was
	if w := put(`{"rev":"2","nodes":[]}`); w.Code != http.StatusNoContent || len(s.addonsBell) != 1 {
		t.Errorf("without nodes: got %d, and %d rings for the add-ons, want one", w.Code, len(s.addonsBell))
	}
	many := `{"nodes":["` + strings.Repeat(`x","`, maxNodes) + `x"]}`
	if w := put(many); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "5001, at most 5000") {
		t.Errorf("too many nodes: got %d %s", w.Code, w.Body)
	}
	balancers := `{"loadBalancers":[` + strings.Repeat(`{"namespace":"a","name":"b"},`, maxBalancers) + `{"namespace":"a","name":"b"}]}`
	if w := put(balancers); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "1001, at most 1000") {
		t.Errorf("too many load balancers: got %d %s", w.Code, w.Body)
	}
}
