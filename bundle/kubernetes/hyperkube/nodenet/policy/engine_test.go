package policy

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/nodenet/netspace"
)

func apiPod(ns, name, uid, node, address string, l map[string]string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(uid), Labels: l}}
	p.Spec.NodeName = node
	if p.Status.PodIP = address; address != "" {
		p.Status.PodIPs = []corev1.PodIP{{IP: address}}
	}
	return p
}

func TestAddressIsThePodsThatTheGateSays(t *testing.T) {
	a := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	old := apiPod("x", "old", "1", "here", "10.0.0.1", nil)
	done := apiPod("x", "done", "2", "here", "10.0.0.2", nil)
	done.Status.Phase = corev1.PodSucceeded
	host := apiPod("x", "host", "3", "here", "192.0.2.1", nil)
	host.Spec.HostNetwork = true
	fresh := apiPod("x", "fresh", "4", "here", "", nil)
	again := apiPod("x", "again", "6", "here", "", nil)
	static := apiPod("x", "static", "7", "here", "", nil)
	static.Annotations = map[string]string{mirrorAnnotation: "file"}
	far := apiPod("x", "far", "8", "there", "10.0.1.1", nil)
	pods, stands := resolve("here", []*corev1.Pod{old, done, host, fresh, again, static, far}, map[string]claim{
		"c1": {Container: "c1", Namespace: "x", Name: "fresh", UID: "4", Addresses: []netip.Addr{a("10.0.0.1")}},
		"c2": {Container: "c2", Namespace: "x", Name: "again", UID: "5", Addresses: []netip.Addr{a("10.0.0.3")}},
		"c3": {Container: "c3", Namespace: "x", Name: "static", UID: "file", Addresses: []netip.Addr{a("10.0.0.4")}},
	})
	var got []string
	for _, p := range pods {
		for _, ip := range p.Addresses {
			got = append(got, p.Name+" "+ip.String())
		}
	}
	want := "far 10.0.1.1, fresh 10.0.0.1, static 10.0.0.4"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if len(stands) != 2 || stands[a("10.0.0.1")].uid != "4" {
		t.Errorf("got %v, want the two local addresses", stands)
	}
}

func TestClaimsOutliveTheProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gate.json")
	c, err := openClaims(file)
	if err != nil {
		t.Fatal(err)
	}
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for _, add := range []claim{{Container: "a", Name: "a", Addresses: []netip.Addr{one}}, {Container: "b", Name: "b", Addresses: []netip.Addr{two}}, {Container: "c", Name: "c", Addresses: []netip.Addr{one}}} {
		if err := c.add(add); err != nil {
			t.Fatal(err)
		}
	}
	if dropped, err := c.drop("b"); !dropped || err != nil {
		t.Errorf("drop: got %v, %v", dropped, err)
	}
	again, err := openClaims(file)
	if err != nil {
		t.Fatal(err)
	}
	held := again.all()
	if len(held) != 1 || held["c"].Name != "c" || held["c"].Addresses[0] != one {
		t.Errorf("got %v, want c's alone: its address was a's before, and b has ended", held)
	}
}

func TestTrimKeepsWhatRulesNeed(t *testing.T) {
	p := apiPod("x", "a", "1", "here", "10.0.0.1", map[string]string{"app": "a"})
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m"}}
	p.Annotations = map[string]string{"big": strings.Repeat("x", 1000)}
	p.Spec.Containers = []corev1.Container{{Image: "i", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}, {ContainerPort: 81}}}}
	got, err := Trim(p)
	if err != nil {
		t.Fatal(err)
	}
	trimmed := got.(*corev1.Pod)
	if trimmed.ManagedFields != nil || trimmed.Annotations != nil || trimmed.Spec.Containers[0].Image != "" {
		t.Errorf("got %+v, want less", trimmed)
	}
	if ports := namedPorts(trimmed); len(ports) != 1 || ports[0] != (NamedPort{"http", corev1.ProtocolTCP, 80}) {
		t.Errorf("got ports %v, want http", ports)
	}
	if p.Annotations == nil {
		t.Error("the object that was given was changed")
	}
}

// node is an engine with an API, in the process's own namespace.
type node struct {
	api    *fake.Clientset
	socket string
	dir    string
	engine *Engine
	run    *sync.WaitGroup
	stop   func()
}

func startNode(t *testing.T, dir string, api *fake.Clientset) *node {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{api: api, dir: dir, socket: filepath.Join(dir, "gate.sock"), run: new(sync.WaitGroup)}
	factory := informers.NewSharedInformerFactoryWithOptions(n.api, 0, informers.WithTransform(Trim))
	var err error
	n.engine, err = New(Config{
		Node: "here", Informers: factory, NFT: newNFT(t), ClaimsFile: filepath.Join(dir, "gate.json"),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", n.socket)
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	n.run.Go(func() {
		if err := n.engine.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	n.run.Go(func() {
		if err := n.engine.ServeGate(ctx, l); err != nil {
			t.Error(err)
		}
	})
	n.stop = func() { cancel(); n.run.Wait() }
	t.Cleanup(n.stop)
	select {
	case <-n.engine.Ready():
	case <-time.After(time.Minute):
		t.Fatal("the engine is not ready")
	}
	return n
}

// plugin builds the gate of bundle/runtime.
func plugin(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "gate")
	build := exec.Command("go", "build", "-o", file, "./gate")
	build.Dir = "../../../../runtime"
	build.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("gate: %v\n%s", err, out)
	}
	return file
}

// call runs the plugin as a runtime does, and returns its result or its error.
func (n *node) call(program, command, pod, uid, container, address string) (string, error) {
	cmd := exec.Command(program)
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + container, "CNI_IFNAME=eth0", "CNI_NETNS=/var/run/netns/x",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=" + pod + ";K8S_POD_UID=" + uid,
	}
	result := `{"cniVersion":"1.0.0","ips":[{"address":"` + address + `/24","gateway":"10.244.0.1","interface":1}],"routes":[{"dst":"0.0.0.0/0"}]}`
	cmd.Stdin = strings.NewReader(`{"cniVersion":"1.0.0","name":"marina","type":"gate","socket":"` + n.socket + `","prevResult":` + result + `}`)
	out, err := cmd.Output()
	return string(out), err
}

func TestPodWaitsAtTheGateForItsRules(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	// Not t.TempDir, whose long names a socket's address has no room for.
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	gate := plugin(t, dir)
	l := newLab(t)
	api := fake.NewClientset(objects(t)...)
	n := startNode(t, dir, api)

	// A pod that the API does not tell of yet: the plugin waits.
	answered := make(chan error, 1)
	var out string
	go func() {
		var err error
		out, err = n.call(gate, "ADD", "a", "1", "c1", "10.244.0.2")
		answered <- err
	}()
	for len(n.engine.claims.all()) == 0 {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-answered:
		t.Fatalf("the gate let an unknown pod through: %v\n%s", err, out)
	default:
	}
	if _, err := api.CoreV1().Pods("x").Create(t.Context(), apiPod("x", "a", "1", "here", "", map[string]string{"app": "a"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatalf("got %v\n%s", err, out)
	}
	var result struct{ IPs []struct{ Address string } }
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.IPs) != 1 || result.IPs[0].Address != "10.244.0.2/24" {
		t.Errorf("got the result %s, want the one before", out)
	}
	// Its rules stand, though the API still knows no address.
	l.check([]string{"y/a > x/a tcp 80"}, false)
	l.check([]string{"y/b > x/a tcp 80"}, true)

	// A new process knows of it too.
	n.stop()
	n = startNode(t, dir, api)
	l.check([]string{"y/a > x/a tcp 80"}, false)
	l.check([]string{"y/b > x/a tcp 80"}, true)

	// The sandbox ends; the address is nobody's, until another pod gets it.
	if out, err := n.call(gate, "DEL", "a", "1", "c1", "10.244.0.2"); err != nil || out != "" {
		t.Errorf("DEL: got %v, %q", err, out)
	}
	if len(n.engine.claims.all()) != 0 {
		t.Errorf("after DEL: got claims %v", n.engine.claims.all())
	}
	if _, err := api.CoreV1().Pods("x").Create(t.Context(), apiPod("x", "b", "2", "here", "", map[string]string{"app": "b"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if out, err := n.call(gate, "ADD", "b", "2", "c2", "10.244.0.2"); err != nil {
		t.Fatalf("got %v\n%s", err, out)
	}
	l.check([]string{"y/a > x/a tcp 80", "y/b > x/a tcp 80"}, true) // x/a's address is that of pod b, which nobody isolates

	if out, err := n.call(gate, "STATUS", "", "", "", ""); err != nil {
		t.Errorf("STATUS: got %v, %s", err, out)
	}
	if out, err := n.call(gate, "VERSION", "", "", "", ""); err != nil || !strings.Contains(out, `"1.0.0"`) {
		t.Errorf("VERSION: got %v, %s", err, out)
	}
	n.stop()
	if out, err := n.call(gate, "STATUS", "", "", "", ""); err == nil || !strings.Contains(out, `"code":50`) {
		t.Errorf("STATUS without an engine: got %v, %s", err, out)
	}
	if out, err := n.call(gate, "DEL", "b", "2", "c2", "10.244.0.2"); err != nil {
		t.Errorf("DEL without an engine: got %v, %s", err, out)
	}
}

func TestGateSaysWhyAPodDoesNotStart(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	api := fake.NewClientset(apiPod("x", "a", "2", "here", "", nil))
	n := startNode(t, dir, api)
	gate := plugin(t, dir)
	var asking sync.WaitGroup
	for _, c := range []struct{ pod, uid, address, want string }{
		{"nosuch", "1", "10.244.0.2", "the API has not told of this pod"},
		{"a", "1", "10.244.0.3", "the API tells of pod 2 of that name"},
		{"a", "2", "nonsense", "address"},
	} {
		asking.Go(func() {
			out, err := n.call(gate, "ADD", c.pod, c.uid, "c-"+c.address, c.address)
			if err == nil || !strings.Contains(out, c.want) || !strings.Contains(out, `"code":11`) {
				t.Errorf("%s: got %v, %s, want %q", c.pod, err, out, c.want)
			}
		})
	}
	asking.Wait()
}

// objects are namespaces and a policy: pods x app=a take only what comes from y app=b.
func objects(t *testing.T) []runtime.Object {
	p := parsePolicies(t, "x\npodSelector: {matchLabels: {app: a}}\ningress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: b}}}]}]")[0]
	return []runtime.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "y", Labels: map[string]string{"team": "blue"}}},
		&networkingv1.NetworkPolicy{ObjectMeta: p.ObjectMeta, Spec: p.Spec},
		apiPod("y", "a", "ya", "here", "10.244.0.4", map[string]string{"app": "a"}),
		apiPod("y", "b", "yb", "here", "10.244.0.5", map[string]string{"app": "b"}),
	}
}
