// Package kernel is the vocabulary every other room speaks: agents, resources, specs, instances, statuses, checks,
// endpoints, volumes, quotas, and the two contracts that cross rooms: Kernel, which schedulers hold, and the frames (Up
// and Down) that master and agent exchange.
//
// # How the nouns fit
//
// A scheduler (services, kubernetes) describes what one instance of its work looks like in a Spec: one or more
// tasks that share a network and start together. A Spec is immutable and named by its content, so ten thousand
// instances cost one copy of it. An instance is an Assignment: an id the scheduler chose, the Spec it was made from,
// and what the master gave it when it placed it: an agent, an address, host ports. An agent is one machine's process;
// it is told its assignments, makes them real, and reports one Status per task.
//
//	Spec (once) <- Assignment (per instance: agent, address, ports, goal) -> Task (per container) -> Status (reported)
//
// # Guarantee and limit
//
// Resources come in two amounts. The guarantee is what placement adds up and no one else can be promised; the limit is
// what the machine lets a task use. They are equal unless a spec says otherwise, and they may move apart while a task
// runs.
//
// # Guarantees of this room
//
// Values here are plain data: no clock, no I/O, no goroutine, no global. JSON tags are the wire format between master
// and agent and in the store, so a field once written is never reused for something else. Everything that reads input
// has a limit with a name (MaxSpecBytes, MaxMessage). Arithmetic on Resources saturates and never wraps.
package kernel
