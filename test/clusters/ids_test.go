package clusters

import (
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWithoutUserNamespacesPodsRunAndPrivilegedOnesAreRefused(t *testing.T) {
	t.Parallel()
	x := enter(t)
	h, err := x.Open("--no-user-namespaces")
	if err != nil {
		t.Fatal(err)
	}
	h.CloseAfter(t)
	y := &world{Datacenter: h, one: x.one, two: x.two, archive: x.archive}
	if y.dc, err = h.Client(); err != nil {
		t.Fatal(err)
	}
	c := y.third(t, "bare")
	y.ready(t, c.name, 2*time.Minute)
	y.says(t, c.name, "no user namespaces", "privileged pods are refused")
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "image", "load", y.archive, "--cluster", c.name)
	s := c.space(t)
	s.start(t, prober("plain"))
	if ids := s.ask(t, "plain", "cat", "/proc/self/uid_map"); strings.Fields(ids)[1] != "0" {
		t.Errorf("the pod has ids of its own: %s; this test is of nothing", ids)
	}
	_, err = s.kube.CoreV1().Pods(s.ns).Create(t.Context(), prober("root", asRoot), metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "privileged") {
		t.Errorf("a privileged pod: %v, want it forbidden and why", err)
	}
	if got := s.ask(t, "plain", "power"); strings.Count(got, "refused") != len(strings.Split(strings.TrimSpace(got), "\n")) {
		t.Errorf("a plain pod: %s", got)
	}
}
