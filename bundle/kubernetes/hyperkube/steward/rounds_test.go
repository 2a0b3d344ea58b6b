package steward

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"log/slog"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// cluster is a steward whose watches are stores that a test fills, beside the client library's own twin of an API
// server.
type cluster struct {
	*Steward
	t      *testing.T
	api    *fake.Clientset
	events *record.FakeRecorder

	mu      sync.Mutex
	evicted []string // guarded by mu
}

func newCluster(t *testing.T, desired Desired, objects ...runtime.Object) *cluster {
	t.Helper()
	st, err := readState(filepath.Join(t.TempDir(), "steward.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.setDesired(desired); err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, api: fake.NewClientset(objects...), events: record.NewFakeRecorder(100)}
	c.Steward = &Steward{cfg: &Config{}, state: st, board: newBoard(), deps: Deps{Log: slog.New(slog.DiscardHandler)},
		told:   map[string]bool{},
		client: c.api, events: c.events, statusBell: newBell(), nodesBell: newBell(), balancersBell: newBell(),
		volumesBell: newBell(), probeBell: newBell()}
	for _, s := range []*cache.Store{&c.seen.nodes, &c.seen.pods, &c.seen.services, &c.seen.dns, &c.seen.claims,
		&c.seen.volumes} {
		*s = cache.NewStore(cache.MetaNamespaceKeyFunc)
	}
	for _, o := range objects {
		c.see(o)
	}
	return c
}

// see has a watch tell an object.
func (c *cluster) see(o runtime.Object) {
	var err error
	switch o := o.(type) {
	case *corev1.Node:
		err = c.seen.nodes.Add(o)
	case *corev1.Pod:
		err = c.seen.pods.Add(o)
	case *corev1.Service:
		err = c.seen.services.Add(o)
	case *corev1.PersistentVolumeClaim:
		err = c.seen.claims.Add(o)
	case *corev1.PersistentVolume:
		err = c.seen.volumes.Add(o)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// evictions has the API answer evictions by f, whose pods are gone when it is nil.
func (c *cluster) evictions(f func(pod string) error) {
	c.api.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "eviction" {
			return false, nil, nil
		}
		e := a.(clienttesting.CreateAction).GetObject().(*policyv1.Eviction)
		if err := f(e.Name); err != nil {
			return true, nil, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.evicted = append(c.evicted, e.Name)
		return true, nil, c.seen.pods.Delete(&corev1.Pod{ObjectMeta: e.ObjectMeta})
	})
}

func (c *cluster) nodes() (names []string) {
	list, err := c.api.CoreV1().Nodes().List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range list.Items {
		names = append(names, n.Name)
	}
	return names
}

func pod(name, node string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	if change != nil {
		change(p)
	}
	return p
}

// pods that keep no node: they ended, are the kubelet's own, or a DaemonSet's.
func staying(node string) []runtime.Object {
	daemon := []metav1.OwnerReference{{Kind: "DaemonSet", Controller: new(true)}}
	return []runtime.Object{
		pod("ended", node, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod("static", node, func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: ""} }),
		pod("daemon", node, func(p *corev1.Pod) { p.OwnerReferences = daemon }),
	}
}

func TestNodesThatAreNotDesiredAreDrainedAndDeleted(t *testing.T) {
	objects := append(staying("node-2"), node("node-1", "10.0.0.1", "", true), node("node-2", "10.0.0.2", "", true),
		node("mine", "10.0.0.3", "", true),
		pod("web", "node-2", nil), pod("other", "node-1", nil))
	c := newCluster(t, Desired{Nodes: []string{"node-1"}}, objects...)
	c.evictions(func(string) error { return nil })
	if err := c.removeNodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := c.nodes(), []string{"mine", "node-1"}; !slices.Equal(got, want) {
		t.Errorf("nodes: got %v, want %v: others than the datacenter's are somebody else's", got, want)
	}
	if !slices.Equal(c.evicted, []string{"web"}) {
		t.Errorf("evicted: got %v, want web alone", c.evicted)
	}
	cordoned := slices.ContainsFunc(c.api.Actions(), func(a clienttesting.Action) bool {
		p, ok := a.(clienttesting.PatchAction)
		return ok && p.GetName() == "node-2" && strings.Contains(string(p.GetPatch()), `"unschedulable":true`)
	})
	if !cordoned {
		t.Error("the node was not closed to new pods before its own went")
	}
}

func TestWithoutAWordFromTheDatacenterNoNodeIsRemoved(t *testing.T) {
	c := newCluster(t, Desired{}, node("node-1", "10.0.0.1", "", true))
	if err := c.removeNodes(t.Context()); err != nil || len(c.nodes()) != 1 {
		t.Errorf("got nodes %v, %v, want node-1 left alone", c.nodes(), err)
	}
}

// A budget that allows no eviction keeps a node for a while, not for ever.
func TestAPodThatIsNotEvictedIsDeletedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Desired{Nodes: []string{}}, node("node-1", "10.0.0.1", "", true), pod("web", "node-1", nil))
		asked := 0
		c.evictions(func(string) error { asked++; return apierrors.NewTooManyRequests("its budget allows none", 10) })
		begun := time.Now()
		if err := c.removeNodes(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != drainFor || asked < 20 {
			t.Errorf("after %v and %d evictions, want %v and one each second", took, asked, drainFor)
		}
		if left, err := c.api.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err != nil ||
			len(left.Items) != 0 || len(c.nodes()) != 0 {
			t.Errorf("left: %d pods, nodes %v, %v", len(left.Items), c.nodes(), err)
		}
	})
}

func TestANodeThatIsAwayIsNotDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Desired{Nodes: []string{}}, node("node-1", "10.0.0.1", "", false), pod("web", "node-1", nil))
		c.evictions(func(string) error { t.Error("its kubelet ends no pod, and was asked to"); return nil })
		begun := time.Now()
		if err := c.removeNodes(t.Context()); err != nil || time.Since(begun) != 0 || len(c.nodes()) != 0 {
			t.Errorf("after %v: %v, nodes %v", time.Since(begun), err, c.nodes())
		}
	})
}

func TestANodeThatCannotBeRemovedIsAnErrorThatNamesIt(t *testing.T) {
	c := newCluster(t, Desired{Nodes: []string{}}, node("node-1", "10.0.0.1", "", false))
	c.api.PrependReactor("delete", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil,
			errors.New("etcd is full")
	})
	if err := c.removeNodes(t.Context()); err == nil || !strings.Contains(err.Error(), "node-1: etcd is full") {
		t.Errorf("got %v, want an error for the next round", err)
	}
}

func service(name string, change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer,
			Ports: []corev1.ServicePort{{Port: 80, NodePort: 31234}}}}
	if change != nil {
		change(s)
	}
	return s
}

func (c *cluster) service(name string) *corev1.Service {
	s, err := c.api.CoreV1().Services("default").Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

func TestServicesAreToldWhereTheyAreReached(t *testing.T) {
	had := func(s *corev1.Service) {
		s.Annotations = map[string]string{publishedAnnotation: `{"80":"192.0.2.1:1"}`}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.18.0.99",
			IPMode: new(corev1.LoadBalancerIPModeVIP)}}
	}
	other := service("theirs", func(s *corev1.Service) { s.Spec.LoadBalancerClass = new("elsewhere.example/lb"); had(s) })
	c := newCluster(t, Desired{LoadBalancers: []Balancer{{Namespace: "default", Name: "web",
		Ingress:   []netip.Addr{netip.MustParseAddr("198.18.0.7")},
		Published: map[string]string{"80": "192.0.2.1:20001"}}}}, service("web", nil), service("gone", had), other)
	if err := c.balance(t.Context()); err != nil {
		t.Fatal(err)
	}
	web := c.service("web")
	if in := web.Status.LoadBalancer.Ingress; len(in) != 1 || in[0].IP != "198.18.0.7" ||
		*in[0].IPMode != corev1.LoadBalancerIPModeVIP {
		t.Errorf("web: got %+v, want its VIP", in)
	}
	if got := web.Annotations[publishedAnnotation]; got != `{"80":"192.0.2.1:20001"}` {
		t.Errorf("web: published %q", got)
	}
	if gone := c.service("gone"); len(gone.Status.LoadBalancer.Ingress) != 0 ||
		gone.Annotations[publishedAnnotation] != "" {
		t.Errorf("one that nothing is desired for keeps %+v, %v", gone.Status.LoadBalancer.Ingress, gone.Annotations)
	}
	if theirs := c.service("theirs"); len(theirs.Status.LoadBalancer.Ingress) != 1 {
		t.Errorf("a Service of another class was changed: %+v", theirs)
	}
	c.see(web)
	c.api.ClearActions()
	if err := c.balance(t.Context()); err != nil ||
		slices.ContainsFunc(c.api.Actions(), func(a clienttesting.Action) bool {
			p, ok := a.(clienttesting.PatchAction)
			return ok && p.GetName() == "web"
		}) {
		t.Errorf("what is right already is written again: %v, %v", c.api.Actions(), err)
	}
}

func TestWithoutAWordFromTheDatacenterNoServiceIsChanged(t *testing.T) {
	c := newCluster(t, Desired{Nodes: []string{"node-1"}}, service("web", func(s *corev1.Service) {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.18.0.7"}}
		s.Spec.AllocateLoadBalancerNodePorts, s.Spec.Ports[0].NodePort = new(false), 0
	}))
	for range 3 {
		if err := c.balance(t.Context()); err != nil || len(c.service("web").Status.LoadBalancer.Ingress) != 1 {
			t.Errorf("got %v, and it lost its address", err)
		}
	}
	if n := len(c.events.Events); n != 1 || !strings.Contains(<-c.events.Events, "NeedsNodePorts") {
		t.Errorf("%d events about its node ports, want one", n)
	}
}

func TestAFirstPodIsRunOnceAndTakenAway(t *testing.T) {
	bundle := t.TempDir()
	archive(t, bundle, "pause.tar", "docker.io/marinaos/pause:v1")
	c := newCluster(t, Desired{})
	c.cfg.Addons = bundle
	says := func(want string) {
		t.Helper()
		c.board.mu.Lock()
		defer c.board.mu.Unlock()
		if got := c.board.probe; !strings.Contains(got, want) {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	round := func() {
		t.Helper()
		if err := c.probe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	pods := c.api.CoreV1().Pods(metav1.NamespaceSystem)
	round()
	says("no node is ready")
	c.see(node("node-1", "10.0.0.1", "", true))
	round()
	made, err := pods.Get(t.Context(), probeName, metav1.GetOptions{})
	if err != nil || made.Spec.Containers[0].Image != "docker.io/marinaos/pause:v1" {
		t.Fatalf("got %+v, %v, want a pod of the bundle's image", made, err)
	}
	says("the pod was made")
	c.see(made)
	round()
	says("the pod is starting")
	made.Status.Phase = corev1.PodFailed
	round()
	says("is made again")
	if _, err := pods.Get(t.Context(), probeName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the failed pod is there: %v", err)
	}
	made.Status.Phase = corev1.PodRunning
	round()
	if !c.state.probed() {
		t.Error("it ran, and nobody remembers")
	}
	if _, err := pods.Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	round()
	if _, err := pods.Get(t.Context(), probeName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod stays: %v", err)
	}
	if again, err := readState(c.state.path); err != nil || !again.probed() {
		t.Errorf("after a restart it is forgotten: %v", err)
	}
}

func claim(name, node string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name,
		ResourceVersion: "7",
		Annotations:     map[string]string{claimProvisioner: provisioner, claimSelectedNode: node}},
		Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: new("local"),
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
}

func TestAClaimThatItsNodeCannotServeIsScheduledAnew(t *testing.T) {
	c := newCluster(t, Desired{}, claim("gone", "node-9"), claim("elsewhere", "node-1"),
		node("node-1", "10.0.0.1", "", true))
	theirs := claim("theirs", "node-9")
	theirs.Annotations[claimProvisioner] = "elsewhere.example/disk"
	c.see(theirs)
	if err := c.seen.claims.Delete(claim("elsewhere", "node-1")); err != nil {
		t.Fatal(err)
	}
	if err := c.provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := c.api.CoreV1().PersistentVolumeClaims("default").Get(t.Context(), "gone", metav1.GetOptions{})
	if err != nil || got.Annotations[claimSelectedNode] != "" {
		t.Errorf("got %v, %v, want that no node is selected", got.Annotations, err)
	}
	if e := <-c.events.Events; !strings.Contains(e, `node "node-9" does not exist`) {
		t.Errorf("its event says %q", e)
	}
	if n := len(c.events.Events); n != 0 {
		t.Errorf("%d events of another's claim", n)
	}
}

func volume(name, node string, phase corev1.PersistentVolumePhase,
	policy corev1.PersistentVolumeReclaimPolicy) *corev1.PersistentVolume {
	v := volumeFor(name, claim(name, node), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node,
		Labels: map[string]string{corev1.LabelHostname: node}}}, storage("local"))
	v.Spec.PersistentVolumeReclaimPolicy, v.Status.Phase, v.ResourceVersion = policy, phase, "7"
	return v
}

func TestVolumesThatNobodyClaimsAreRemoved(t *testing.T) {
	now := metav1.Now()
	deleting := volume("deleting", "gone", corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete)
	deleting.DeletionTimestamp = &now
	bound := volume("bound", "gone", corev1.VolumeBound, corev1.PersistentVolumeReclaimDelete)
	bound.DeletionTimestamp = &now
	c := newCluster(t, Desired{}, volume("released", "node-1", corev1.VolumeReleased,
		corev1.PersistentVolumeReclaimDelete),
		volume("kept", "node-1", corev1.VolumeReleased, corev1.PersistentVolumeReclaimRetain), deleting, bound)
	if err := c.provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := map[string][]string{}
	list, err := c.api.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list.Items {
		left[v.Name] = v.Finalizers
	}
	if _, there := left["released"]; there {
		t.Error("a released volume is not deleted")
	}
	if len(left["kept"]) != 1 {
		t.Error("a volume that is to be kept is not")
	}
	if len(left["deleting"]) != 0 {
		t.Errorf("a volume whose node is gone waits for its directory: %v", left["deleting"])
	}
	if len(left["bound"]) != 1 {
		t.Error("a volume in use loses its finalizer")
	}
}

// What fails is tried again with growing pauses, and at once when something changes.
func TestARoundIsRepeatedAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Desired{})
		ctx, cancel := context.WithCancel(t.Context())
		bell, begun := newBell(), time.Now()
		var at []time.Duration
		fail := true
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.loop(ctx, "test", bell, 0, func(context.Context) error {
				at = append(at, time.Since(begun))
				if fail {
					return errors.New("no")
				}
				return nil
			})
		}()
		time.Sleep(10 * time.Second)
		if want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("rounds at %v, want %v", at, want)
		}
		fail = false
		bell.ring()
		synctest.Wait()
		if n := len(at); n != 5 || at[4] != 10*time.Second {
			t.Errorf("after the bell: rounds at %v", at)
		}
		time.Sleep(time.Hour)
		if len(at) != 5 {
			t.Errorf("after a success: rounds at %v, want none without a bell", at)
		}
		cancel()
		<-done
	})
}

func TestWhatIsWatchedIsTrimmedToWhatIsRead(t *testing.T) {
	long := strings.Repeat("x", 1000)
	p := pod("web", "node-1", func(p *corev1.Pod) {
		p.Annotations = map[string]string{"a": long}
		p.Labels = map[string]string{"l": long}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: long}}
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: long},
			{Kind: "DaemonSet", Name: long, Controller: new(true)}}
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init"},
			{Name: "second", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull",
				Message: long}}}}
	})
	got := trimPod(p).(*corev1.Pod)
	if text, err := got.Marshal(); err != nil || len(text) > 600 {
		t.Errorf("a pod is kept in %d bytes, %v", len(text), err)
	}
	if why := waitsFor(got); !strings.HasPrefix(why, "pod default/web: container second: ErrImagePull: xxx") {
		t.Errorf("why it waits: %q", why)
	}
	if got.OwnerReferences[0].Kind != "DaemonSet" || got.Spec.NodeName != "node-1" {
		t.Errorf("what is read of it is gone: %+v", got)
	}
	n := trimNode(node("a", "10.0.0.1", "", true)).(*corev1.Node)
	if told := look([]*corev1.Node{n}, nil, nil, nil).Nodes[0]; told.Mem != 1<<30 || told.MilliCPU != 250 {
		t.Errorf("a node's size: got %+v, want it as the kubelet tells it", told)
	}
	gone := cache.DeletedFinalStateUnknown{Key: "default/web"}
	for what, trim := range map[string]func(any) any{"node": trimNode, "pod": trimPod, "service": trimService,
		"slice": trimSlice,
		"claim": trimClaim, "volume": trimVolume} {
		if trim(gone) != any(gone) {
			t.Errorf("%s: a deletion that the watch missed is lost", what)
		}
	}
	s := service("web", func(s *corev1.Service) { s.Annotations = map[string]string{"a": long, publishedAnnotation: "p"} })
	if got := trimService(s).(*corev1.Service).Annotations; len(got) != 1 || got[publishedAnnotation] != "p" {
		t.Errorf("a Service's annotations: got %v", got)
	}
}

func storage(name string) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func TestWhatTheControlPlaneSuffersFromIsTold(t *testing.T) {
	c := newCluster(t, Desired{})
	problem := ""
	c.deps.Problem = func() string { return problem }
	told := func() string {
		t.Helper()
		if err := c.publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, doc, _ := c.board.current()
		var s Status
		if err := json.Unmarshal(doc, &s); err != nil {
			t.Fatal(err)
		}
		return s.Problem
	}
	if got := told(); got != "" {
		t.Errorf("got %q of nothing", got)
	}
	problem = "etcd uses more than 70 % of its 512 MiB"
	if got := told(); got != problem {
		t.Errorf("got %q", got)
	}
	if problem = strings.Repeat("long ", 1000); len(told()) > maxSentence {
		t.Error("a problem of any length is told")
	}
	if problem = ""; told() != "" {
		t.Error("a problem that is over is told")
	}
}
