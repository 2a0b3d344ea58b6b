// Package network connects a datacenter's instances on one machine and serves their names and addresses. It implements
// the agent's Network; nothing here knows the agent.
//
// # Who owns what
//
// The parent owns the machine's side: the bridge, the instances' namespaces and links (by the CNI plugins bridge and
// static), the route of the VIP range, the settings it changes, the ports it binds, and the records of all that on
// disk. It decides which frontend has which backends (decide.go, pure) and states two contracts: Rules (packet rules;
// child vip, nftables) and Names (child dns). Daemon gives the children in; the parent imports neither.
//
// # Names on the machine
//
// Everything carries the instance id: bridge marXXXXXX, nftables tables marina_XXXXXXXX, routes of protocol 109.
// Namespaces are mounts under STATE/netns, records lie under STATE/network. Nothing else is touched but
// net.ipv4.ip_forward, which is recorded and restored by Cleanup unless another datacenter is on the machine. The
// bridge's own route_localnet is set so that 127.0.0.1 leads to host ports; rules keep instances away from it.
//
// # How an instance is connected
//
// Its address stands alone (/32) and all it sends goes to the gateway, packets for a neighbour too. So every packet
// passes the same rules, replies pass their frontend on the way back although no sender's address is hidden, and a
// instance sees the address of its caller. Only calls to oneself and to 127.0.0.1 come from the gateway. Low ports are
// free to everybody in an instance's namespace.
//
// The bridge delivers frames to a link by the link address that its instance was created with, and learns no others: a
// instance that owns its namespace could take any. One that changes its own is cut off until it is attached anew.
//
// # Groups that own their network
//
// A network namespace made by the machine's root refuses packet rules and most kinds of links to everybody else. With
// Attachment.IDs the namespace belongs to a user namespace with that range of ids, so that the instance's root has all
// of it: nftables, bridges, veth, VXLAN, net sysctls. One short-lived process (a thread cannot) creates both; they
// are mounted at STATE/netns/X and X.user, which are created, dropped and found again together. Forwarding inside is
// the instance's own business. Nothing else differs; what such an instance sends passes the same rules on the machine's
// side.
//
// # Named networks
//
// Groups of different networks (Attachment.Network; empty is the datacenter's own, a network like others here) reach
// each other through VIPs and published ports, never by address. The machine itself reaches every instance by address,
// and groups answer every caller that may call them. An instance's host ports are for other computers, for the machine,
// for its own network and for the datacenter's own, and not for other named networks; host ports of the datacenter's
// own instances are for all.
//
// Of the machine itself an instance in a named network reaches what every instance does, and nothing more: names at the
// gateway's port 53, ping, frontends, and the ports of host-mode instances. Agent, master and gateway of the datacenter
// are not among them, unless a published port leads there. The outside is free to it, under the machine's address.
//
// Each named network with instances here has a number on this machine, kept in their records. Networks of instances on
// other machines are not known here: an instance in a named network reaches none of them by address and is reached by
// none, its own network's included, and a VIP of another machine that leads straight to it does not arrive. What
// comes as another computer's own, masqueraded instances of other machines included, may call host ports.
//
// # Frontends and backends
//
// The backends of a VIP are all ready tasks that declare it; of a published port, on all addresses of the machine,
// all ready tasks that publish it; of a host port, its instance as long as that is attached. A backend is reached at
// its instance's address if the instance is here or has no host port, else at its machine's host port. On 127.0.0.1
// only tasks on this machine are backends, as the kernel sends nothing from there to others.
//
// Host ports and published ports are bound by this process as well, on all addresses, so that nobody else takes them
// by mistake. A foreign listener is an error that names it and the frontend stays closed. One that came while no
// process had the port bound is reported, and the instance that had the port first keeps it.
//
// # How it fails
//
// All outlives the process: New reads the records, Configure finds bridge and rules as they are, and until the first
// Apply frontends keep their backends. A record is written before anything is created and removed after everything is
// gone; Attach completes or redoes what a crash left, Attached lists it so that the agent can detach it. What others
// break (rules flushed, bridge or route deleted) is repaired within repairInterval by Run. A change that the packet
// rules refuse stays pending, for the next call or repair. Every method can be repeated.
package network
