// Package routes connects a node's pods: with each other, with the pods of the cluster's other nodes, and with the
// outside.
//
// Pods are behind point-to-point links (CNI plugin ptp), so everything is routed and meets the rules. Between nodes
// their packets travel in VXLAN with their own source address. It is flannel's scheme: one device without learning, and
// for each other node three entries that follow from its Node object alone, the route of its pods' range by its
// device's address, the neighbour behind that address, and the node address behind that neighbour. A device's MAC
// follows from its node's address, so nobody has to publish one.
//
// What leaves the cluster's range is masqueraded with the node's address. The table marina_node holds that, and what
// must never happen: a pod's packet on the machine's network under its own address, a packet from there that speaks to
// a pod or Service directly, and VXLAN packets from anybody but the cluster's nodes.
//
// Run owns the device, its entries, the table, and the CNI configuration, which is written last: its being there is
// what makes the node ready for pods. All of it stays when the process ends, and the next one adopts it.
package routes
