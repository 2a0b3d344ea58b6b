package core

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Framework is the name under which clusters are the kernel's.
const Framework = "kubernetes"

// ControlPlane is the name of that member.
const ControlPlane = "control-plane"

// NodeName is the name of the n-th node, from 1.
func NodeName(n int) string { return fmt.Sprintf("node-%d", n) }

func nodeNumber(member string) (int, bool) {
	text, ok := strings.CutPrefix(member, "node-")
	n, err := strconv.Atoi(text)
	return n, ok && err == nil && n > 0 && NodeName(n) == member
}

// ReservationName is the name of a member's reservation, and the key under which it is launched: "team-a.node-1".
func ReservationName(cluster, member string) string { return cluster + "." + member }

// memberOf reads a reservation's name.
func memberOf(reservation string) (cluster, member string, ok bool) {
	return strings.Cut(reservation, ".")
}

// NodesOwner owns the instances of a cluster's nodes.
func NodesOwner(cluster string) string { return cluster + "/nodes" }

// owner owns the instances of a member.
func owner(cluster, member string) string {
	if member == ControlPlane {
		return cluster + "/" + ControlPlane
	}
	return NodesOwner(cluster)
}

// SecretRef is the reference by which an agent asks for a member's certificates.
func SecretRef(cluster, member string) string { return Framework + "/" + cluster + "/" + member }

// CutSecretRef reads what SecretRef wrote.
func CutSecretRef(ref string) (cluster, member string, ok bool) {
	parts := strings.Split(ref, "/")
	if len(parts) != 3 || parts[0] != Framework {
		return "", "", false
	}
	return parts[1], parts[2], true
}

// InstancePrefix begins the ids of a member's instances.
func InstancePrefix(cluster, member string) string {
	return Framework + "_" + cluster + "_" + member + ".instance-"
}

// MemberOf reads from an instance's id whose it is.
func MemberOf(id kernel.InstanceID) (cluster, member string, ok bool) {
	parts := strings.Split(string(id), "_")
	if len(parts) != 3 || parts[0] != Framework {
		return "", "", false
	}
	member, _, ok = strings.Cut(parts[2], ".instance-")
	return parts[1], member, ok
}
