package clusters

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marinaos/marina/test/testbed"
)

// lastNode is the name of a cluster's newest node.
func (c *hosted) lastNode(t testing.TB) string {
	t.Helper()
	v, err := c.look(c.name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("node-%d", *v.Nodes.Count)
}

func TestAServiceIsReachedByAddressByNameAndByNodePort(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, c *hosted) {
		s := c.space(t)
		s.start(t, prober("web", on("node-1")), prober("client", on(c.lastNode(t))))
		svc := s.service(t, "web", corev1.ServiceTypeNodePort)
		for _, host := range []string{svc.Spec.ClusterIP, "web", "web." + s.ns + ".svc.cluster.local"} {
			s.gets(t, "client", "http://"+host+"/", "web")
		}
		v, err := c.look(c.name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range v.Members[1:] {
			s.gets(t, "client", fmt.Sprintf("http://%s:%d/", m.Address, svc.Spec.Ports[0].NodePort), "web")
		}
		s.gets(t, "web", "http://"+svc.Spec.ClusterIP+"/", "web") // from itself
	})
}

func TestPodsOfDifferentNodesReachEachOtherByTheirOwnAddresses(t *testing.T) {
	t.Parallel()
	c := enter(t).one
	s := c.space(t)
	s.start(t, prober("a", on("node-1")), prober("b", on("node-2")))
	a, b := s.podReady(t, "a"), s.podReady(t, "b")
	if a.Spec.NodeName == b.Spec.NodeName {
		t.Fatalf("both pods are on %s", a.Spec.NodeName)
	}
	for _, way := range [][2]*corev1.Pod{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		url := "http://" + to.Status.PodIP + ":8080/"
		s.gets(t, from.Name, url, to.Name)
		if peer := s.ask(t, from.Name, "get", url+"peer"); !strings.HasPrefix(peer, from.Status.PodIP+":") {
			t.Errorf("%s is seen as %q, want its own address %s", from.Name, peer, from.Status.PodIP)
		}
		if n := len(s.ask(t, from.Name, "get", url+"large")); n != 1<<20 { // more than one packet's worth
			t.Errorf("%s gets %d bytes, want a MiB", from.Name, n)
		}
	}
}

func TestNetworkPoliciesHold(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, c *hosted) {
		s := c.space(t)
		friendly := func(p *corev1.Pod) { p.Labels["role"] = "friend" }
		s.start(t, prober("web", on("node-1")), prober("friend", friendly, on(c.lastNode(t))), prober("stranger", on(c.lastNode(t))), prober("near", on("node-1")))
		web := s.podReady(t, "web").Status.PodIP + ":8080"
		look := func(what string, want map[string]bool) {
			t.Helper()
			testbed.Eventually(t, settleLimit, pace, s.name+": "+what, func() error {
				for pod, open := range want {
					if got := s.reach(t, pod, web)[web]; got != open {
						return fmt.Errorf("%s reaches web: %v, want %v", pod, got, open)
					}
				}
				return nil
			})
		}
		apply := func(name string, spec networkingv1.NetworkPolicySpec) {
			t.Helper()
			if _, err := s.kube.NetworkingV1().NetworkPolicies(s.ns).Create(t.Context(), &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		look("no policy", map[string]bool{"friend": true, "stranger": true, "near": true})
		apply("deny", networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}})
		look("nothing may come in", map[string]bool{"friend": false, "stranger": false, "near": false})
		s.podReady(t, "web") // probes of the node are not asked
		apply("friends", networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "friend"}}}}}}})
		look("friends may come in", map[string]bool{"friend": true, "stranger": false, "near": false})
		apply("quiet", networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"role": "friend"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}})
		look("friends may not go out", map[string]bool{"friend": false, "stranger": false})
		if err := s.kube.NetworkingV1().NetworkPolicies(s.ns).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		look("no policy any more", map[string]bool{"friend": true, "stranger": true, "near": true})
	})
}
