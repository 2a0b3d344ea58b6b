// Package queue keeps the instances that wait to be placed, in entries of one spec each.
//
// A [Queue] belongs to one goroutine and is memory only. An instance waits in one entry from [Queue.Add] until
// [Queue.Place] or [Queue.Withdraw] takes it out. New entries are fresh until their first turn, and join the queue if
// anything of them is left then. [ServeFairly] says in which order entries are tried: roles by turns as the quota tree
// says, within a role the higher priority first, then what waits longest.
//
// What waits for long may have a machine kept for it ([Backfill]), so that small instances that fit into every gap do
// not make it wait for ever. The queue knows which entries have one; what it takes of machine and quota is counted by
// its owner.
package queue
