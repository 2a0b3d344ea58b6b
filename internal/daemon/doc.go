// Package daemon wires the rooms into the processes of a datacenter. It decides nothing about work: it opens the store,
// campaigns for leadership, builds the master and the schedulers for as long as it leads, opens the doors, and keeps
// the machine's agent running beside it.
//
// # Processes
//
// A machine has up to three processes of ours and one more per task instance:
//
//	marina daemon   store, master, schedulers, gateway; restarts the agent when it dies
//	marina agent    runs tasks, checks, names, VIP rules; restarts containerd when it dies
//	containerd      private, ours by path
//	shims           one per container; parents of the tasks
//
// Each outlives the one above it. Killing the daemon leaves the agent serving; killing the agent leaves containerd and
// all tasks; killing containerd leaves shims and tasks. Whatever comes back finds the others by their pid files and
// sockets and adopts them; none of them is started twice (each holds a lock on its own directory).
//
// # Terms
//
// Leadership is a context. For each term the daemon builds a new master and new schedulers from the store and hands
// requests to them; when the term's context ends, they are gone, requests answer 503, and it campaigns again. Nothing
// survives a term in memory but the store's view of tokens.
//
// # The admin socket
//
// <state>/run/admin.sock answers uid 0 only (SO_PEERCRED). It gives the first token, tells how the datacenter is, and
// signs the certificate of this machine's agent, whose key never leaves the agent's memory.
package daemon
