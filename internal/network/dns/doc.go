// Package dns answers for the datacenter's names, on the bridge's gateway address only, and asks the machine's name
// servers for all others. It implements network.Names.
//
// # Names
//
// T is a task's discovery name, dotted ("api.web.prod") or dashed ("api-web-prod"); F is its framework; H and S make a
// canonical name T-H-S unique: the task id's hash and the end of the agent's id.
//
//	T.F.mesos, T-H-S.F.mesos                     where the task's ports are reached, see below
//	T.F.slave.mesos                              its machine
//	_T._tcp.F.mesos, _port._T._tcp.F.mesos       SRV of all ports, of the named port
//	_T._tcp.F.slave.mesos                        SRV of all host ports
//	T.F.agentip.dcos.thisdcos.directory          its machine
//	T.F.containerip.dcos.thisdcos.directory      its own address, or its machine's in host mode
//	T.F.autoip.dcos.thisdcos.directory           as T.F.mesos
//	V.F.l4lb.thisdcos.directory                  the VIP named V
//	_V._tcp.F.l4lb.thisdcos.directory            SRV of the VIP's ports
//	leader.mesos, master.mesos, F.mesos          masters; _leader._tcp.mesos has the leader's port
//
// thisdcos.global and dclb are other spellings of thisdcos.directory and l4lb; N.mesos.thisdcos.directory is N.mesos.
//
// # Address and port
//
// DC/OS answers T.F.mesos with the machine's address even when no port is mapped to it, so that its SRV records can
// name a pair where nobody listens. Here the rule is DC/OS's autoip: the machine's address if any port has a host
// port, else the task's own. A port that has no host port beside others that do gets an SRV record of its own target,
// the canonical name under containerip. Every pair of target and port in an SRV answer can be connected to from a
// task and from the machine.
//
// # Answers
//
// Changes are known here within milliseconds, so a cache's memory would be the slowest part of the way: the TTL is 5
// seconds in all zones, mesos included, where DC/OS says 60. Answers are in random order, at most maxAnswers of them.
// A name that does not exist is NXDOMAIN, whatever the type asked; one that exists with other types is empty; both
// carry the zone's SOA. A VIP's name exists while any instance declares it, ready or not.
//
// # Upstream
//
// Other names are asked of the machine's resolv.conf, read anew when it changes: two servers at a time, first usable
// answer wins. The gateway itself is never asked. Equal questions on their way share one exchange and there are at
// most maxForwards, so that a loop through somebody else ends in a timeout and not in a storm. Only addresses of the
// pool and the machine are answered at all.
package dns
