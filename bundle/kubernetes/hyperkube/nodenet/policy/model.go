package policy

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Pod is the part of a pod that rules depend on.
type Pod struct {
	Namespace, Name string
	// UID tells a pod from one of the same name before it.
	UID    string
	Labels map[string]string
	// Addresses are the pod's IPv4 addresses: those the gate was told of, and the one in the API. Pods without an address,
	// in the node's own network, or at their end are not given to Compile with addresses.
	Addresses []netip.Addr
	// Local is true for pods of this node, the only ones that are isolated here.
	Local bool
	Ports []NamedPort
}

// NamedPort is a port of a container that has a name.
type NamedPort struct {
	Name     string
	Protocol corev1.Protocol
	Port     int32
}

// Input is everything that Compile reads. Compile changes nothing in it.
type Input struct {
	Policies []*networkingv1.NetworkPolicy
	// Namespaces has each namespace's labels.
	Namespaces map[string]map[string]string
	Pods       []Pod
	// Epoch is part of all names, so that two writings do not meet.
	Epoch string
}

// SetKind is the type of a set's elements.
type SetKind int

const (
	// Addresses of pods: single IPv4 addresses that come and go.
	Addresses SetKind = iota
	// Ranges of ipBlocks: "a.b.c.d-e.f.g.h", never changed.
	Ranges
	// Ports with names: "address . protocol . port".
	Ports
)

// Set is a named set of the table. Elements are unique; Key joins an element's parts by " . ".
type Set struct {
	Kind     SetKind
	Elements map[string]bool
}

// Rules are the table's contents besides its fixed chains.
type Rules struct {
	Sets map[string]*Set
	// Chains has each chain's rules in order. They only ever return, which lets the packet pass, and end with a refusal,
	// which the writer adds.
	Chains map[string][]string
	// Ingress and Egress have the chain of each isolated address.
	Ingress, Egress map[netip.Addr]string
}

func newRules() *Rules {
	return &Rules{Sets: map[string]*Set{}, Chains: map[string][]string{}, Ingress: map[netip.Addr]string{}, Egress: map[netip.Addr]string{}}
}
