package clusters

import (
	"errors"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marinaos/marina/test/testbed"
)

// same fails if a pod is another one than it was, or was started again.
func (s *space) same(t testing.TB, was *corev1.Pod) {
	t.Helper()
	now := s.podReady(t, was.Name)
	if now.UID != was.UID || now.Status.ContainerStatuses[0].RestartCount != was.Status.ContainerStatuses[0].RestartCount ||
		!now.Status.ContainerStatuses[0].State.Running.StartedAt.Equal(&was.Status.ContainerStatuses[0].State.Running.StartedAt) {
		t.Errorf("%s: pod %s was %s, restarted %d times, started at %v; it is %s, restarted %d times, started at %v", s.name, was.Name,
			was.UID, was.Status.ContainerStatuses[0].RestartCount, was.Status.ContainerStatuses[0].State.Running.StartedAt,
			now.UID, now.Status.ContainerStatuses[0].RestartCount, now.Status.ContainerStatuses[0].State.Running.StartedAt)
	}
}

func TestANodeIsResizedAndItsPodsGoOn(t *testing.T) {
	x := enter(t)
	c := x.two
	s := c.space(t)
	s.start(t, prober("pod"))
	was := s.podReady(t, "pod")
	size := func(milli, mib int64) {
		t.Helper()
		x.Must(t, "cluster", "resize", c.name, "--cpus", fmt.Sprint(float64(milli)/1000), "--mem", fmt.Sprint(mib))
		testbed.Eventually(t, settleLimit, pace, "the node's new size", func() error {
			n, err := c.kube.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if cpu, mem := n.Status.Allocatable.Cpu().MilliValue(), n.Status.Capacity.Memory().Value()>>20; cpu != milli || mem != mib {
				return fmt.Errorf("it has %dm cpus to give and %d MiB, want %d and %d", cpu, mem, milli, mib)
			}
			return nil
		})
		x.ready(t, c.name, settleLimit)
		s.same(t, was)
	}
	size(350, 1280)
	size(250, 1024)
}

func TestAClusterGrowsAndShrinksAndItsPodsMove(t *testing.T) {
	x := enter(t)
	c := x.two
	s := c.space(t)
	before := c.address(t, "node-1")
	x.Must(t, "cluster", "scale", c.name, "2", "--wait", "--timeout", readyLimit.String())
	labels := map[string]string{"app": "web"}
	pod := prober("web", func(p *corev1.Pod) { // node-2 if there is one
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
			Weight: 100, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"node-2"}}}}}}}}
	})
	if _, err := s.kube.AppsV1().Deployments(s.ns).Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Replicas: new(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	runsOn := func(node string) error {
		pods, err := s.kube.CoreV1().Pods(s.ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if p.DeletionTimestamp == nil && p.Spec.NodeName == node && p.Status.Phase == corev1.PodRunning {
				return nil
			}
		}
		return fmt.Errorf("no pod runs on %s", node)
	}
	testbed.Eventually(t, settleLimit, pace, "the pod on node-2", func() error { return runsOn("node-2") })
	x.Must(t, "cluster", "scale", c.name, "1", "--wait", "--timeout", readyLimit.String())
	testbed.Eventually(t, settleLimit, pace, "the pod on node-1", func() error { return runsOn("node-1") })
	if _, err := c.kube.CoreV1().Nodes().Get(t.Context(), "node-2", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("node-2 after scaling to one node: %v, want not found", err)
	}
	testbed.Eventually(t, settleLimit, pace, "the volume of node-2 to go", func() error {
		if v, err := x.look(c.name); err != nil || len(v.Members) != 2 {
			return errors.Join(err, fmt.Errorf("members %+v", v.Members))
		}
		return gone(x.volume(c.name, "node-2"))
	})
	if now := c.address(t, "node-1"); now != before {
		t.Errorf("node-1 was at %s and is at %s", before, now)
	}
}
