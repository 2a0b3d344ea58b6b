// Package master is the kernel at work: it knows the datacenter's agents, places instances of tasks on them, tells them
// what to run, takes in what they report, and shows it all to the schedulers, which hold it as a kernel.Kernel.
//
// # The core and the loop
//
// [core.State] is everything a leader knows, pure, and a package of its own. [Master] is the loop around it: it gathers
// events while a transaction is under way, steps through them at once, commits every row they changed in one
// transaction (one request when idle, thousands under load), and only then sends frames, answers requests and tells
// watchers. Every transaction carries the leadership's fence. A transaction that fails, or whose outcome nobody knows,
// ends the leadership and drops the state: the next leader loads what is durable. Before a batch is committed an audit
// judges it, and a batch that breaks an invariant ends the leadership before it is durable.
//
// What is read often, machines and reservations, is published as a snapshot when a batch is durable, before its answers
// leave; whatever else is asked goes through the loop and waits for a commit.
//
// # Connections
//
// Agents dial the master's listener; what else connects there is handed to an HTTP server. An agent that takes frames
// too slowly is cut off and begins anew. A connection counts against the limit for as long as it is open.
//
// # Failure
//
// Without a quorum nothing changes and every call ends with errdefs.ErrUnavailable; agents and their tasks go on by
// themselves.
package master
