// Package reservation keeps what outlives instances: a machine, an address, host ports and volumes, which one instance
// at a time holds ([kernel.Reservation]).
//
// A [Table] belongs to one goroutine and is memory only: it reports each reservation whose row changed to its owner,
// who writes it and counts its volumes against machine and quota. [Table.Place] gives a reservation its holder,
// [Table.Release] takes it back. One that its owner gave up stays, Released, until its machine has deleted it; one
// whose machine was removed stays, Lost, until its owner gives it up.
package reservation
