// Package machine is a stub of the machines of a simulated datacenter, and of the network between them and its masters.
//
// An [Agent] is a machine with its containers, a disk that holds the newest epoch, the instances and what was not
// acknowledged, and a process that may die, pause and return while containers go on. It keeps to the contract of
// kernel's Down and Up. A [Link] is one connection to a master: by the weather it loses, doubles, delays and reorders
// frames, and each end believes for itself whether it stands.
//
// Masters and the judge are seen as [Master] and [Judge]; [Env] is what all share. What a machine does befalls it from
// outside: whoever simulates switches it on and off, cuts it off, kills its process, makes its tasks fail.
package machine
