package steward

import (
	"archive/tar"
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node(name, ip, pods string, ready bool) *corev1.Node {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Spec: corev1.NodeSpec{PodCIDR: pods},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}},
			Allocatable: corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("10Gi"),
				corev1.ResourceCPU: resource.MustParse("250m")},
			Capacity:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, Message: "it said so"}}}}
}

func TestConnectionsGoToTheClusterOrNowhere(t *testing.T) {
	r := ranges{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16"),
		netip.MustParseAddr("10.128.0.5")}
	a, b := node("a", "10.128.0.7", "10.244.0.0/24", true), node("b", "10.128.0.8", "10.244.1.0/24", true)
	down := node("down", "10.128.0.9", "10.244.2.0/24", false)
	all := []*corev1.Node{a, down, b}
	for _, c := range []struct {
		what, dst string
		nodes     []*corev1.Node
		desired   []string
		want      string // direct, names of nodes, forbidden or none
	}{
		{"kubelet", "10.128.0.7:10250", all, nil, "direct"},
		{"kubelet that does not answer", "10.128.0.9:10250", all, nil, "direct"},
		{"pod in the network of its node", "10.128.0.8:9443", all, nil, "direct"},
		{"v4 in v6", "[::ffff:10.128.0.8]:9443", all, nil, "direct"},
		{"service", "10.96.0.10:53", all, nil, "a b"},
		{"pod", "10.244.1.9:80", all, nil, "b a"},
		{"pod of a node that is down", "10.244.2.9:80", all, nil, "a b"},
		{"no node", "10.96.0.10:53", nil, nil, "none"},
		{"no node ready", "10.96.0.10:53", []*corev1.Node{down}, nil, "none"},
		{"the datacenter", "10.128.0.50:5432", all, nil, "forbidden"},
		{"a VIP", "198.18.0.1:80", all, nil, "forbidden"},
		{"the world", "1.1.1.1:443", all, nil, "forbidden"},
		{"a node nobody desired", "10.128.0.8:10250", all, []string{"a"}, "forbidden"},
		{"tunnel of a node nobody desired", "10.244.1.9:80", all, []string{"a"}, "a"},
		{"a node that says it is the control plane", "10.128.0.5:6443", []*corev1.Node{node("x", "10.128.0.5", "", true)},
			nil, "forbidden"},
		{"a node that says it is loopback", "127.0.0.1:2379", []*corev1.Node{node("x", "127.0.0.1", "", true)}, nil,
			"forbidden"},
		{"a node that says it is metadata", "169.254.169.254:80", []*corev1.Node{node("x", "169.254.169.254", "", true)},
			nil, "forbidden"},
	} {
		direct, via, err := route(netip.MustParseAddrPort(c.dst), r, c.nodes, c.desired)
		var names []string
		for _, n := range via {
			names = append(names, n.Name)
		}
		got := strings.Join(names, " ")
		if f := (*forbidden)(nil); errors.As(err, &f) {
			got = "forbidden"
		} else if errors.Is(err, errNoNode) {
			got = "none"
		} else if direct {
			got = "direct"
		}
		if got != c.want {
			t.Errorf("%s, %s: got %s (%v), want %s", c.what, c.dst, got, err, c.want)
		}
	}
}

func TestClaimsThatNoDirectoryCanServeAreRefused(t *testing.T) {
	n := node("a", "10.128.0.7", "", true)
	claim := func(size string, change func(*corev1.PersistentVolumeClaimSpec)) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}}}}
		if change != nil {
			change(&c.Spec)
		}
		return c
	}
	for what, c := range map[string]struct {
		claim      *corev1.PersistentVolumeClaim
		want       string
		reschedule bool
	}{
		"fits":          {claim("10Gi", nil), "", false},
		"too large":     {claim("11Gi", nil), "11Gi requested, but node a has 10Gi in all", true},
		"block":         {claim("1Gi", func(s *corev1.PersistentVolumeClaimSpec) { s.VolumeMode = new(corev1.PersistentVolumeBlock) }), "volumeMode", false},
		"of many nodes": {claim("1Gi", func(s *corev1.PersistentVolumeClaimSpec) { s.AccessModes[0] = corev1.ReadWriteMany }), "accessModes", false},
	} {
		err := fits(c.claim, n)
		i := (*impossible)(nil)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: got %v, want nothing against it", what, err)
			}
		} else if !errors.As(err, &i) || !strings.Contains(i.reason, c.want) || i.reschedule != c.reschedule {
			t.Errorf("%s: got %v, want %s", what, err, c.want)
		}
	}
}

func TestStatusSaysWhatPodsWaitFor(t *testing.T) {
	var pods []*corev1.Pod
	for _, name := range "onmlkjihgfedcba" {
		pods = append(pods, trimPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: string(name)},
			Status: corev1.PodStatus{Phase: corev1.PodPending,
				Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
					Message: "0/1 nodes are\navailable" + strings.Repeat(" x", 400)}}}}).(*corev1.Pod))
	}
	pods = append(pods, &corev1.Pod{Spec: corev1.PodSpec{NodeName: "a"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning}},
		&corev1.Pod{Spec: corev1.PodSpec{NodeName: "a"}, Status: corev1.PodStatus{Phase: corev1.PodFailed}})
	other := "elsewhere.example/lb"
	services := []*corev1.Service{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer,
				Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 31234}, {Port: 81}}}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "theirs"},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: &other}},
	}
	got := look([]*corev1.Node{node("b", "10.0.0.2", "", false), node("a", "10.0.0.1", "10.244.0.0/24", true)}, pods,
		services, nil)
	if got.Pods != (PodsStatus{Running: 1, Pending: 15, Failed: 1}) {
		t.Errorf("pods: got %+v", got.Pods)
	}
	if len(got.Waiting) != maxWaiting || !strings.HasPrefix(got.Waiting[0],
		"pod default/a: 0/1 nodes are available x") || len(got.Waiting[0]) > maxSentence {
		t.Errorf("waiting: got %d, the first %q", len(got.Waiting), got.Waiting[0])
	}
	if want := (NodeStatus{Name: "a", Ready: true, Address: "10.0.0.1", PodCIDR: "10.244.0.0/24", Pods: 1, MilliCPU: 250,
		Mem: 1 << 30}); got.Nodes[0] != want {
		t.Errorf("node: got %+v, want %+v", got.Nodes[0], want)
	}
	if want := (NodeStatus{Name: "b", Message: "it said so", Address: "10.0.0.2", MilliCPU: 250,
		Mem: 1 << 30}); got.Nodes[1] != want {
		t.Errorf("node: got %+v, want %+v", got.Nodes[1], want)
	}
	if len(got.LoadBalancers) != 1 || !slices.Equal(got.LoadBalancers[0].Ports,
		[]BalancerPort{{Name: "http", Protocol: "TCP", Port: 80, NodePort: 31234}}) {
		t.Errorf("load balancers: got %+v, want web with its one node port", got.LoadBalancers)
	}
}

func testSteward(t *testing.T) *Steward {
	st, err := readState(filepath.Join(t.TempDir(), "steward.json"))
	if err != nil {
		t.Fatal(err)
	}
	return &Steward{state: st, board: newBoard(), deps: Deps{Log: slog.New(slog.DiscardHandler)}, nodesBell: newBell(),
		balancersBell: newBell(), statusBell: newBell()}
}

func TestStatusAnswersWhenItDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSteward(t)
		get := func(after string) (string, time.Duration) {
			begun := time.Now()
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/status?after="+after, nil))
			return w.Body.String(), time.Since(begun)
		}
		first, took := get("other")
		rev, _, _ := s.board.current()
		if took != 0 || !strings.Contains(first, `"rev":"`+rev+`"`) {
			t.Errorf("with another revision it answered %s after %v, want it at once", first, took)
		}
		go func() {
			time.Sleep(3 * time.Second)
			s.board.show(Status{Version: "v1.37.2"})
		}()
		if second, took := get(rev); took != 3*time.Second || second == first {
			t.Errorf("it answered %s after %v, want the change after 3 s", second, took)
		}
		rev, _, _ = s.board.current()
		s.board.show(Status{Version: "v1.37.2"})
		if again, _, _ := s.board.current(); again != rev {
			t.Errorf("the same status has revision %s and %s", rev, again)
		}
		if _, took := get(rev); took != pollFor {
			t.Errorf("without a change it answered after %v, want %v", took, pollFor)
		}
	})
}

func TestDesiredIsDurableWhenAcknowledged(t *testing.T) {
	s := testSteward(t)
	put := func(body string) int {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/v1/desired", strings.NewReader(body)))
		return w.Code
	}
	for body, want := range map[string]int{
		`{`:                               http.StatusBadRequest,
		`{"nodes":[""]}`:                  http.StatusUnprocessableEntity,
		`{"loadBalancers":[{"name":""}]}`: http.StatusUnprocessableEntity,
		`{"loadBalancers":[{"namespace":"a","name":"b","ingress":["x"]}]}`: http.StatusBadRequest,
		strings.Repeat(" ", maxDesired+1):                                  http.StatusRequestEntityTooLarge,
	} {
		if got := put(body); got != want {
			t.Errorf("%.40q: got %d, want %d", body, got, want)
		}
	}
	if got := put(`{"nodes":["a"],"loadBalancers":[{"namespace":"n","name":"web","ingress":["198.18.0.7"],"published":{"80":"192.0.2.1:10080"}}],"later":1}`); got != http.StatusNoContent {
		t.Fatalf("got %d, want 204", got)
	}
	again, err := readState(s.state.path)
	if err != nil {
		t.Fatal(err)
	}
	if d := again.desired(); !slices.Equal(d.Nodes, []string{"a"}) || len(d.LoadBalancers) != 1 ||
		d.LoadBalancers[0].Published["80"] != "192.0.2.1:10080" {
		t.Errorf("read again: %+v", d)
	}
	if again.probed() {
		t.Error("the probe is done, though it never was")
	}
}

// archive writes an OCI archive of no image but with a name, as the bundle's are.
func archive(t *testing.T, bundle, file, ref string) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range map[string]string{"blobs/sha256/x": "blob",
		"index.json": `{"manifests":[{"annotations":{"io.containerd.image.name":"` + ref + `"}}]}`} {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(text))
	}
	w.Close()
	if err := os.MkdirAll(filepath.Join(bundle, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "images", file), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestManifestsOfTheBundleAreWellFormed(t *testing.T) {
	bundle := t.TempDir()
	archive(t, bundle, "coredns.tar", "docker.io/marinaos/coredns:v1.15.0")
	archive(t, bundle, "metrics-server.tar", "docker.io/marinaos/metrics-server:v0.9.0")
	if err := os.CopyFS(filepath.Join(bundle, "manifests"), os.DirFS("../../addons/manifests")); err != nil {
		t.Fatal(err)
	}
	a := &addons{cfg: &Config{Addons: bundle, ClusterDNS: netip.MustParseAddr("10.96.0.10"),
		ClusterDomain: "cluster.local", Replicas: 2}}
	objects, err := a.read()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, o := range objects {
		text, _ := o.object.MarshalJSON()
		seen[o.object.GetKind()+" "+o.object.GetName()] = string(text)
		if o.object.GetLabels()[addonLabel] == "" {
			t.Errorf("%s has no label", o.object.GetName())
		}
	}
	for object, want := range map[string]string{
		"Deployment coredns":                "docker.io/marinaos/coredns:v1.15.0",
		"Deployment metrics-server":         "docker.io/marinaos/metrics-server:v0.9.0",
		"ConfigMap coredns":                 "kubernetes cluster.local in-addr.arpa",
		"Service kube-dns":                  `"clusterIP":"10.96.0.10"`,
		"StorageClass local":                "WaitForFirstConsumer",
		"APIService v1beta1.metrics.k8s.io": "metrics.k8s.io",
		"ClusterRoleBinding marina:nodenet": "marina:nodenet",
	} {
		if !strings.Contains(seen[object], want) {
			t.Errorf("%s: got %s, want it to hold %s", object, seen[object], want)
		}
	}
}

func TestManifestsWithWhatNobodyKnowsAreRefused(t *testing.T) {
	a := &addons{cfg: &Config{Addons: t.TempDir()}}
	for text, want := range map[string]string{
		"apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: z}":       "no such kind",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}":               "namespace",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: x, namespace: z}": "namespace",
		"{{.NoSuchField}}": "NoSuchField",
		`{{image "none"}}`: "no archive",
	} {
		if _, err := a.render("m", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}
