// Package metrics counts and times what a process does, for operators and for Prometheus. A process has one [Registry];
// every room that runs is given it and registers its instruments when it is made.
//
// # Names
//
// Prometheus' conventions hold and a test checks them: marina_<room>_<what>_<unit>, seconds and bytes as units, _total
// at the end of counters. The whole name stands in the code, so that what a graph shows is found by searching for it.
// Labels have few values that are known when the program is written: kinds, stages, outcomes. Never an id of a task, an
// app or a user.
//
// # What it guarantees
//
// Asking twice for the same instrument gives the same one: rooms that live as long as a leadership are made anew with
// each, and their counters go on. A nil Registry gives instruments that nobody reads, so that a room need not ask
// whether it is measured. Counting takes tens of nanoseconds, no lock and no allocation.
//
// # How it fails
//
// The same name with another help, other labels or another kind cannot be and panics, when the room is made.
package metrics
