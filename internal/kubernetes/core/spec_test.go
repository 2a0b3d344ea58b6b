package core

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/definition"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

func TestWhereThereAreNoUserNamespacesPrivilegedPodsAreRefused(t *testing.T) {
	without := kernel.AgentView{Agent: kernel.Agent{Attributes: map[string]string{kernel.UserNamespaces: "no"}}}
	for _, c := range []struct {
		name       string
		agents     []kernel.AgentView
		asked      *bool
		shared     bool
		privileged bool
		warns      string
	}{
		{"everywhere", []kernel.AgentView{{}}, nil, false, true, ""},
		{"somewhere", []kernel.AgentView{without, {}}, nil, false, true, ""},
		{"nowhere", []kernel.AgentView{without, without}, nil, true, false, "privileged pods are refused"},
		{"nowhere, all the same", []kernel.AgentView{without}, new(true), true, true, "root on their machines"},
		{"not wanted", []kernel.AgentView{{}}, new(false), false, false, ""},
	} {
		d, err := Definition{Name: "a", Nodes: definition.Nodes{Count: new(1)}, Privileged: c.asked}.Complete()
		if err != nil {
			t.Fatal(err)
		}
		row := Row{Definition: d, VNI: firstVNI}.On(c.agents)
		node, err := row.nodeSpec("node-1", netip.MustParseAddr("10.128.0.2"))
		if err != nil {
			t.Fatal(err)
		}
		var config wire.NodeConfig
		if err := json.Unmarshal(node.Tasks[0].Files[0].Content, &config); err != nil {
			t.Fatal(err)
		}
		plane, err := row.controlPlaneSpec()
		if err != nil {
			t.Fatal(err)
		}
		var steward wire.StewardConfig
		if err := json.Unmarshal(plane.Tasks[0].Files[0].Content, &steward); err != nil {
			t.Fatal(err)
		}
		if config.UserNamespace == c.shared || config.Privileged != c.privileged || steward.Privileged != c.privileged {
			t.Errorf("%s: node %+v, steward %+v", c.name, config, steward)
		}
		want := kernel.Constraint{Field: kernel.UserNamespaces, Operator: "UNLIKE", Value: "no"}
		if c.shared {
			want.Operator = "LIKE"
		}
		if len(node.Constraints) != 1 || node.Constraints[0] != want || len(plane.Constraints) != 0 {
			t.Errorf("%s: nodes want %v, the control plane %v", c.name, node.Constraints, plane.Constraints)
		}
		v := New(row, nil).View(func() []kernel.AgentView { return nil })
		if got := strings.Join(v.Warnings, "\n"); !strings.Contains(got, c.warns) || c.warns == "" && got != "" {
			t.Errorf("%s: warnings %q, want %q", c.name, got, c.warns)
		}
	}
}

func TestWhatAControlPlaneSuffersFromIsAWarning(t *testing.T) {
	c := clusterOf("a", 1)
	warnings := func() string {
		return strings.Join(c.View(func() []kernel.AgentView { return nil }).Warnings, "\n")
	}
	c.steward.told = &wire.Status{}
	if got := warnings(); got != "" {
		t.Errorf("got %q of nothing", got)
	}
	c.steward.told = &wire.Status{Problem: "etcd refuses writes"}
	if got := warnings(); got != "etcd refuses writes" {
		t.Errorf("got %q", got)
	}
}
