package steward

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"
)

// directories stands in for the tunnel of a node, where volumes have their directories.
type directories struct {
	mu   sync.Mutex
	has  []string // guarded by mu
	fail string   // why nothing is done; guarded by mu
}

func (d *directories) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/v1/volumes/")
	switch {
	case d.fail != "":
		http.Error(w, d.fail, http.StatusInsufficientStorage)
	case r.Method == http.MethodPost:
		d.has = append(d.has, name)
		w.WriteHeader(http.StatusCreated)
	case slices.Contains(d.has, name):
		d.has = slices.DeleteFunc(d.has, func(n string) bool { return n == name })
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

// withNode is a cluster whose only node has a tunnel.
func withNode(t *testing.T, objects ...runtime.Object) (*cluster, *directories) {
	t.Helper()
	d := &directories{}
	c := newCluster(t, Desired{}, append(objects, node("node-1", "127.0.0.1", "", true), storage("local"))...)
	c.deps = *testPKI(t, map[string]string{"steward": "marina:steward", "node": nodenetName + "node-1"})
	c.tunnel = &tunnel{deps: &c.deps, port: serveTLS(t, &c.deps, "node", d)}
	return c, d
}

func TestAClaimGetsADirectoryOnItsNode(t *testing.T) {
	wants := claim("data", "node-1")
	wants.UID = "1234"
	c, d := withNode(t, wants)
	d.fail = "no space left"
	if err := c.provision(t.Context()); err == nil || !strings.Contains(err.Error(), "default/data: directory on node node-1: 507") {
		t.Errorf("got %v, want which claim and why, for another round", err)
	}
	if e := <-c.events.Events; !strings.Contains(e, "ProvisioningFailed") || !strings.Contains(e, "no space left") {
		t.Errorf("its event says %q", e)
	}
	if list, err := c.api.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("without a directory there are volumes: %v, %v", list.Items, err)
	}
	d.fail = ""
	for range 2 { // the second time it is there already, and was not seen yet
		if err := c.provision(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	v, err := c.api.CoreV1().PersistentVolumes().Get(t.Context(), "pvc-1234", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if v.Spec.Local.Path != volumesDir+"pvc-1234" || v.Spec.ClaimRef.Name != "data" || !slices.Contains(v.Finalizers, volumeFinalizer) ||
		v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0] != "node-1" {
		t.Errorf("got %+v", v.Spec)
	}
	if n := len(c.events.Events); n != 1 || !strings.Contains(<-c.events.Events, "ProvisioningSucceeded") {
		t.Errorf("%d events, want one that it was made", n)
	}
	if d.has[0] != "pvc-1234" {
		t.Errorf("directories: got %v", d.has)
	}
	// It is released, deleted and its directory with it, in rounds.
	now := metav1.Now()
	v.Status.Phase, v.DeletionTimestamp, v.ResourceVersion = corev1.VolumeReleased, &now, "7"
	c.see(v)
	if err := c.seen.claims.Delete(wants); err != nil {
		t.Fatal(err)
	}
	d.fail = "busy"
	if err := c.provision(t.Context()); err == nil || !strings.Contains(err.Error(), "volume pvc-1234: directory on node node-1") {
		t.Errorf("a directory that stays: got %v", err)
	}
	if e := <-c.events.Events; !strings.Contains(e, "VolumeFailedDelete") {
		t.Errorf("its event says %q", e)
	}
	d.fail = ""
	d.has = nil // somebody removed it by hand
	if err := c.provision(t.Context()); err != nil {
		t.Errorf("a directory that is gone: %v", err)
	}
	if v, err := c.api.CoreV1().PersistentVolumes().Get(t.Context(), "pvc-1234", metav1.GetOptions{}); err != nil || len(v.Finalizers) != 0 {
		t.Errorf("after its directory is gone it waits for %v, %v", v.Finalizers, err)
	}
}

// Between what was seen and what is done, others write too.
func TestRacesWithOthersAreNoErrors(t *testing.T) {
	released := volume("released", "node-1", corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete)
	moved := claim("moved", "node-9")
	c, _ := withNode(t, moved, released)
	conflict := func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "x"}, "x", errors.New("another resourceVersion"))
	}
	c.api.PrependReactor("patch", "persistentvolumeclaims", conflict)
	c.api.PrependReactor("delete", "persistentvolumes", conflict)
	if err := c.provision(t.Context()); err != nil {
		t.Errorf("volumes: got %v, want that the next word of the watch decides", err)
	}
	c.see(node("node-2", "10.0.0.2", "", false))
	if err := c.state.setDesired(Desired{Nodes: []string{"node-1"}, LoadBalancers: []Balancer{}}); err != nil {
		t.Fatal(err)
	}
	if err := c.removeNodes(t.Context()); err != nil { // the API has no such node any more
		t.Errorf("a node that is gone already: %v", err)
	}
	c.see(service("gone", func(s *corev1.Service) { s.Annotations = map[string]string{publishedAnnotation: "x"} }))
	if err := c.balance(t.Context()); err != nil {
		t.Errorf("a Service that is gone already: %v", err)
	}
	c.api.PrependReactor("patch", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("etcd is full")
	})
	if err := c.balance(t.Context()); err == nil || !strings.Contains(err.Error(), "service default/gone: etcd is full") {
		t.Errorf("what is refused: got %v, want which Service and why", err)
	}
}

func TestClaimsThatAskForMoreThanADirectoryAreRefused(t *testing.T) {
	n := node("a", "10.128.0.7", "", true)
	for what, c := range map[string]struct {
		change func(*corev1.PersistentVolumeClaimSpec)
		says   string
	}{
		"a copy of another": {func(s *corev1.PersistentVolumeClaimSpec) { s.DataSource = &corev1.TypedLocalObjectReference{} }, "dataSource"},
		"a copy elsewhere":  {func(s *corev1.PersistentVolumeClaimSpec) { s.DataSourceRef = &corev1.TypedObjectReference{} }, "dataSource"},
		"one that it knows": {func(s *corev1.PersistentVolumeClaimSpec) { s.Selector = &metav1.LabelSelector{} }, "selector"},
	} {
		wants := claim("data", "a")
		c.change(&wants.Spec)
		if err := fits(wants, n); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", what, err, c.says)
		}
	}
	nameless := node("a", "10.128.0.7", "", true)
	nameless.Labels = nil
	if i := (*impossible)(nil); !errors.As(fits(claim("data", "a"), nameless), &i) || !i.reschedule {
		t.Errorf("a node without a name: got %+v, want another node", i)
	}
	if (&impossible{reason: "no"}).Error() != "no" {
		t.Error("the reason is lost")
	}
}
