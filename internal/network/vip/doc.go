// Package vip keeps a datacenter's packet rules on one machine: frontends (VIPs, published ports, host ports) and their
// backends, what instances may send and reach, and egress. It implements network.Rules by netlink; no program is run.
//
// # Two tables
//
// All is in table ip marina_ID and table bridge marina_ID. Neither iptables nor any table of others is touched. Every
// change is one transaction of the kernel: packets see all of it or nothing. The rules serve without this process, and
// the next one reads frontends and backends back from the kernel.
//
// # From frontend to backend
//
//	map doors    address . protocol . port          -> goto vip_N or own_N, N being how many backends there are
//	map backends address . protocol . port . 0..N-1 -> address . port
//
// A chain vip_N draws a number below N, looks the backend up under that number and redirects the connection there.
// There is one such balancer chain for each N in use and not one for each frontend, so that a changed backend costs a
// few elements, whatever the number of frontends. Backends keep their numbers while they stay; a removed one's number
// goes to the last. A packet that comes between the two lookups while N changes may miss; it then takes number 0,
// which every frontend has. (Kernels before 6.17 can also miss an element that is just being replaced: lookups of
// frontends are made twice.) Chains own_N do the same for ports on the machine's own addresses, stored under the
// address 0.0.0.0.
//
// Only the first packet of a connection passes here; established ones follow the connection tracking and are left alone
// by every change. UDP has no end to its connections, so those to a removed backend are deleted there.
//
// A frontend without backends refuses at once: VIPs are local addresses of the machine (a route that package network
// keeps), and connections that no rule redirects are rejected on input. Literal addresses outside the range are
// rejected by set refused, ports of the machine by set held.
//
// # What instances may do
//
// On the bridge, a link may send IPv4 and ARP from its own instance's address to the gateway, and nothing else:
// instances reach each other through it, never as neighbours. To the machine itself instances may send DNS, ping,
// connections that a frontend redirects there, and those to the ports in set open. From outside, an instance is reached
// through frontends only. Packets that leave the pool are masqueraded.
//
// # Networks
//
//	map networks address                    -> number of the named network the instance with this address is in
//	set members  number . address           the instances in it
//	set inner    protocol . port            host ports of instances in named networks
//	set insiders number . protocol . port   those of its own
//
// Numbers of two addresses cannot be compared in a rule, but the sender's can be looked up together with the
// receiver. Forwarding passes replies and redirected connections, then packets within one network, and then none from
// or to a named network. Whether an instance may call a host port is checked on entry, before redirection makes the
// call look like others: another frontend can have the same backend. TCP is reset at once; the answer to others is
// often swallowed by the kernel's limit. When an address changes its network, or leaves it, its tracked connections are
// deleted: its next owner would go on with them.
//
// # How it fails
//
// A refused transaction changes nothing; the kernel's sets are then read anew before the next one. When another process
// changes the ruleset, Repair compares and rebuilds the tables in one transaction.
package vip
