package cluster_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kubernetes"
)

// pool is a datacenter's clusters, without a datacenter: each look at one brings it a step further.
type pool struct {
	t *testing.T

	mu     sync.Mutex
	views  map[string]*kubernetes.View
	sent   []string // METHOD path body
	images map[string]int
	events []kubernetes.Event
}

func newPool(t *testing.T, views ...kubernetes.View) *pool {
	p := &pool{t: t, views: map[string]*kubernetes.View{}, images: map[string]int{}}
	for _, v := range views {
		p.views[v.Name] = &v
	}
	return p
}

var born = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// view is a cluster that is ready.
func view(name string, nodes int) kubernetes.View {
	k := kubernetes.View{
		Definition: kubernetes.Definition{Name: name, Group: "/", Version: "1.37", Nodes: kubernetes.Nodes{Count: &nodes, CPUs: 0.5, Mem: 1024, Disk: 8192},
			ControlPlane: kubernetes.ControlPlane{CPUs: 0.1, Mem: 256, Disk: 2048}, PodCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/16"},
		ID: name + "-1", State: kubernetes.Ready, Release: "v1.37.2", Created: born, ReadyAt: born.Add(14200 * time.Millisecond),
		Server: "https://192.0.2.1:31004", Internal: "https://10.128.0.5:6443",
	}
	grow(&k)
	return k
}

// grow gives a cluster the members of its definition, ready.
func grow(k *kubernetes.View) {
	k.Members = []kubernetes.Member{{Name: "control-plane", State: "ready", Machine: "m1", Address: "10.128.0.5", CPUs: k.ControlPlane.CPUs,
		Mem: k.ControlPlane.Mem, Disk: k.ControlPlane.Disk}}
	for i := range *k.Nodes.Count {
		k.Members = append(k.Members, kubernetes.Member{Name: fmt.Sprintf("node-%d", i+1), State: "ready", Machine: "m1",
			Address: fmt.Sprintf("10.128.0.%d", 6+i), CPUs: k.Nodes.CPUs, Mem: k.Nodes.Mem, Disk: k.Nodes.Disk})
	}
	k.State, k.WaitsFor = kubernetes.Ready, nil
}

func (p *pool) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, _ := io.ReadAll(r.Body)
	if r.Method != http.MethodGet {
		p.sent = append(p.sent, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(b)))
	}
	answer := func(status int, doc any) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(doc)
	}
	name, of, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, kube.API), "/"), "/")
	k := p.views[name]
	switch {
	case r.URL.Path == "/kubernetes/v1/versions":
		answer(200, map[string]any{"versions": []kubernetes.VersionView{{Minor: "1.37", Release: "v1.37.2", Machines: 1, Default: true}, {Minor: "1.36"}}})
	case name == "" && r.Method == http.MethodGet:
		all := []kubernetes.View{}
		for _, k := range p.views {
			all = append(all, *k)
		}
		answer(200, map[string]any{"clusters": all})
	case name == "":
		p.write(b, "", answer)
	case r.Method == http.MethodPut:
		p.write(b, name, answer)
	case k == nil:
		answer(404, map[string]string{"message": "cluster " + name + " does not exist"})
	case of == "events":
		answer(200, map[string]any{"events": p.events})
	case of == "images":
		p.images[name] += len(b)
		answer(200, map[string]any{"images": []string{"docker.io/library/hello:1"}, "nodes": *k.Nodes.Count})
	case of == "kubeconfig":
		io.WriteString(w, clitest.Kubeconfig(name, r.URL.Query().Get("ttl")))
	case r.Method == http.MethodDelete:
		k.State = kubernetes.Deleting
		answer(202, k)
	default:
		answer(200, k)
		p.step(k)
	}
}

// write creates or changes a cluster.
func (p *pool) write(b []byte, name string, answer func(int, any)) {
	var d kubernetes.Definition
	if err := json.Unmarshal(b, &d); err != nil {
		p.t.Error(err)
	}
	old := p.views[d.Name]
	switch {
	case old != nil && name == "":
		answer(409, map[string]string{"message": "cluster " + d.Name + " exists"})
		return
	case d.Nodes.Mem > 1<<20:
		answer(422, map[string]string{"message": "role / has 4 GiB memory, and this takes 2048 GiB"})
		return
	}
	if d.Nodes.Count == nil {
		d.Nodes.Count = new(1)
	}
	k := kubernetes.View{Definition: d, ID: d.Name + "-1", State: kubernetes.Creating, Release: "v1.37.2", Created: born, Server: "https://192.0.2.1:31004",
		WaitsFor: []string{"the control plane starts"}}
	status := 201
	if old != nil {
		status, k.State, k.Members = 200, kubernetes.Changing, old.Members
	}
	p.views[d.Name] = &k
	answer(status, &k)
}

// step brings a cluster one step further.
func (p *pool) step(k *kubernetes.View) {
	switch {
	case k.State == kubernetes.Deleting:
		delete(p.views, k.Name)
	case k.State == kubernetes.Creating && len(k.Members) == 0:
		k.Members = []kubernetes.Member{{Name: "control-plane", State: "starting", Message: "its API does not answer yet"}}
	case k.State == kubernetes.Creating || k.State == kubernetes.Changing:
		grow(k)
	}
}

// cluster runs a command line of clusters; home is kept between those of a test.
func cluster(t *testing.T, h http.Handler, in string, args ...string) (code int, out, errOut string) {
	t.Helper()
	r := clitest.Run(t, h, in, append([]string{"cluster"}, args...)...)
	return r.Code, r.Out, r.Err
}

func TestCreateSendsWhatWasSaidAndWaitsUntilReady(t *testing.T) {
	clitest.Home(t)
	p := newPool(t)
	code, out, errOut := cluster(t, p, "", "create", "demo", "--version", "v1.37", "--nodes", "2", "--cpus", "500m", "--mem", "2Gi", "--disk", "4096",
		"--group", "/team", "--control-plane-mem", "512Mi", "--no-encryption")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	clitest.Same(t, "sent", strings.Join(p.sent, "\n"), `POST /kubernetes/v1/clusters {"name":"demo","group":"/team","version":"1.37",`+
		`"nodes":{"count":2,"cpus":0.5,"mem":2048,"disk":4096},"controlPlane":{"mem":512},"encryption":false}`)
	clitest.Same(t, "output", out, "created demo: ready, Kubernetes v1.37.2 at https://192.0.2.1:31004\n")
	clitest.Same(t, "progress", errOut, `demo: waits for the control plane starts
demo: creating
demo: control-plane starting: its API does not answer yet
demo: control-plane ready
demo: node-1 ready
demo: node-2 ready
demo: ready
  try: marina cluster kubeconfig demo, then kubectl --context marina-demo get nodes
`)
}

func TestClusterErrorsSayWhatToChange(t *testing.T) {
	clitest.Home(t)
	for _, tc := range []struct {
		args string
		code int
		says []string
	}{
		{"create demo", exit.Conflict, []string{"cluster demo exists"}},
		{"create big --mem 2Ti", exit.Failed, []string{"role / has 4 GiB memory"}},
		{"create Demo", exit.BadUsage, []string{`"Demo" cannot be a cluster's name`, "lower-case"}},
		{"create demo --mem 2G", exit.BadUsage, []string{"write 2Gi, 512Mi, or a number of MiB"}},
		{"create demo --mem -1", exit.BadUsage, []string{"write 2Gi"}},
		{"create demo --cpus many", exit.BadUsage, []string{"2, 0.5 or 500m"}},
		{"create demo --cpus NaN", exit.BadUsage, []string{"2, 0.5 or 500m"}},
		{"create demo --nodes 101", exit.BadUsage, []string{"0 to 100"}},
		{"create demo --no-wait --kubeconfig", exit.BadUsage, []string{"leave out --no-wait"}},
		{"create", exit.BadUsage, []string{"create NAME"}},
		{"show none", exit.NotFound, []string{"cluster none does not exist", "marina cluster list"}},
		{"show ../x", exit.BadUsage, []string{"cannot be a cluster's name"}},
		{"scale demo many", exit.BadUsage, []string{`"many"`}},
		{"scale old 2", exit.Conflict, []string{"is being deleted"}},
		{"resize demo", exit.BadUsage, []string{"nothing to change", "marina cluster resize demo --mem 2Gi"}},
		{"wait old", exit.Conflict, []string{"is being deleted"}},
		{"wait none", exit.NotFound, []string{"does not exist"}},
		{"delete demo", exit.BadUsage, []string{"nobody is there to ask", "--yes"}},
		{"delete demo none --yes", exit.NotFound, []string{"none does not exist; nothing was deleted"}},
		{"apply", exit.BadUsage, []string{"which file?"}},
		{"apply -f /does/not/exist", exit.BadUsage, []string{"no such file"}},
		{"kubeconfig demo --print --use", exit.BadUsage, []string{"exclude each other"}},
		{"kubeconfig demo --ttl -1h", exit.BadUsage, []string{"-1h"}},
		{"frobnicate", exit.BadUsage, []string{"frobnicate"}},
	} {
		t.Run(tc.args, func(t *testing.T) {
			old := view("old", 1)
			old.State = kubernetes.Deleting
			p := newPool(t, view("demo", 1), old)
			code, out, errOut := cluster(t, p, "", strings.Fields(tc.args)...)
			if code != tc.code || out != "" {
				t.Errorf("exit %d, output %q, want %d and none", code, out, tc.code)
			}
			for _, s := range tc.says {
				if !strings.Contains(errOut, s) {
					t.Errorf("error %q does not say %q", errOut, s)
				}
			}
			if k := p.views["demo"]; k == nil || k.State != kubernetes.Ready {
				t.Errorf("demo is %+v, want it as it was", k)
			}
		})
	}
}

func TestWaitGivesUpWithWhatIsMissing(t *testing.T) {
	clitest.Home(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := view("demo", 1)
		k.State, k.WaitsFor = kubernetes.Degraded, []string{"node-1 is not ready"}
		json.NewEncoder(w).Encode(k)
	})
	code, _, errOut := cluster(t, h, "", "wait", "demo", "--timeout", "50ms")
	if code != exit.Timeout || !strings.Contains(errOut, "demo waits for: node-1 is not ready") {
		t.Errorf("exit %d, error %q, want %d and what is missing", code, errOut, exit.Timeout)
	}
}

func TestWaitOutlivesADatacenterThatRestarts(t *testing.T) {
	clitest.Home(t)
	looks := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := view("demo", 1)
		switch looks++; looks {
		case 1:
			k.State = kubernetes.Creating
		case 2:
			w.WriteHeader(503)
			return
		}
		json.NewEncoder(w).Encode(k)
	})
	code, _, errOut := cluster(t, h, "", "wait", "demo")
	if code != 0 || !strings.Contains(errOut, "the datacenter does not answer at the moment") {
		t.Errorf("exit %d, error %q, want it to go on and to say so", code, errOut)
	}
}

func TestWaitTellsALaterClusterOfTheNameFromTheOneItWaitsFor(t *testing.T) {
	clitest.Home(t)
	looks := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := view("demo", 1)
		if k.State = kubernetes.Creating; looks > 0 {
			k.ID, k.State = "demo-2", kubernetes.Ready
		}
		looks++
		json.NewEncoder(w).Encode(k)
	})
	if code, _, errOut := cluster(t, h, "", "wait", "demo"); code != exit.NotFound || !strings.Contains(errOut, "deleted meanwhile") {
		t.Errorf("exit %d, error %q, want that it was deleted", code, errOut)
	}
}

func TestScaleAndResizeKeepWhatTheyDoNotName(t *testing.T) {
	clitest.Home(t)
	p := newPool(t, view("demo", 1))
	if code, out, errOut := cluster(t, p, "", "scale", "demo", "3", "--wait"); code != 0 || out != "scaled demo to 3 nodes: ready, Kubernetes v1.37.2 at https://192.0.2.1:31004\n" {
		t.Errorf("scale: exit %d, output %q, error %q", code, out, errOut)
	}
	if code, out, errOut := cluster(t, p, "", "resize", "demo", "--cpus", "2", "--control-plane-disk", "4Gi"); code != 0 || out != "resized demo (follow it: marina cluster wait demo)\n" {
		t.Errorf("resize: exit %d, output %q, error %q", code, out, errOut)
	}
	clitest.Same(t, "sent", strings.Join(p.sent, "\n"), `PUT /kubernetes/v1/clusters/demo {"name":"demo","group":"/","version":"1.37","nodes":{"count":3,"cpus":0.5,"mem":1024,"disk":8192},"controlPlane":{"cpus":0.1,"mem":256,"disk":2048},"podCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/16"}
PUT /kubernetes/v1/clusters/demo {"name":"demo","group":"/","version":"1.37","nodes":{"count":3,"cpus":2,"mem":1024,"disk":8192},"controlPlane":{"cpus":0.1,"mem":256,"disk":4096},"podCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/16"}`)
}

func TestDeleteWaitsUntilNothingIsLeftAndForgetsTheContext(t *testing.T) {
	dir := clitest.Home(t)
	p := newPool(t, view("a", 1), view("b", 0))
	if code, _, e := cluster(t, p, "", "kubeconfig", "a"); code != 0 {
		t.Fatal(e)
	}
	code, out, errOut := cluster(t, p, "", "delete", "b", "a", "a", "--yes", "--wait")
	if code != 0 || out != "deleted a\ndeleted b\n" || len(p.views) != 0 {
		t.Errorf("exit %d, output %q, error %q, left %v", code, out, errOut, p.views)
	}
	if !strings.Contains(errOut, "a: node-1 gone\n") || !strings.Contains(errOut, "b: gone\n") {
		t.Errorf("progress %q does not tell what is gone", errOut)
	}
	if b, err := os.ReadFile(filepath.Join(dir, ".kube", "config")); err != nil || strings.Contains(string(b), "marina-a") {
		t.Errorf("kubeconfig %s (%v) still has the cluster", b, err)
	}
}

func TestApplyReadsWhatPeopleWrite(t *testing.T) {
	clitest.Home(t)
	shown, _ := json.Marshal(view("demo", 2))
	list, _ := json.Marshal(map[string]any{"clusters": []kubernetes.View{view("demo", 2)}})
	full := `{"name":"demo","group":"/","version":"1.37","nodes":{"count":2,"cpus":0.5,"mem":1024,"disk":8192},"controlPlane":{"cpus":0.1,"mem":256,"disk":2048},"podCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/16"}`
	for what, tc := range map[string]struct{ in, want string }{
		"json":      {"{\n\t\"name\": \"demo\"}", `{"name":"demo","nodes":{},"controlPlane":{}}`},
		"yaml":      {"name: demo\nversion: 1.40\nnodes: {count: 0, cpus: 1}\n", `{"name":"demo","version":"1.40","nodes":{"count":0,"cpus":1},"controlPlane":{}}`},
		"list":      {`[{"name":"demo"}]`, `{"name":"demo","nodes":{},"controlPlane":{}}`},
		"documents": {"---\nname: demo\n---\n", `{"name":"demo","nodes":{},"controlPlane":{}}`},
		"show":      {string(shown), full},
		"lists":     {string(list), full},
	} {
		t.Run(what, func(t *testing.T) {
			p := newPool(t)
			if code, out, e := cluster(t, p, tc.in, "apply", "-f", "-"); code != 0 || !strings.HasPrefix(out, "created demo\napplied demo ") {
				t.Errorf("exit %d, output %q, error %q", code, out, e)
			}
			clitest.Same(t, "sent", strings.Join(p.sent, "\n"), "PUT /kubernetes/v1/clusters/demo "+tc.want)
		})
	}
}

func TestApplyDoesNothingWithAFileThatIsWrongSomewhere(t *testing.T) {
	clitest.Home(t)
	p := newPool(t)
	for in, says := range map[string]string{
		"name: a\n---\nname: b\nnode: 3\n": `cluster 2: there is no field "node"`,
		"name: a\nnodes: {mem: 2Gi}\n":     `"nodes.mem" is a string and should be a number; memory and disk are MiB: 2048 is 2Gi`,
		"name: a\n---\nname: a\n":          "a is defined twice",
		"nodes: {count: 1}\n":              `no "name"`,
		"name: A\n":                        "cannot be a cluster's name",
		"":                                 "defines no cluster",
		"a: [":                             "neither JSON nor YAML",
		`{"name":"a","audit":"yes"}`:       `"audit" is a string and should be a boolean`,
		`{"name":"a","version":1.37}`:      `"version" is a number and should be a string`,
	} {
		if code, _, e := cluster(t, p, in, "apply", "-f", "-"); code != exit.BadUsage || !strings.Contains(e, says) {
			t.Errorf("%q: exit %d, error %q does not say %q", in, code, e, says)
		}
	}
	if len(p.sent) > 0 {
		t.Errorf("sent %v, want nothing", p.sent)
	}
}

func TestShowFitsATerminalAndTellsWhatIsMissing(t *testing.T) {
	clitest.Home(t)
	t.Setenv("TZ", "UTC")
	k := view("demo", 2)
	k.State, k.WaitsFor, k.Warnings = kubernetes.Degraded, []string{"node-2 is not ready"}, []string{"privileged pods are refused"}
	k.Pods = kubernetes.Pods{Running: 5, Pending: 1}
	k.Cost = &kubernetes.Cost{Private: 310.4, Shared: 40, CPU: 0.051}
	k.Members[0].Cost = &kubernetes.Cost{Private: 180, CPU: 0.03}
	k.Members[2].State, k.Members[2].Message, k.Members[2].Restarts = "starting", "the kubelet does not answer", 2
	k.Members[2].Machine = strings.Repeat("long", 9)
	k.Balanced = []kubernetes.Balanced{{Namespace: "default", Name: "web", Address: "198.18.0.7:80", Published: []string{"192.0.2.1:80"}}}
	k.Created = time.Now().Add(-3 * time.Hour)
	k.ReadyAt = k.Created.Add(14200 * time.Millisecond)
	p := newPool(t, k)
	code, out, e := cluster(t, p, "", "show", "demo")
	if code != 0 {
		t.Fatal(e)
	}
	_, table, _ := strings.Cut(out, "\n\n")
	clitest.Same(t, "members", table, `MEMBER         STATE     MACHINE    ADDRESS     CPUS      MEM          DISK  AGE
control-plane  ready     m1         10.128.0.5  0.03/0.1  180Mi/256Mi  2Gi   -
node-1         ready     m1         10.128.0.6  0.5       1Gi          8Gi   -
node-2         starting  longlong…  10.128.0.7  0.5       1Gi          8Gi   -
node-2: the kubelet does not answer; restarted 2 times

load balancer   default/web
  address       198.18.0.7:80
  from outside  192.0.2.1:80
`)
	for _, s := range []string{"nodes       1/2 ready\n", "waits for   node-2 is not ready\n", "warning     privileged pods are refused\n",
		"uses        310.4Mi private memory, 40Mi of shared, 0.05 cpus\n", "first ready after 14.2s\n", "version     1.37 (v1.37.2)\n"} {
		if !strings.Contains(out, s) {
			t.Errorf("output %q does not say %q", out, s)
		}
	}
	_, out, _ = cluster(t, p, "", "list")
	clitest.Same(t, "list", out, `NAME  STATE     VERSION  NODES  PODS  AGE  API
demo  degraded  v1.37.2  1/2    5     3h   192.0.2.1:31004
demo waits for: node-2 is not ready
`)
	for _, line := range strings.Split(table, "\n") {
		if n := len([]rune(line)); n > output.Columns {
			t.Errorf("line of %d characters: %s", n, line)
		}
	}
}

func TestVersionsAndEvents(t *testing.T) {
	clitest.Home(t)
	p := newPool(t, view("demo", 1))
	_, out, _ := cluster(t, p, "", "versions")
	clitest.Same(t, "versions", out, "VERSION  RELEASE  MACHINES  DEFAULT\n1.37     v1.37.2  1         yes\n1.36     -        0         -\n")
	p.events = []kubernetes.Event{{Time: born, Cluster: "demo", Message: "created"}, {Time: born, Cluster: "demo", Message: "ready\x1b[2J"}}
	_, out, _ = cluster(t, p, "", "events", "demo")
	at := born.Local().Format(time.DateTime)
	clitest.Same(t, "events", out, at+"  created\n"+at+"  ready\uFFFD[2J\n")
}

func TestClusterVerbsHaveJSON(t *testing.T) {
	clitest.Home(t)
	for _, args := range []string{"list", "show demo", "create new", "create now --no-wait", "scale demo 2", "resize demo --mem 2Gi --wait", "wait demo", "wait demo demo",
		"events demo", "versions", "kubeconfig demo", "kubeconfig demo --print", "kubeconfig demo --remove", "delete demo --yes --wait", "delete demo other --yes", "apply -f -"} {
		p := newPool(t, view("demo", 1), view("other", 1))
		code, out, e := cluster(t, p, `[{"name":"x"},{"name":"y"}]`, append(strings.Fields(args), "--json")...)
		if code != 0 || e != "" || !json.Valid([]byte(out)) {
			t.Errorf("%s: exit %d, output %q, error %q, want one JSON document", args, code, out, e)
		}
	}
}

func TestKubectlRunsWithAKubeconfigThatIsRemoved(t *testing.T) {
	dir := clitest.Home(t)
	t.Setenv("TMPDIR", dir)
	bin := t.TempDir()
	script := "#!/bin/sh\nstat -c %a \"$KUBECONFIG\"\ngrep -c server: \"$KUBECONFIG\"\nfor a; do echo \"[$a]\"; done\nexit 7\n"
	if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, args := range [][]string{{"kubectl", "demo", "--", "get", "pods", "-n", "x y", "--json"}, {"kubectl", "demo", "get", "pods", "-n", "x y", "--json"}} {
		code, out, e := cluster(t, newPool(t, view("demo", 1)), "", args...)
		clitest.Same(t, "output", out, "600\n1\n[get]\n[pods]\n[-n]\n[x y]\n[--json]\n")
		if code != 7 || e != "" {
			t.Errorf("exit %d, error %q, want kubectl's own 7", code, e)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "marina-kubectl-*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
