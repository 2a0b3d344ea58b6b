package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
)

const mine = `# my clusters
apiVersion: v1
kind: Config
preferences: {}
clusters:
- cluster: # at work
    server: https://prod:6443
  name: prod
contexts:
- context:
    cluster: prod
    user: me
  name: prod
current-context: prod
users:
- name: me
  user:
    exec:
      command: login # asks for a password
      args: ["-x", "1.10"]
extensions:
- name: tool
  extension: {last: 007}
`

const added = `- name: marina-demo
  cluster: {server: 'https://192.0.2.1:31004', certificate-authority-data: Y2E=}
`

func TestMergingLeavesTheRestOfAKubeconfigAsItIs(t *testing.T) {
	dir := clitest.Home(t)
	p := newPool(t, view("demo", 1))
	target := filepath.Join(dir, "elsewhere")
	file := filepath.Join(dir, ".kube", "config")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target, []byte(mine), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, file); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		t.Helper()
		b, err := os.ReadFile(target)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	_, out, e := cluster(t, p, "", "kubeconfig", "demo", "--ttl", "720h")
	clitest.Same(t, "output", out+e, "marina-demo is a context of "+file+" (use it: kubectl --context marina-demo get nodes)\n")
	want := strings.Replace(mine, "  name: prod\ncontexts:\n", "  name: prod\n"+added+"contexts:\n", 1)
	want = strings.Replace(want, "  name: prod\ncurrent-context", "  name: prod\n- name: marina-demo\n  context: {cluster: marina-demo, user: marina-demo}\ncurrent-context", 1)
	want = strings.Replace(want, "\"1.10\"]\n", "\"1.10\"]\n- name: marina-demo\n  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5, ttl: '720h0m0s'}\n", 1)
	clitest.Same(t, "merged", read(), want)
	if fi, err := os.Lstat(file); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v (%v), want the link kept", fi, err)
	}
	if fi, err := os.Stat(target); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v (%v), want mode 0600", fi, err)
	}
	cluster(t, p, "", "kubeconfig", "demo", "--ttl", "720h")
	clitest.Same(t, "merged again", read(), want)

	if _, _, e := cluster(t, p, "", "kubeconfig", "demo", "--use"); !strings.Contains(read(), "current-context: marina-demo\n") {
		t.Errorf("--use does not make it current: %s %s", read(), e)
	}
	cluster(t, p, "", "kubeconfig", "demo", "--remove")
	clitest.Same(t, "removed", read(), strings.Replace(mine, "current-context: prod", `current-context: ""`, 1))
	if left, _ := filepath.Glob(filepath.Join(dir, "*.lock")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestTheFirstContextBecomesTheCurrentOne(t *testing.T) {
	for what, before := range map[string]string{"no file": "-", "empty": "", "null lists": "apiVersion: v1\nclusters: null\ncontexts: []\ncurrent-context: \"\"\nkind: Config\nusers: null\n", "comment": "# nothing\n"} {
		t.Run(what, func(t *testing.T) {
			dir := clitest.Home(t)
			file := filepath.Join(dir, "k")
			t.Setenv("KUBECONFIG", file)
			if before != "-" {
				if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p := newPool(t, view("demo", 1))
			code, out, e := cluster(t, p, "", "kubeconfig", "demo")
			if code != 0 || !strings.HasPrefix(out, "marina-demo is the current context") {
				t.Errorf("exit %d, output %q, error %q", code, out, e)
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var k struct {
				Kind     string `yaml:"kind"`
				Current  string `yaml:"current-context"`
				Clusters []struct {
					Name    string `yaml:"name"`
					Cluster struct {
						Server string `yaml:"server"`
					} `yaml:"cluster"`
				} `yaml:"clusters"`
			}
			if err := yaml.Unmarshal(b, &k); err != nil || k.Kind != "Config" || k.Current != "marina-demo" || len(k.Clusters) != 1 ||
				k.Clusters[0].Name != "marina-demo" || k.Clusters[0].Cluster.Server != "https://192.0.2.1:31004" {
				t.Errorf("wrote (%v):\n%s", err, b)
			}
		})
	}
}

func TestSeveralKubeconfigsAreOne(t *testing.T) {
	dir := clitest.Home(t)
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	t.Setenv("KUBECONFIG", first+":"+second)
	if err := os.WriteFile(second, []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPool(t, view("demo", 1))
	if _, out, e := cluster(t, p, "", "kubeconfig", "demo"); !strings.HasPrefix(out, "marina-demo is a context of "+first) {
		t.Errorf("output %q, error %q, want it in the first file and the second's context kept current", out, e)
	}
	if b, _ := os.ReadFile(second); string(b) != mine {
		t.Errorf("the second file was changed:\n%s", b)
	}
}

func TestANamespaceThatItsUserChoseStays(t *testing.T) {
	dir := clitest.Home(t)
	file := filepath.Join(dir, "k")
	t.Setenv("KUBECONFIG", file)
	if err := os.WriteFile(file, []byte("contexts:\n- name: marina-demo\n  context: {cluster: marina-demo, user: marina-demo, namespace: web}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster(t, newPool(t, view("demo", 1)), "", "kubeconfig", "demo")
	if b, _ := os.ReadFile(file); !strings.Contains(string(b), "namespace: web") {
		t.Errorf("the namespace is lost:\n%s", b)
	}
}

func TestAClusterOfAnotherDatacenterStaysInTheKubeconfig(t *testing.T) {
	dir := clitest.Home(t)
	p := newPool(t, view("demo", 1))
	cluster(t, p, "", "kubeconfig", "demo")
	other := view("demo", 1)
	other.Server = "https://198.51.100.9:31004"
	if code, _, e := cluster(t, newPool(t, other), "", "delete", "demo", "--yes"); code != 0 {
		t.Fatal(e)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, ".kube", "config")); !strings.Contains(string(b), "marina-demo") {
		t.Errorf("the context is gone:\n%s", b)
	}
}

func TestWhatIsNoKubeconfigIsLeftAsItIs(t *testing.T) {
	dir := clitest.Home(t)
	file := filepath.Join(dir, "k")
	t.Setenv("KUBECONFIG", file)
	for _, bad := range []string{"a: [", "- a\n", "clusters: {a: b}\n", "a: 1\n---\nb: 2\n"} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, e := cluster(t, newPool(t, view("demo", 1)), "", "kubeconfig", "demo")
		if b, _ := os.ReadFile(file); code != exit.Failed || string(b) != bad || !strings.Contains(e, "was left as it is") {
			t.Errorf("%q: exit %d, error %q, file %q", bad, code, e, b)
		}
	}
}

func TestAKubeconfigThatAnotherProgramChangesIsNotWritten(t *testing.T) {
	dir := clitest.Home(t)
	file := filepath.Join(dir, "k")
	t.Setenv("KUBECONFIG", file)
	if err := os.WriteFile(file+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, e := cluster(t, newPool(t, view("demo", 1)), "", "kubeconfig", "demo")
	if _, err := os.Stat(file); code != exit.Conflict || err == nil || !strings.Contains(e, "rm "+file+".lock") {
		t.Errorf("exit %d, error %q, file %v", code, e, err)
	}
}

func TestAKubeconfigOfItsOwn(t *testing.T) {
	dir := clitest.Home(t)
	file := filepath.Join(dir, "demo.yaml")
	if code, out, e := cluster(t, newPool(t, view("demo", 1)), "", "kubeconfig", "demo", "--output", file); code != 0 || !strings.HasPrefix(out, "wrote "+file) {
		t.Errorf("exit %d, output %q, error %q", code, out, e)
	}
	b, err := os.ReadFile(file)
	fi, _ := os.Stat(file)
	if err != nil || string(b) != clitest.Kubeconfig("demo", "") || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v: %s", err, fi.Mode(), b)
	}
	_, out, _ := cluster(t, newPool(t, view("demo", 1)), "", "kubeconfig", "demo", "--print")
	clitest.Same(t, "printed", out, clitest.Kubeconfig("demo", ""))
	if _, err := os.Stat(filepath.Join(dir, ".kube")); err == nil {
		t.Error("the user's kubeconfig was touched")
	}
}
