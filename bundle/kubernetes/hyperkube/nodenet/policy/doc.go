// Package policy enforces NetworkPolicy on one node by rules in the kernel; docs/design/0002-networkpolicy.md has the
// reasons.
//
// Three parts follow one another. Compile is pure: policies, namespaces and pods come in, the wanted sets, chains and
// the two maps of isolated addresses go out. Writer brings the kernel's table netpol from what it wrote last to what is
// wanted, in transactions small enough for a user namespace. Engine feeds both from informers and from the gate, and is
// the only owner of what they hold.
//
// What makes it safe:
//
//   - Chains are named by their content and never changed. A policy that changes makes a new chain, the maps are pointed to
//     it, and the old one goes; so no packet ever meets half a chain.
//   - Sets of pods are named by what selects them, so a pod that comes or goes is one element, whatever refers to the set.
//   - The first writing takes names of its own (an epoch), stands beside what a process before left behind, and takes its
//     place by one small transaction that flips the maps. The same happens when a transaction fails.
//   - A pod does not start before its address stands in the maps: the CNI plugin "gate" asks for it over a socket. The address
//     comes from there, since the API does not have it yet, and is believed until the sandbox ends. These claims are kept in
//     a file, so an engine that was started again does not forget them.
//
// Only the node's own pods are isolated, each node judges for itself; peers are the pods of all nodes. Pods in the
// node's own network (hostNetwork) are neither. IPv4 only.
//
// When the engine ends, its rules stay; new pods then wait at the gate, and fail.
package policy
