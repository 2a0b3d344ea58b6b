package main

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/kubernetes/wire"
)

var update = flag.Bool("update", false, "write what is generated to testdata")

func example(t *testing.T) *Config {
	t.Helper()
	c, err := readConfig("testdata/node.json")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatIsGeneratedFollowsFromTheConfig(t *testing.T) {
	c := example(t)
	asJSON := func(v any) string {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	images := []Image{{Name: "docker.io/marinaos/coredns:v1"}, {Name: sandboxImage}}
	for file, got := range map[string]string{
		"kubelet.json":       asJSON(c.kubeletConfig(Size{MilliCPU: 500, Mem: 1 << 30}, 2)),
		"kubelet.kubeconfig": asJSON(c.kubeconfig("kubelet")),
		"containerd.toml":    containerdConfig(images),
		"hosts.toml":         hostsTOML(c.Registries),
		"args":               strings.Join(append(c.kubeletArgs(), c.networkArgs("/etc/kubernetes/node.json")...), "\n") + "\n",
	} {
		file = filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%swant\n%s", file, got, want)
		}
	}
}

func TestContainerdTakesItsConfig(t *testing.T) {
	program := "../../runtime/bin/containerd"
	if _, err := os.Stat(program); err != nil {
		t.Skip("containerd is not built: make -C bundle/runtime")
	}
	file := filepath.Join(t.TempDir(), "containerd.toml")
	if err := os.WriteFile(file, []byte(containerdConfig(nil)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, "--config", file, "config", "dump").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"restrict_oom_score_adj = true", "config_path = '/run/marina/registries'", "conf_dir = '/run/marina/cni/net.d'",
		"BinaryName = '/opt/marina/runtime/runc'", "sandbox = 'registry.k8s.io/pause:3.10.2'"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("containerd does not say %q", want)
		}
	}
}

func TestAllocatableIsTheGrant(t *testing.T) {
	c := example(t)
	for _, tc := range []struct {
		size Size
		want any
	}{
		{Size{MilliCPU: 500}, "1500m"},
		{Size{MilliCPU: 2000}, nil},
		{Size{MilliCPU: 5000}, nil},
		{Size{}, nil},
	} {
		var got any
		if r, ok := c.kubeletConfig(tc.size, 2)["systemReserved"]; ok {
			got = r.(object)["cpu"]
		}
		if got != tc.want {
			t.Errorf("%+v on 2 processors: got %v reserved, want %v", tc.size, got, tc.want)
		}
	}
	if got := machineCPUs("processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n"); got != 2 {
		t.Errorf("got %d processors, want 2", got)
	}
}

func TestOnlyANodeWithAUserNamespaceHasTheGate(t *testing.T) {
	c := example(t)
	c.UserNamespace = false
	if got := c.kubeletConfig(Size{}, 2)["featureGates"]; got != nil {
		t.Errorf("got %v, want none", got)
	}
}

func TestLabelsThatAKubeletRefusesAreLeftOut(t *testing.T) {
	c := &Config{wire.NodeConfig{Labels: map[string]string{
		"a": "1", "example.com/b": "2", "notk8s.io/c": "3", "node.kubernetes.io/d": "4",
		"node-role.kubernetes.io/worker": "", "k8s.io/e": "5", "topology.kubernetes.io/zone": "z",
	}}}
	if got, want := c.nodeLabels(), "a=1,example.com/b=2,node.kubernetes.io/d=4,notk8s.io/c=3,topology.kubernetes.io/zone=z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWrongConfigIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"name":     func(c *Config) { c.Name = "" },
		"address":  func(c *Config) { c.Address = "node" },
		"dns":      func(c *Config) { c.ClusterDNS = "" },
		"minor":    func(c *Config) { c.Minor = "v1.37/../.." },
		"server":   func(c *Config) { c.Server = "10.0.0.1:6443" },
		"registry": func(c *Config) { c.Registries = []string{"x"} },
	} {
		c := *example(t)
		change(&c)
		if err := c.validate(); err == nil {
			t.Errorf("%s: taken, want an error", name)
		}
	}
}

func TestFilesThatChangeTogetherAreOneChange(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) {
		t.Helper()
		if err := write(filepath.Join(dir, name), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	put("a.crt", "1")
	put("b.crt", "1")
	w := newWatch(dir + "/*")
	for i, step := range []struct {
		do   func()
		want bool
	}{
		{func() {}, false},
		{func() { put("a.crt", "22") }, false},
		{func() { put("b.crt", "22") }, false},
		{func() {}, true},
		{func() {}, false},
		{func() { put("a.crt", "333") }, false},
		{func() {}, true},
	} {
		step.do()
		if got := w.Changed(); got != step.want {
			t.Errorf("look %d: got changed %v, want %v", i, got, step.want)
		}
	}
}
