package clusters

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marinaos/marina/test/testbed"
)

// TestAnUpgradeFromTheLastReleaseRestartsNoNodeAndNoPod makes a cluster with the last release's program and replaces
// that by today's. The programs in the cluster are today's from the beginning: members keep theirs until they are made
// anew.
func TestAnUpgradeFromTheLastReleaseRestartsNoNodeAndNoPod(t *testing.T) {
	w := *built(t)
	newer := w.Marina
	last, err := w.Release()
	if errors.Is(err, testbed.ErrNoHistory) {
		t.Skipf("NOT CHECKED, the upgrade: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Marina = last
	h, err := w.Open()
	if err != nil {
		t.Fatal(err)
	}
	h.CloseAfter(t)
	x := &world{Datacenter: h}
	if x.dc, err = h.Client(); err != nil {
		t.Fatal(err)
	}
	c := &hosted{world: x, name: "kept", minor: minors(&w)[0]}
	if err := failed(x.create(c.name, "--version", c.minor, "--nodes", "1")); err != nil {
		t.Fatal(err)
	}
	x.ready(t, c.name, readyLimit)
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	members, pods := c.processes(t), c.starts(t)

	h.Become(t, newer)
	w.Marina = newer
	x.ready(t, c.name, readyLimit)
	if now := c.processes(t); !maps.Equal(now, members) {
		t.Errorf("after the upgrade the first processes of members are %v, were %v", now, members)
	}
	if err := c.connect(); err != nil { // with a kubeconfig that today's program makes
		t.Fatal(err)
	}
	if now := c.starts(t); !maps.Equal(now, pods) {
		t.Errorf("after the upgrade pods are %v, were %v", now, pods)
	}
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "later"}}
	if _, err := c.kube.CoreV1().ConfigMaps("default").Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
		t.Errorf("an object after the upgrade: %v", err)
	}
	x.Must(t, "cluster", "scale", c.name, "2")
	testbed.Eventually(t, readyLimit, pace, "a second node", func() error {
		nodes, err := c.kube.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if err == nil && len(nodes.Items) != 2 {
			err = fmt.Errorf("there are %d nodes", len(nodes.Items))
		}
		return err
	})
	for name, pid := range members {
		if now := c.processes(t)[name]; now != pid {
			t.Errorf("after scaling, the first process of %s is %d, was %d", name, now, pid)
		}
	}
}

// processes are the first processes of a cluster's members, by name.
func (c *hosted) processes(t testing.TB) map[string]int {
	t.Helper()
	v, err := c.look(c.name)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, m := range v.Members {
		if pid, err := c.process(m.Address); err == nil {
			out[m.Name] = pid
		}
	}
	if len(out) < 2 {
		t.Fatalf("the processes of %+v: found %v", v.Members, out)
	}
	return out
}

// starts are when the containers of all pods started that are ready, by pod, unique id and container.
func (c *hosted) starts(t testing.TB) map[string]string {
	t.Helper()
	pods, err := c.kube.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, p := range pods.Items {
		for _, s := range p.Status.ContainerStatuses {
			if s.State.Running != nil {
				id := fmt.Sprintf("%s/%s %s %s", p.Namespace, p.Name, p.UID, s.Name)
				out[id] = fmt.Sprintf("%s, %d restarts", s.State.Running.StartedAt, s.RestartCount)
			}
		}
	}
	if len(out) == 0 {
		t.Fatal("no container of a pod runs")
	}
	return out
}
