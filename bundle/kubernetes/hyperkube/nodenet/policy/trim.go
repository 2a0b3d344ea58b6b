package policy

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mirrorAnnotation has the UID that the kubelet knows a static pod by; the API's is another.
const mirrorAnnotation = corev1.MirrorPodAnnotationKey

// Trim is an informer's transform: it keeps of pods, namespaces, nodes and policies what a node's network needs, which
// is a small part of what the API sends. It changes nothing in obj.
func Trim(obj any) (any, error) {
	switch o := obj.(type) {
	case *corev1.Pod:
		return trimPod(o), nil
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: trimMeta(&o.ObjectMeta)}, nil
	case *corev1.Node:
		n := &corev1.Node{ObjectMeta: trimMeta(&o.ObjectMeta)}
		n.Labels = nil
		n.Spec.PodCIDR = o.Spec.PodCIDR
		n.Spec.PodCIDRs = o.Spec.PodCIDRs
		for _, a := range o.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				n.Status.Addresses = append(n.Status.Addresses, a)
			}
		}
		return n, nil
	case *networkingv1.NetworkPolicy:
		return &networkingv1.NetworkPolicy{ObjectMeta: trimMeta(&o.ObjectMeta), Spec: o.Spec}, nil
	}
	return obj, nil
}

func trimMeta(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Labels: m.Labels}
}

func trimPod(o *corev1.Pod) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: trimMeta(&o.ObjectMeta)}
	if uid, ok := o.Annotations[mirrorAnnotation]; ok {
		p.Annotations = map[string]string{mirrorAnnotation: uid}
	}
	p.Spec.NodeName = o.Spec.NodeName
	p.Spec.HostNetwork = o.Spec.HostNetwork
	p.Status.Phase = o.Status.Phase
	p.Status.PodIP = o.Status.PodIP
	p.Status.PodIPs = slices.Clone(o.Status.PodIPs)
	var ports []corev1.ContainerPort
	for _, containers := range [][]corev1.Container{o.Spec.Containers, o.Spec.InitContainers} {
		for _, c := range containers {
			for _, port := range c.Ports {
				if port.Name != "" {
					ports = append(ports, corev1.ContainerPort{Name: port.Name, Protocol: port.Protocol, ContainerPort: port.ContainerPort})
				}
			}
		}
	}
	if len(ports) > 0 {
		p.Spec.Containers = []corev1.Container{{Ports: ports}}
	}
	return p
}

// same says whether two versions of a pod mean the same to the rules: the kubelet writes many that do.
func same(a, b *corev1.Pod) bool {
	return a.UID == b.UID && a.Spec.NodeName == b.Spec.NodeName && finished(a) == finished(b) &&
		a.Status.PodIP == b.Status.PodIP && slices.Equal(a.Status.PodIPs, b.Status.PodIPs) && maps.Equal(a.Labels, b.Labels)
}

// finished pods have ended for good; their address may be another's already.
func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// apiAddresses are the pod's IPv4 addresses by the API.
func apiAddresses(p *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, ip := range append([]corev1.PodIP{{IP: p.Status.PodIP}}, p.Status.PodIPs...) {
		if a, err := netip.ParseAddr(ip.IP); err == nil && a.Is4() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func namedPorts(p *corev1.Pod) []NamedPort {
	var out []NamedPort
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			protocol := port.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			out = append(out, NamedPort{Name: port.Name, Protocol: protocol, Port: port.ContainerPort})
		}
	}
	return out
}
