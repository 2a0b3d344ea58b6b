package core

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// TestTheWireIsWhatItWas reads what both sides of earlier releases said, and says it again: clusters go on with the
// programs that they started with. testdata/wire only grows.
func TestTheWireIsWhatItWas(t *testing.T) {
	files, err := filepath.Glob("testdata/wire/*.json")
	if err != nil || len(files) < 6 {
		t.Fatalf("recordings: got %v, %v", files, err)
	}
	kinds := map[string]func() any{
		"status":  func() any { return &wire.Status{} },
		"desired": func() any { return &wire.Desired{} },
		"steward": func() any { return &wire.StewardConfig{} },
		"node":    func() any { return &wire.NodeConfig{} },
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(name), ".json"), "-")
		into := kinds[kind]()
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields() // what was said is still known
		if err := dec.Decode(into); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		again, err := json.MarshalIndent(into, "", "  ")
		if d := cmp.Diff(string(raw), string(again)+"\n"); err != nil || d != "" {
			t.Errorf("%s: said again (-was +is), %v:\n%s", name, err, d)
		}
	}
}

// What is decided by is the values, not only that they can be read.
func TestWhatAStewardSaidIsUnderstood(t *testing.T) {
	var s wire.Status
	raw, err := os.ReadFile("testdata/wire/status.json")
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := clusterOf("a", 2)
	c.steward.told = &s
	if n := c.steward.node("node-1"); n == nil || !n.Ready || !tells(n, c.NodeSize()) {
		t.Errorf("node-1: got %+v, want it ready and of the size of %+v", n, c.NodeSize())
	}
	if n := c.steward.node("node-2"); n == nil || n.Ready || n.Message == "" {
		t.Errorf("node-2: got %+v, want it not ready, with the reason", n)
	}
	ports := ports("a", c.steward.told.LoadBalancers, map[string]uint16{"default/web/tcp/80": 20001})
	if len(ports) != 1 || ports[0].Container != 31234 || ports[0].Service != 20001 ||
		ports[0].VIPs[0].Name != "web.default.a" {
		t.Errorf("load balancers: got %+v", ports)
	}
}

// A steward takes in what is wanted when its revision is another, and only then; an upgrade of the datacenter is no
// reason.
func TestARevisionNamesItsContent(t *testing.T) {
	d := wire.Desired{Nodes: []string{"node-1"}, LoadBalancers: []wire.Balancer{{Namespace: "default", Name: "web",
		Ingress: []netip.Addr{netip.MustParseAddr("198.18.0.7")}, Published: map[string]string{"80": "192.0.2.1:20001"}}}}
	const was = "980021e9f4a4401e"
	if got := d.Revision(); got != was {
		t.Errorf("got %s, was %s", got, was)
	}
	d.Rev = "something"
	if got := d.Revision(); got != was {
		t.Errorf("with a name: got %s, want %s", got, was)
	}
	d.Nodes = append(d.Nodes, "node-2")
	if d.Revision() == was {
		t.Error("with another node it is the same")
	}
}
