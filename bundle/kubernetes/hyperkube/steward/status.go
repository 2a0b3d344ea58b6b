package steward

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/marinaos/marina/internal/kubernetes/wire"
)

const (
	maxWaiting  = 10  // sentences
	maxSentence = 300 // bytes
)

// What the cluster says of itself; GET /v1/status.
type (
	Status          = wire.Status
	AddonsStatus    = wire.AddonsStatus
	NodeStatus      = wire.NodeStatus
	PodsStatus      = wire.PodsStatus
	ProbeStatus     = wire.ProbeStatus
	BalancerRequest = wire.BalancerRequest
	BalancerPort    = wire.BalancerPort
)

// look makes the part of the status that is seen in the cluster.
func look(nodes []*corev1.Node, pods []*corev1.Pod, services []*corev1.Service,
	dns []*discoveryv1.EndpointSlice) Status {
	s := Status{Nodes: []NodeStatus{}, LoadBalancers: []BalancerRequest{}, Waiting: []string{}}
	on := map[string]int{}
	for _, p := range pods {
		switch p.Status.Phase {
		case corev1.PodRunning:
			s.Pods.Running++
		case corev1.PodPending:
			s.Pods.Pending++
			if why := waitsFor(p); why != "" {
				s.Waiting = append(s.Waiting, why)
			}
		case corev1.PodFailed:
			s.Pods.Failed++
		}
		if p.Spec.NodeName != "" && !ended(p) {
			on[p.Spec.NodeName]++
		}
	}
	slices.Sort(s.Waiting)
	s.Waiting = s.Waiting[:min(len(s.Waiting), maxWaiting)]
	for _, n := range nodes {
		ready, message := nodeReady(n)
		s.Nodes = append(s.Nodes, NodeStatus{Name: n.Name, Ready: ready, Message: message,
			Version: n.Status.NodeInfo.KubeletVersion,
			Address: internalIP(n), PodCIDR: n.Spec.PodCIDR, Unschedulable: n.Spec.Unschedulable, Pods: on[n.Name],
			MilliCPU: n.Status.Allocatable.Cpu().MilliValue(), Mem: n.Status.Capacity.Memory().Value()})
	}
	slices.SortFunc(s.Nodes, func(a, b NodeStatus) int { return cmp.Compare(a.Name, b.Name) })
	for _, svc := range services {
		if ours(svc) && svc.DeletionTimestamp == nil {
			s.LoadBalancers = append(s.LoadBalancers, request(svc))
		}
	}
	slices.SortFunc(s.LoadBalancers, func(a, b BalancerRequest) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, d := range dns {
		for _, e := range d.Endpoints {
			s.DNS = s.DNS || e.Conditions.Ready == nil || *e.Conditions.Ready
		}
	}
	return s
}

func request(svc *corev1.Service) BalancerRequest {
	r := BalancerRequest{Namespace: svc.Namespace, Name: svc.Name, UID: string(svc.UID), Ports: []BalancerPort{}}
	for _, p := range svc.Spec.Ports {
		if p.NodePort != 0 {
			r.Ports = append(r.Ports, BalancerPort{Name: p.Name, Protocol: string(p.Protocol),
				Port: uint16(p.Port), NodePort: uint16(p.NodePort)}) // the API server checked that they are ports
		}
	}
	return r
}

// waitsFor says in a sentence why a pending pod does not run; empty if it says nothing.
func waitsFor(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Message != "" {
			return limit(fmt.Sprintf("pod %s/%s: %s", p.Namespace, p.Name, c.Message))
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			return limit(fmt.Sprintf("pod %s/%s: container %s: %s: %s", p.Namespace, p.Name, c.Name, w.Reason, w.Message))
		}
	}
	return ""
}

// limit makes one line of text, of bounded length.
func limit(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxSentence {
		text = strings.ToValidUTF8(text[:maxSentence-3], "") + "..."
	}
	return text
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func nodeReady(n *corev1.Node) (bool, string) {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if c.Status == corev1.ConditionTrue {
				return true, ""
			}
			return false, limit(c.Message)
		}
	}
	return false, "its kubelet has not reported yet"
}

func internalIP(n *corev1.Node) string {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	return ""
}
