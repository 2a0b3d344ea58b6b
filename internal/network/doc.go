// Package network connects a datacenter's groups on one machine and keeps their names and addresses. It is what an agent
// holds as its Network; nothing here knows the agent.
//
// # Who owns what
//
// The parent owns the machine's side: the bridge, the groups' namespaces and links (by the CNI plugins bridge and static),
// the route of the VIP range, the settings it changes, the ports it holds, and the records of all that on disk. It decides
// which door leads where (decide.go, pure) and states two contracts: Rules (packet rules; child vip, nftables) and Names
// (child dns). Daemon gives the children in; the parent imports neither.
//
// # Names on the machine
//
// Everything carries the instance id: bridge marXXXXXX, nftables tables marina_XXXXXXXX, routes of protocol 109. Namespaces are
// mounts under STATE/netns, records lie under STATE/network. Nothing else is touched but net.ipv4.ip_forward, which is
// recorded and restored by Cleanup unless another datacenter is on the machine. The bridge's own route_localnet is set so
// that 127.0.0.1 leads to host ports; rules keep groups away from it.
//
// # How a group is connected
//
// Its address stands alone (/32) and all it sends goes to the gateway, packets for a neighbour too. So every packet passes
// the same rules, replies through a door find their way back without their sender's address being hidden, and a group sees
// who calls it. Only who calls itself, or calls by 127.0.0.1, is seen as the gateway. Low ports are free to everybody in a
// group's namespace.
//
// # Doors
//
// A VIP leads to all ready tasks that declare it. A host port leads to its group as long as that is attached. A published
// port leads to all ready tasks, from all addresses of the machine. Straight to a group's address if the group is here or
// has no host port, else to its machine's host port. 127.0.0.1 leads to tasks on this machine only, as the kernel sends
// nothing from there to others.
//
// Host ports and published ports are bound by this process as well, on all addresses, so that nobody else takes them by
// mistake. A foreign listener is an error that names it and the door stays closed. One that came while no process held the
// port is reported, and the group that had the port first keeps it.
//
// # How it fails
//
// All outlives the process: New reads the records, Configure finds bridge and rules as they are, and until the first Apply
// doors lead where they did. A record is written before anything is made and removed after everything is gone; Attach
// completes or redoes what a crash left, Attached lists it so that the agent can detach it. What others break (rules
// flushed, bridge or route deleted) is put back within repairInterval by Run. Every method can be repeated.
package network
