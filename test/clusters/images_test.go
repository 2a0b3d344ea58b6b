package clusters

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAnImageIsInTheClusterItWasLoadedIntoAndOthersSayThatTheyMissIt(t *testing.T) {
	t.Parallel()
	x := enter(t)
	const name = "marina.test/own:1"
	archive, err := x.Image(name, "test/probe")
	if err != nil {
		t.Fatal(err)
	}
	own := func(p *corev1.Pod) { p.Spec.Containers[0].Image = name }
	with, without := x.one.space(t), x.two.space(t)
	if out := x.Must(t, "image", "load", archive, "--cluster", "one"); !strings.Contains(out, name) {
		t.Errorf("image load says %q, want the name %s in it", out, name)
	}
	pod := func() *corev1.Pod {
		p := prober("pod", own)
		p.Spec.Containers[0].Args = []string{"8080"}
		return p
	}
	with.start(t, pod())
	if _, err := without.kube.CoreV1().Pods(without.ns).Create(t.Context(), pod(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	x.says(t, "two", "pod "+without.ns+"/pod", name)
	if out := x.Must(t, "cluster", "show", "one"); strings.Contains(out, without.ns) {
		t.Errorf("cluster one says %s", out)
	}
	x.Must(t, "image", "load", archive, "--cluster", "two")
	without.podReady(t, "pod")
}
