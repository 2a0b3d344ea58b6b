package steward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	balancerClass       = "marina.io/vip"
	publishedAnnotation = "marina.io/published" // JSON: port to HOST:PORT
)

// ours says whether a Service is for the datacenter to give an address to.
func ours(svc *corev1.Service) bool {
	class := svc.Spec.LoadBalancerClass
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && (class == nil || *class == balancerClass)
}

// balance is a round of the loop of load balancers: it writes into Services what is desired for them.
func (s *Steward) balance(ctx context.Context) error {
	desired := map[string]Balancer{}
	list := s.state.desired().LoadBalancers
	for _, b := range list {
		desired[b.Namespace+"/"+b.Name] = b
	}
	var errs []error
	for _, svc := range each[corev1.Service](s.seen.services) {
		if !ours(svc) || svc.DeletionTimestamp != nil {
			continue
		}
		s.wantNodePorts(svc)
		if list == nil { // nothing was said yet
			continue
		}
		if err := s.setBalancer(ctx, svc, desired[svc.Namespace+"/"+svc.Name]); err != nil {
			errs = append(errs, fmt.Errorf("service %s/%s: %w", svc.Namespace, svc.Name, err))
		}
	}
	return errors.Join(errs...)
}

// wantNodePorts says once to whoever made a Service without node ports that the datacenter forwards to those.
func (s *Steward) wantNodePorts(svc *corev1.Service) {
	a := svc.Spec.AllocateLoadBalancerNodePorts
	if a == nil || *a || len(request(svc).Ports) == len(svc.Spec.Ports) || s.told[string(svc.UID)] {
		return
	}
	if len(s.told) >= maxBalancers {
		clear(s.told)
	}
	s.told[string(svc.UID)] = true
	s.events.Event(svc, corev1.EventTypeWarning, "NeedsNodePorts",
		"the load balancer forwards to node ports: "+
			"leave spec.allocateLoadBalancerNodePorts at true, or give each port a nodePort")
}

// setBalancer writes status.loadBalancer and the annotation. The addresses are of mode VIP: inside the cluster
// kube-proxy sends what is meant for them to the Service's pods at once, as users of a Service expect; the way out to
// the datacenter and back would work no better and cost every node a detour.
func (s *Steward) setBalancer(ctx context.Context, svc *corev1.Service, b Balancer) error {
	want := []corev1.LoadBalancerIngress{}
	for _, a := range b.Ingress {
		want = append(want, corev1.LoadBalancerIngress{IP: a.String(), IPMode: new(corev1.LoadBalancerIPModeVIP)})
	}
	var published any // null takes the annotation away
	if len(b.Published) > 0 {
		text, err := json.Marshal(b.Published)
		if err != nil {
			return err
		}
		published = string(text)
	}
	if have, has := svc.Annotations[publishedAnnotation]; has != (published != nil) || has && have != published {
		patch := map[string]any{"metadata": map[string]any{"annotations": map[string]any{publishedAnnotation: published}}}
		if err := s.patchService(ctx, svc, patch); err != nil {
			return err
		}
	}
	have := svc.Status.LoadBalancer.Ingress
	if len(have) == 0 && len(want) == 0 || reflect.DeepEqual(have, want) {
		return nil
	}
	patch := map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": want}}}
	return s.patchService(ctx, svc, patch, "status")
}

func (s *Steward) patchService(ctx context.Context, svc *corev1.Service, patch map[string]any, sub ...string) error {
	b, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = s.client.CoreV1().Services(svc.Namespace).Patch(ctx, svc.Name, types.MergePatchType, b,
		metav1.PatchOptions{FieldManager: fieldManager}, sub...)
	return ignoreGone(err)
}
